"""Packing: by reference, by value, and what travels with it."""

from __future__ import annotations

import fractions
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fngw
from fngw.options import Options
from fngw.pack import Packed, pack
from fngw.pickles import pickle_arguments

from .sdk_projects import PACK, PackedProject, run_python, write

Pack = Callable[..., PackedProject]


def test_a_module_goes_by_reference(project: Path, packed: Pack) -> None:
    write(
        project, {"app.py": "import helper, fngw\n@fngw.deployment\ndef f(): return helper.X", "helper.py": "X = 7"}
    )
    found = packed("from app import f as target", project)
    assert (found.code["target"], found.code["pickle"]) == ("app:f", None)
    assert found.names == ["app.py", "helper.py"]
    assert found.load("target()") == "7"


def test_the_root_of_a_package_is_above_it(project: Path, packed: Pack) -> None:
    write(
        project,
        {
            "pkg/__init__.py": "",
            "pkg/sub/deep.py": "from pkg.data import X\nclass Outer:\n  class Inner:\n    x = X",
            "pkg/data.py": "X = 3",
        },
    )
    found = packed("from pkg.sub.deep import Outer; target = Outer.Inner", project)
    assert found.code["target"] == "pkg.sub.deep:Outer.Inner"
    assert found.names == ["pkg/__init__.py", "pkg/data.py", "pkg/sub/deep.py"]
    assert found.load("target.x") == "3"


def test_main_goes_by_value_with_its_folder(project: Path, packed: Pack) -> None:
    write(project, {"helper.py": "X = 1", "data/words.txt": "hi"})
    found = packed("import helper\ndef target(): return helper.X", project, script="main.py")
    assert (found.code["target"], found.code["pickle"]) == (None, "fngw_target.pkl")
    assert found.names == ["data/words.txt", "fngw_target.pkl", "helper.py", "main.py"]
    assert found.load("target()") == "1"


def test_main_of_a_package_has_the_root_above_it(project: Path, tmp_path: Path) -> None:
    write(project, {"pkg/__init__.py": "", "pkg/tool.py": "from pkg.x import X\ndef target(): return X\n" + PACK})
    write(project, {"pkg/x.py": "X = 'x'"})
    run_python(["-m", "pkg.tool"], project, OUT=str(tmp_path / "out"))
    names = PackedProject({}, tmp_path / "out").names
    assert names == ["fngw_target.pkl", "pkg/__init__.py", "pkg/tool.py", "pkg/x.py"]


def test_a_repl_ships_the_modules_that_it_uses(project: Path, packed: Pack) -> None:
    write(
        project,
        {
            "used.py": "import alsoused\nX = 1",
            "alsoused.py": "",
            "inside.py": "Y = 2",
            "pkg/__init__.py": "",
            "pkg/mod.py": "def g(): return 3",
            "unused.py": "",
        },
    )
    code = """
        import used
        from pkg.mod import g
        class target:
            def f(self):
                import inside
                return used.X + inside.Y + g()
    """
    found = packed(code, project)
    assert found.names == [
        "alsoused.py",
        "fngw_target.pkl",
        "inside.py",
        "pkg/__init__.py",
        "pkg/mod.py",
        "used.py",
    ]
    assert found.load("target().f()") == "6"


def test_a_closure_goes_by_value(project: Path, packed: Pack) -> None:
    write(project, {"app.py": "Y = 1\ndef make(x):\n  def inner(): return x + Y\n  return inner"})
    found = packed("from app import make; target = make(2)", project)
    assert found.code["pickle"]
    assert found.load("target()") == "3"


def test_modules_outside_of_the_root_travel(project: Path, packed: Pack, tmp_path: Path) -> None:
    lib = write(tmp_path / "lib", {"shared.py": "def s(): return 5", "other/__init__.py": "from shared import s"})
    found = packed("import other\ndef target(): return other.s()", project, "main.py", PYTHONPATH=str(lib))
    assert found.names == ["fngw_target.pkl", "main.py", "other/__init__.py", "shared.py"]
    assert found.load("target()") == "5"


def test_two_modules_in_one_place(project: Path, tmp_path: Path, packed: Pack) -> None:
    lib = write(tmp_path / "lib", {"helper.py": "X = 1"})
    write(project, {"work/helper.py": "X = 2"})
    code = "import helper\noptions = {'working_dir': 'work'}\ndef target(): return helper.X"
    with pytest.raises(AssertionError, match=r"module_clash|in its place"):
        packed(code, project, PYTHONPATH=str(lib))


def test_constructor_arguments_travel_with_their_modules(project: Path, packed: Pack, tmp_path: Path) -> None:
    lib = write(tmp_path / "lib", {"shapes.py": "class Shape:\n  sides = 3"})
    write(project, {"app.py": "class A:\n  def __init__(self, shape): self.shape = shape"})
    code = "from app import A as target\nimport shapes\nargs = (shapes.Shape(),)"
    found = packed(code, project, PYTHONPATH=str(lib))
    assert (found.code["target"], found.names) == ("app:A", ["app.py", "shapes.py"])
    assert found.load("target(*args).shape.sides") == "3"


def test_one_class_in_target_and_arguments_is_one_class(project: Path, packed: Pack) -> None:
    code = """
        class Config: pass
        class target:
            def __init__(self, config): self.same = isinstance(config, Config)
        args = (Config(),)
    """
    assert packed(code, project, "main.py").load("target(*args).same") == "True"


