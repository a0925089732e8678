"""Imports a user's file and finds the deployments in it."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from fngw.cli.report import usage_error
from fngw.deployments import Deployment
from fngw.errors import FngwError

_EXAMPLE = """decorate what shall be deployed:
    @fngw.deployment
    def hello(request):
        return "hello\""""


def load(targets: Iterable[str], modules: dict[Path, ModuleType] | None = None) -> list[Deployment]:
    """Return the deployments that ``FILE[:ATTR]`` targets mean, in their order.

    Args:
        targets: a file alone means all deployments that it defines.
        modules: files that were imported before, and these: each is imported once.

    Raises:
        FngwError: ``usage`` (no such file), ``import_failed``, ``module_name_taken``, ``no_deployments``,
            ``not_a_deployment``, ``attribute_not_found`` or ``duplicate_name``.

    Example:
        >>> load(["app.py:Greeter"])
        [Deployment(name='Greeter', version=None, route_prefix='/Greeter')]
    """
    found: list[Deployment] = []
    modules = {} if modules is None else modules
    for target in targets:
        path, attribute = split_target(target)
        if path not in modules:
            modules[path] = import_file(path)
        chosen = [_attribute(modules[path], path, attribute)] if attribute else _all(modules[path], path)
        found += [d for d in chosen if not any(d is f for f in found)]
    _refuse_duplicates(found)
    return found


def split_target(target: str) -> tuple[Path, str]:
    """Return the absolute path and the attribute (or nothing) of ``FILE[:ATTR]``.

    Raises:
        FngwError: ``usage``: there is no such file.
    """
    head, colon, tail = target.rpartition(":")
    file, attribute = (head, tail) if colon and all(p.isidentifier() for p in tail.split(".")) else (target, "")
    path = Path(file).absolute()
    if path.is_file():
        return path, attribute
    hint = "give a Python file: fngw deploy app.py, or fngw deploy app.py:Name"
    what = "is a directory" if path.is_dir() else "does not exist"
    raise usage_error(f"{file}: {what}", hint)


# -- importing --------------------------------------------------------------------------------------------


def import_file(path: Path) -> ModuleType:
    """Import a file under the name by which a replica will find it: that of its package, if it is in one.

    What it prints goes to stderr: stdout is for results.

    Raises:
        FngwError: ``import_failed`` with the file's own traceback, or ``module_name_taken``.
    """
    root, name = _import_name(path)
    _refuse_taken(name, path)
    sys.path.insert(0, str(root))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if "." in name:
                return importlib.import_module(name)
            return _import_alone(name, path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too: a script may end itself
        raise _import_failed(path, root, error) from None


def _import_alone(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise usage_error(f"{path.name} is not a Python file", "its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as import does: dataclasses and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_name(path: Path) -> tuple[Path, str]:
    """Return the folder that has to be on ``sys.path``, and the module's name below it."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, parts = root.parent, [root.name, *parts]
    return root, ".".join(parts)


def _refuse_taken(name: str, path: Path) -> None:
    """A file named like a module that is there already would not be found under its name, here or in a replica."""
    top = name.partition(".")[0]
    loaded = sys.modules.get(top)
    taken = loaded is not None and not _lies_at(loaded, path)
    if taken or top in sys.stdlib_module_names:
        raise FngwError(
            f"{path.name} has the name of another Python module, {top!r}",
            code="module_name_taken",
            hint="rename the file, for example to app.py",
        )


def _lies_at(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and (Path(file).absolute() == path or Path(file).absolute().parent in path.parents)


def _import_failed(path: Path, root: Path, error: BaseException) -> FngwError:
    if isinstance(error, FngwError) and error.code == "usage":
        return error
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        what, hint = "ended the program while it was imported", "put what runs it below: if __name__ == '__main__':"
    else:
        what, hint = f"cannot be imported: {kind}: {_first_line(error)}", "mend it; nothing was deployed"
    if isinstance(error, ModuleNotFoundError):
        hint = f"install {error.name} where fngw runs, or import it inside the function that needs it"
    detail = "".join(traceback.format_exception(type(error), error, _from_user(error.__traceback__, root)))
    return FngwError(f"{path.name} {what}", code="import_failed", detail=detail, hint=hint)


def _from_user(frames: TracebackType | None, root: Path) -> TracebackType | None:
    """Leave out the frames before the user's first one: they are ours and Python's."""
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith(str(root)):
        frames = frames.tb_next
    return frames


def _first_line(error: BaseException) -> str:
    text = error.message if isinstance(error, FngwError) else str(error)
    return (text.splitlines() or [""])[0]


# -- finding ----------------------------------------------------------------------------------------------


def _all(module: ModuleType, path: Path) -> list[Deployment]:
    """Return the deployments that the module defines; those that it imports, when it defines none itself."""
    found = _unique(v for v in vars(module).values() if isinstance(v, Deployment))
    own = [d for d in found if _home(d) == module.__name__]
    if own or found:
        return own or found
    raise FngwError(
        f"{path.name} has no deployments; {_listed(module)}",
        code="no_deployments",
        hint=_EXAMPLE,
    )


def _attribute(module: ModuleType, path: Path, attribute: str) -> Deployment:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [n for n, v in vars(module).items() if isinstance(v, Deployment)]
            near = difflib.get_close_matches(attribute, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"its deployments: {', '.join(names) or 'none'}"
            raise FngwError(f"{path.name} has no {attribute!r}", code="attribute_not_found", hint=hint)
        value = getattr(value, part)
    if isinstance(value, Deployment):
        return value
    kind = type(value).__name__
    message = f"{attribute!r} of {path.name} is not a deployment but a {kind}"
    raise FngwError(message, code="not_a_deployment", hint=_EXAMPLE)


def _unique(found: Iterable[Deployment]) -> list[Deployment]:
    return list({id(d): d for d in found}.values())


def _home(deployment: Deployment) -> str | None:
    with contextlib.suppress(FngwError):  # one that was fetched has no code here
        return deployment.func_or_class.__module__
    return None


def _listed(module: ModuleType) -> str:
    names = list(_own_names(module))
    return f"it has {', '.join(names)}, but without @fngw.deployment" if names else "it defines nothing"


def _own_names(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
            if inspect.isclass(value):
                yield f"the class {name}"
            elif inspect.isfunction(value):
                yield f"the function {name}"


def _refuse_duplicates(found: list[Deployment]) -> None:
    names = [d.name for d in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise FngwError(
            f"two of the deployments are named {twice!r}",
            code="duplicate_name",
            hint="give one another name: @fngw.deployment(name=…), or deploy just one: FILE:ATTR",
        )
