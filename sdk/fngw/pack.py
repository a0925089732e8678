"""From a function or class of this process to what travels: a bundle of sources, and how a replica finds it there.

By reference where a replica can import it: the folder that its module is imported from travels, and
``"module:qualified.name"``. By value otherwise (``__main__``, closures, a REPL): then the bundle holds a pickle
too, and the local modules that it uses from elsewhere.

Its neighbours: ``origins`` (where code is), ``pickles`` (by value), ``bundle`` (which files, the archive).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from fngw.bundle import Entry, check_size, collect, write_tar
from fngw.environments import find_path, read_environment
from fngw.errors import ValidationError
from fngw.imports import imported_names
from fngw.options import Options
from fngw.origins import ModuleFile, local_module, module_file, resolves_to
from fngw.pickles import Pickled, pickle_arguments, pickle_by_value
from fngw.sources import Blob, caller_python
from fngw.spec import CodeRef

__all__ = ["PICKLE_FILE", "Packed", "pack"]

PICKLE_FILE = "fngw_target.pkl"


@dataclass(frozen=True)
class Packed:
    """What of a deployment travels.

    Args:
        bundle: the source archive.
        init: the pickled constructor arguments, or None.
        code: where the replica finds the object in the bundle.
        options: with the files of ``conda`` and ``pip`` read.
        python: the replica's ``"X.Y"``.
    """

    bundle: Blob
    init: Blob | None
    code: CodeRef
    options: Options
    python: str


def pack(
    target: Callable[..., Any], options: Options, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int
) -> Packed:
    """Pack a function or class and its constructor arguments.

    Args:
        limit: the size in bytes that the bundle may have.

    Raises:
        ValidationError: something cannot be pickled or read, the sources are too large (``bundle_too_large``), or
            another Python is asked for than the one that a by-value pickle needs (``python_mismatch``).
    """
    module = sys.modules.get(str(getattr(target, "__module__", None)))
    home = module_file(module)
    folder = home.path.parent if home else None
    root = _root(options, home)

    options = read_environment(options, folder)
    python = options.python or caller_python()
    files = collect(root, limit) if root else {}
    reference = _reference(target, module, home, files)
    with _by_value(module, files):
        code = None if reference else _checked(pickle_by_value(target), python, target)
        init = pickle_arguments(args, kwargs, python) if args or kwargs else None
    used = {*(code.modules if code else ()), *(init.modules if init else ())}
    add_modules(files, used, limit)
    if code:
        files[PICKLE_FILE] = Entry(PICKLE_FILE, data=code.data, size=len(code.data))
    check_size(files.values(), limit, root)
    bundle = write_tar(files)
    return Packed(
        bundle=bundle,
        init=Blob.of("constructor arguments", init.data) if init else None,
        code=CodeRef(bundle.digest, target=reference, pickle=PICKLE_FILE if code else None),
        options=options,
        python=python,
    )


def _root(options: Options, home: ModuleFile | None) -> Path | None:
    """Return the folder that travels: ``working_dir``, else the import root of the object's module."""
    if options.working_dir is None:
        return home.root if home else None
    path = find_path("working_dir", options.working_dir, home.path.parent if home else None)
    if not path.is_dir():
        raise ValidationError(f"working_dir: {path} is not a folder")
    return path


def _reference(
    target: Any, module: ModuleType | None, home: ModuleFile | None, files: dict[str, Entry]
) -> str | None:
    """Return ``"module:qualname"`` when a replica with ``files`` on its path can import ``target``, else None."""
    if module is None or module.__name__ == "__main__" or not resolves_to(module, target.__qualname__, target):
        return None
    if home is None:  # installed, or of the standard library; None for a module without a file
        installed = module.__name__ in sys.builtin_module_names or getattr(module, "__file__", None)
        return f"{module.__name__}:{target.__qualname__}" if installed else None
    return f"{home.name}:{target.__qualname__}" if _has(files, home) else None


@contextmanager
def _by_value(module: ModuleType | None, files: dict[str, Entry]) -> Iterator[None]:
    """Within it, the objects of ``module`` go by value if a replica would not find it by its name."""
    home = module_file(module)
    lost = home is not None and module is not None and module.__name__ != "__main__" and not _has(files, home)
    if not lost or module is None or module.__name__ in cloudpickle.list_registry_pickle_by_value():
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _checked(code: Pickled, python: str, target: Any) -> Pickled:
    if python != caller_python():
        raise ValidationError(
            f"python: {target.__qualname__} can only be sent as a pickle, which needs the Python {caller_python()} "
            f"that wrote it, not {python}",
            code="python_mismatch",
            hint="define it in a module of its own, which travels as source; or ask for that Python",
        )
    return code


# -- modules from elsewhere -------------------------------------------------------------------------------


def add_modules(files: dict[str, Entry], names: Iterable[str], limit: int) -> None:
    """Add to ``files`` the local modules ``names``, and those that they import, unless they are there.

    Raises:
        ValidationError: another file is in a module's place (``module_clash``), or they are too large.
    """
    waiting, seen = sorted(names), set()
    while waiting:
        name = waiting.pop(0)
        home = None if name in seen or name == "__main__" else local_module(name)
        seen.add(name)
        if home is None or home.name is None or _has(files, home):
            continue
        added = collect(home.root, limit, below=home.top)
        _check_clash(files, added, home)
        files.update(added)
        waiting += sorted(set(imported_names(e.path for e in added.values())) - seen)


def _has(files: dict[str, Entry], home: ModuleFile) -> bool:
    """Tell whether the bundle has this module's file in the place where its name leads to."""
    if home.name is None:
        return False
    entry = files.get(home.path.relative_to(home.root).as_posix())
    return entry is not None and entry.path is not None and entry.path.samefile(home.path)


def _check_clash(files: dict[str, Entry], added: dict[str, Entry], home: ModuleFile) -> None:
    there = next((files[name] for name in added if name in files and files[name].path != added[name].path), None)
    if there is not None:
        raise ValidationError(
            f"the module {home.name} is used from {home.path}, but the bundle has {there.path} in its place",
            code="module_clash",
            hint="rename one of the two, or set working_dir",
        )
