"""Wheels: fetched with the machine's own pip, made from memory, and turned into conda packages."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .conda import File, Package

_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "linux_x86_64",
)
# Where conda's name is another than PyPI's. On conda-forge, too, Redis' Python client is `redis-py`.
_CONDA_NAMES = {"redis": "redis-py"}


def fetch(requirements: Sequence[str], xy: str, folder: Path) -> list[Path]:
    """Resolve the requirements for Python X.Y on Linux, and download the wheels into `folder`.

    Uses uv and pip as they are configured on this machine.

    Raises:
        subprocess.CalledProcessError: the index is out of reach, or there is no solution; the tool has said so.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch, "lock.txt")
        wanted = "".join(f"{requirement}\n" for requirement in requirements)
        target = ["--python-version", xy, "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:"]
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--generate-hashes", *target]
        subprocess.run(
            [*uv, "--no-emit-index-url", "-o", lock, "-"],
            input=wanted.encode(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        _download(lock, xy, folder)
    return sorted(folder.glob("*.whl"))


def _download(lock: Path, xy: str, folder: Path) -> None:
    compact = xy.replace(".", "")
    tags = ["cp" + compact, "cp" + compact + "m", "abi3", "none"]
    options = [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={xy}",
    ]
    options += [f"--platform={platform}" for platform in _PLATFORMS] + [f"--abi={abi}" for abi in tags]
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, "-d", folder, "-r", lock], check=True)


def conda_from_wheel(wheel: Path, xy: str) -> Package:
    """The wheel as conda-forge would package it for Python X.Y: noarch if it is pure, with its console scripts."""
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    info = next(name.split("/")[0] for name in content if ".dist-info/" in name)
    metadata = HeaderParser().parsestr(content[f"{info}/METADATA"].decode())
    pure = "Root-Is-Purelib: true" in content[f"{info}/WHEEL"].decode()
    content[f"{info}/INSTALLER"] = b"conda\n"
    where = "site-packages" if pure else f"lib/python{xy}/site-packages"
    return Package(
        conda_name(metadata["Name"]),
        metadata["Version"],
        {f"{where}/{name}": File(data) for name, data in content.items() if ".data/" not in name},
        f"py{xy.replace('.', '')}_0",
        noarch="python" if pure else None,
        depends=(f"python {xy}.*", *_depends(metadata, xy)),
        entry_points=_console_scripts(content.get(f"{info}/entry_points.txt", b"").decode()),
    )


def conda_name(distribution: str) -> str:
    """What a distribution is called on conda channels."""
    name = normalised(distribution)
    return _CONDA_NAMES.get(name, name)


def normalised(distribution: str) -> str:
    """PEP 503's form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _depends(metadata: Message, xy: str) -> list[str]:
    environment = {"python_version": xy, "python_full_version": f"{xy}.0", "extra": "", "sys_platform": "linux"}
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate(environment)]
    return [f"{conda_name(one.name)} {_conda_version(one.specifier)}".strip() for one in wanted]


def _conda_version(specifier: SpecifierSet) -> str:
    return ",".join(sorted(str(one) for one in specifier))


def _console_scripts(entry_points: str) -> tuple[str, ...]:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.read_string(entry_points)
    return tuple(f"{k} = {v}" for k, v in parser.items("console_scripts")) if "console_scripts" in parser else ()


def make_wheel(
    name: str,
    version: str,
    files: Mapping[str, str],
    *,
    requires: Sequence[str] = (),
    python: str = "",
    console_scripts: Sequence[str] = (),
    scripts: Mapping[str, str] | None = None,
) -> tuple[str, bytes]:
    """A pure wheel: its file name and its bytes, the same every time.

    Args:
        files: modules and data by path, in site-packages.
        requires: its `Requires-Dist`.
        python: its `Requires-Python`, such as `>=3.8`.
        console_scripts: such as `greet = greeter:main`.
        scripts: files for `bin/`; a first line `#!python` becomes the interpreter's path when it is installed.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {path: data.encode() for path, data in files.items()}
    content |= {f"{stem}.data/scripts/{path}": data.encode() for path, data in (scripts or {}).items()}
    content[f"{info}/METADATA"] = metadata_of(name, version, requires, python).encode()
    content[f"{info}/WHEEL"] = wheel_file("py3-none-any").encode()
    if console_scripts:
        content[f"{info}/entry_points.txt"] = "\n".join(["[console_scripts]", *console_scripts, ""]).encode()
    content[f"{info}/RECORD"] = _record(content, f"{info}/RECORD")
    return f"{stem}-py3-none-any.whl", zip_bytes(content)


def metadata_of(name: str, version: str, requires: Sequence[str] = (), python: str = "") -> str:
    """A distribution's METADATA, or PKG-INFO."""
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    return "\n".join([*lines, *([f"Requires-Python: {python}"] if python else []), ""])


def wheel_file(tag: str) -> str:
    """A pure wheel's WHEEL."""
    return f"Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: {tag}\n"


def zip_bytes(content: Mapping[str, bytes]) -> bytes:
    """A zip of these files, with no trace of when it was made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            entry = zipfile.ZipInfo(path)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def _record(content: Mapping[str, bytes], own: str) -> bytes:
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in content.items()]
    return "\n".join([*rows, f"{own},,", ""]).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
