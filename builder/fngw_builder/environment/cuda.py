"""Telling packages that are made for a GPU, to warn where there is none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fngw_builder.environment.lock import CondaPackage, LocalWheel, Lock, PipPackage

_BUILD = re.compile(r"(^|[_.])(cuda|gpu|cu\d{2,3})")
_NAME = re.compile(
    r"cuda-(version|runtime|cudart)|cudatoolkit|pytorch-cuda|nvidia-.+-cu\d+|.+-cu\d{2,3}|.+-cuda\d+x?|.+[-_]gpu"
)
_VERSION = re.compile(r"\+cu\d{2,3}")


def packages(lock: Lock) -> list[str]:
    """Return the names of the packages that are of use on a GPU only."""
    wheels: list[PipPackage | LocalWheel] = [*lock.pip, *lock.wheels]
    return [p.name for p in lock.conda if _conda(p)] + [p.name for p in wheels if _pip(p)]


def warnings(lock: Lock) -> Iterator[str]:
    """Yield what to say when a lock for a host without CUDA holds packages for it."""
    names = packages(lock)
    if names and lock.cuda is None:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"{shown}: made for CUDA, which the target does not have; ask for a CPU build, or set FNGW_CUDA"


def without_driver(lock: Lock) -> Iterator[str]:
    """Yield what to say when a lock for CUDA is built where no driver is: asked for, it may run elsewhere."""
    names = packages(lock)
    if names and lock.cuda is not None:
        yield f"{names[0]} is made for CUDA {lock.cuda}, as FNGW_CUDA says, and there is no NVIDIA driver here"


def _conda(package: CondaPackage) -> bool:
    needs = any(dependency.split(" ")[0] == "__cuda" for dependency in package.depends)
    return needs or bool(_BUILD.search(package.build) or _NAME.fullmatch(package.name))


def _pip(package: PipPackage | LocalWheel) -> bool:
    return bool(_VERSION.search(package.version) or _NAME.fullmatch(package.name))