def test_a_working_dir_from_which_the_module_is_not_found(project: Path, packed: Pack) -> None:
    write(project, {"src/app.py": "import helper\ndef target(): return helper.X", "src/helper.py": "X = 4"})
    write(project, {"assets/a.txt": ""})
    found = packed(
        "from app import target\noptions = {'working_dir': '.'}", project, PYTHONPATH=str(project / "src")
    )
    assert found.code["pickle"]
    assert found.names == ["assets/a.txt", "fngw_target.pkl", "helper.py", "src/app.py", "src/helper.py"]
    assert found.load("target()") == "4"


def test_a_nested_deployment_survives(project: Path, packed: Pack) -> None:
    code = """
        import fngw
        @fngw.deployment(num_replicas=3)
        def inner(): pass
        class target:
            def f(self): return inner.num_replicas, inner.get_handle()
        args = (inner, inner.get_handle())
    """
    found = packed(code, project, "main.py")
    assert found.load("(target().f(), args)") == (
        "((3, DeploymentHandle('inner')), (Deployment(name='inner', version=None, route_prefix='/inner'), "
        "DeploymentHandle('inner')))"
    )


def test_installed_code_is_only_named(project: Path, packed: Pack) -> None:
    found = packed("import json; target = json.dumps", project)
    assert (found.code["target"], found.names) == ("json:dumps", [])
    assert found.load("target([1])") == "[1]"


@pytest.mark.parametrize("script", ["main.py", ""])
def test_two_runs_give_the_same_bundle(project: Path, packed: Pack, script: str) -> None:
    code = """
        import enum
        class Base: pass
        class Colour(enum.Enum):
            RED = 1
        class target(Base):
            def f(self): return Colour.RED, Base
    """
    digests = {packed(code, project, script, PYTHONHASHSEED=seed).code["bundle"] for seed in ("1", "2")}
    assert len(digests) == 1
    assert packed(code.replace("Base: pass", "Base: x = 1"), project, script).code["bundle"] not in digests


def test_using_a_class_does_not_change_its_bundle() -> None:
    class Config:
        pass

    class Target:
        def same(self, other: Any) -> bool:
            return isinstance(other, Config)

    first = pack_here(Target, OPTIONS).code.bundle
    pickle_arguments((Config(), Target()), {}, "%d.%d" % sys.version_info[:2])
    assert pack_here(Target, OPTIONS).code.bundle == first


# -- what cannot be sent ----------------------------------------------------------------------------------


Plain = fractions.Fraction  # any class that goes by reference
OPTIONS = Options(name="x", working_dir=str(Path(__file__).parent))


def pack_here(target: Any, options: Options, *args: Any, **kwargs: Any) -> Packed:
    packed = pack(target, options, args, kwargs, limit=2**28)
    packed.bundle.file.close()
    return packed


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(fngw.ValidationError, match=r"init_args\[1\] cannot be sent.*lock") as caught:
        pack_here(Plain, OPTIONS, 1, lock)
    assert caught.value.code == "unpicklable"
    with pytest.raises(fngw.ValidationError, match=r"init_kwargs\['model'\]"):
        pack_here(Plain, OPTIONS, a=1, model=lock)


def test_a_closure_variable_that_cannot_be_pickled_is_named() -> None:
    guard = threading.Lock()

    def uses() -> Any:
        return guard

    class Uses:
        def method(self) -> Any:
            return guard

    class Holds:
        held = guard

    for target, message in ((uses, "closure variable 'guard'"), (Uses, "'guard'"), (Holds, "attribute 'held'")):
        with pytest.raises(fngw.ValidationError, match=message):
            pack_here(target, OPTIONS)


def test_by_value_needs_the_callers_python() -> None:
    other = "3.8"

    def closure() -> Any:
        return other

    with pytest.raises(fngw.ValidationError, match=r"not 3\.8") as caught:
        pack_here(closure, OPTIONS.replace(python=other))
    assert caught.value.code == "python_mismatch"
    with pytest.raises(fngw.ValidationError, match="init_args") as caught:
        pack_here(Plain, OPTIONS.replace(python=other), closure)
    assert caught.value.code == "python_mismatch"
    assert pack_here(Plain, OPTIONS.replace(python=other), 1, len, Plain()).python == other
    assert pack_here(json.dumps, OPTIONS).python == "%d.%d" % sys.version_info[:2]


def test_too_large(project: Path) -> None:
    write(project, {"big/a": "x" * 3000, "big/b": "x" * 3000, "small/a": "x" * 10, "c.txt": "x" * 100})
    options = OPTIONS.replace(working_dir=str(project))
    with pytest.raises(fngw.ValidationError, match=r"big/ 0\.0 MiB, c\.txt .*small/.*") as caught:
        pack(json.dumps, options, (), {}, limit=5000)
    assert caught.value.code == "bundle_too_large"
    assert ".fngwignore" in caught.value.hint
    write(project, {".fngwignore": "big/\n"})
    assert pack_here(json.dumps, options).bundle.size < 20_000


def test_missing_working_dir() -> None:
    with pytest.raises(fngw.ValidationError, match="working_dir"):
        pack_here(json.dumps, OPTIONS.replace(working_dir="not-here"))
    with pytest.raises(fngw.ValidationError, match="not a folder"):
        pack_here(json.dumps, OPTIONS.replace(working_dir=__file__))
