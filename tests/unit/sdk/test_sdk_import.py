"""``import fngw`` stays light, and what goes into replicas stays within old Python and the standard library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fngw

SOURCES = sorted(Path(fngw.__file__).parent.glob("*.py"))
#: The caller's side: these may use what the light client depends on.
CALLERS_SIDE = {"client", "pack", "bundle", "pickles", "origins", "imports"}
HEAVY = {"asyncio", "cloudpickle", "concurrent", "email", "http", "httpx", "logging", "pathspec", "rich", "ssl"}


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_import_loads_only_the_standard_library() -> None:
    loaded = run("import sys; old = set(sys.modules); import fngw; print(*(set(sys.modules) - old))").split()
    tops = {name.split(".")[0] for name in loaded}
    assert tops - {"fngw"} <= sys.stdlib_module_names
    assert not tops & HEAVY


def test_import_takes_not_much_longer_than_that_of_asyncio() -> None:
    """60 to 80 ms, where httpx takes six times as long. By comparison: a busy machine's processors are slower."""
    took = {module: [import_s(module) for _ in range(5)] for module in ("fngw", "asyncio")}
    assert min(took["fngw"]) < 2.5 * min(took["asyncio"]), took


def import_s(module: str) -> float:
    """How much time of a processor an import takes."""
    return float(run(f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"))


def test_all_public_names_exist() -> None:
    assert run("import fngw; print([n for n in fngw.__all__ if not hasattr(fngw, n)])") == "[]"
    assert (
        run("from fngw import *; print(callable(deployment), callable(batch), callable(get))") == "True True True"
    )
    assert run("from fngw import serve; print([n for n in serve.__all__ if not hasattr(serve, n)])") == "[]"


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = fngw.nothing_of_this_name  # type: ignore[attr-defined]


def test_no_module_shadows_a_public_name() -> None:
    assert not {path.stem for path in SOURCES} & set(fngw.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_replica_modules_are_python_37_and_standard_library(path: Path) -> None:
    if path.stem in CALLERS_SIDE:
        return
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    for node in tree.body:  # of the module itself: functions may load more on first use
        if isinstance(node, ast.Import):
            tops = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops = {str(node.module).split(".")[0]}
        else:
            continue
        assert tops <= sys.stdlib_module_names | {"fngw"}


def test_replica_modules_import_without_third_parties() -> None:
    names = [f"fngw.{p.stem}" for p in SOURCES if p.stem not in CALLERS_SIDE and p.stem != "__init__"]
    block = "import sys, importlib; sys.modules.update(dict.fromkeys(['cloudpickle', 'httpx', 'pathspec', 'rich']))"
    assert run(f"{block}; [importlib.import_module(n) for n in {names}]; print('good')") == "good"
