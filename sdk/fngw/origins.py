"""Where an object's code is on this machine, and under which name a replica could import it.

A module is *local* when it is neither of the standard library, nor installed, nor fngw's own: local code has to
travel. Its *import root* is the folder that has to be on ``sys.path`` for its name to be found.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Tuple

__all__ = ["ModuleFile", "local_module", "module_file", "resolves_to"]

_OWN = ("fngw", "fngw_runtime")  # present in every replica
_INSTALLED_NAMES = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class ModuleFile:
    """A local module's file.

    Args:
        name: the name by which it can be imported, ``__main__`` included; None when no root makes it so (a file
            loaded under a name of its own).
        path: of the file, absolute, as the interpreter found it.
        root: the import root; the file's folder where there is no name.
    """

    name: Optional[str]
    path: Path
    root: Path

    @property
    def top(self) -> str:
        """The path below the root that has to travel: the top package's folder, or the one file."""
        return self.path.relative_to(self.root).parts[0]


def module_file(module: Optional[ModuleType]) -> Optional[ModuleFile]:
    """Return where ``module`` is, or None when it is not local (or has no file: a REPL, a built-in)."""
    file = getattr(module, "__file__", None)
    if module is None or not file or not Path(file).is_file():
        return None
    path = Path(file).absolute()
    if module.__name__.split(".")[0] in (*_OWN, *sys.builtin_module_names) or _is_installed(path):
        return None
    spec = getattr(module, "__spec__", None)
    name = spec.name if module.__name__ == "__main__" and spec else module.__name__
    root = _root(path, name)
    return ModuleFile(None, path, path.parent) if root is None else ModuleFile(name, path, root)


def local_module(name: str) -> Optional[ModuleFile]:
    """Return where the module ``name`` is, loaded or not, or None when it is not local."""
    if name in sys.modules:
        return module_file(sys.modules[name])
    try:
        spec = importlib.util.find_spec(name.split(".")[0])  # of a top-level name: loads nothing
    except ValueError:
        return None
    if spec is None or not spec.origin:
        return None
    unloaded = ModuleType(spec.name)
    unloaded.__file__, unloaded.__spec__ = spec.origin, spec
    return module_file(unloaded)


def resolves_to(module: Optional[ModuleType], qualname: str, wanted: Any) -> bool:
    """Tell whether ``qualname`` in ``module`` is ``wanted``, or a deployment of it."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is wanted:
        return True
    from fngw.deployments import Deployment

    return isinstance(found, Deployment) and found.func_or_class is wanted


def _root(path: Path, name: str) -> Optional[Path]:
    """Return the folder from which ``name`` leads to ``path``."""
    parts = tuple(name.split("."))
    places = [path.with_name(path.name.split(".")[0]).parts]  # also of "fast.cpython-311-x86_64-linux-gnu.so"
    if places[0][-1] == "__init__":
        places.append(places[0][:-1])
    for place in places:
        if place[-len(parts) :] == parts:
            return Path(*place[: -len(parts)])
    return None


def _is_installed(path: Path) -> bool:
    if _INSTALLED_NAMES.intersection(path.parts):
        return True
    return any(folder in path.parents for folder in _library_folders())


def _library_folders() -> Tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(n)).absolute() for n in names})
