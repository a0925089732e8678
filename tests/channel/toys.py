"""Toy packages of the conda channel: versions that conflict, and one for each thing that can be odd or wrong."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from .conda import PLACEHOLDER, Archive, File, Package, conda_archive, tar_archive, text
from .wheels import metadata_of, wheel_file

_BULK = 2_000_000  # bytes that do not compress: a download long enough to be watched, cut or cancelled


def toy_archives() -> list[Archive]:
    """All toys, as files of a channel."""
    both_formats = _library("depcore", "1.4.0")
    return [
        *map(conda_archive, (*_conflicts(), *_platform_dependent(), both_formats, _greeter(), _bulky())),
        *map(conda_archive, (_prefixed(), _post_link())),
        tar_archive(both_formats),
        tar_archive(_library("oldformat", "1.0.0")),
        _with_wrong_hash(conda_archive(_library("badhash", "1.0.0"))),
    ]


def _library(name: str, version: str, depends: Iterable[str] = (), body: str = "") -> Package:
    """A noarch Python package of one module, with the metadata by which pip and uv know what is installed."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n{body}",
        f"{info}/METADATA": metadata_of(name, version),
        f"{info}/WHEEL": wheel_file("py3-none-any"),
        f"{info}/INSTALLER": "conda\n",
        f"{info}/RECORD": "",
    }
    in_prefix = {f"site-packages/{path}": text(content) for path, content in files.items()}
    return Package(name, version, in_prefix, "pyh_0", depends=("python >=3.7", *depends))


def _conflicts() -> list[Package]:
    return [
        _library("legacylib", "1.15.0", ["depcore >=1,<2"], "def answer():\n    return 'old'\n"),
        _library(
            "legacylib",
            "2.3.0",
            ["depcore >=2"],
            "def answer():\n    return 'new'\n",
        ),
        _library("depcore", "2.0.0"),
        _library("needs-legacy1", "1.0.0", ["legacylib <2"]),
        _library("needs-legacy2", "1.0.0", ["legacylib >=2"]),
        _library("only-old-python", "1.0.0", ["python <3.7"]),
    ]


def _platform_dependent() -> list[Package]:
    """What solves on some hosts only: by `__cuda`, by `__glibc`, and one with a build for either kind of host."""
    tensor = _library("tensorlib", "1.0.0", body="device = 'cpu'\n")
    cuda = _library("tensorlib", "1.0.0", ["__cuda >=12"], body="device = 'cuda'\n")
    return [
        _library("cudalib", "1.0.0", ["__cuda >=11"]),
        _library("newglibc", "1.0.0", ["__glibc >=2.99"]),
        replace(tensor, build="cpu_0"),
        replace(cuda, build="cuda_1", number=1),
    ]


def _greeter() -> Package:
    package = _library("greeter", "1.0.0", body="def main():\n    print('hello from greeter')\n")
    return replace(package, entry_points=("greet = greeter:main",))


def _bulky() -> Package:
    package = _library("bulky", "1.0.0")
    noise = random.Random(1).randbytes(_BULK)
    return replace(package, files={**package.files, "site-packages/bulky/noise.bin": File(noise)})


def _prefixed() -> Package:
    """The prefix in a text, in a binary (where its length must not change) and in a script's first line."""
    files = {
        "share/prefixed/where.txt": text(f"prefix={PLACEHOLDER}\n"),
        "share/prefixed/where.bin": File(b"\0prefix=" + PLACEHOLDER.encode() + b"/share\0end\0"),
        "bin/where-am-i": text(f"#!{PLACEHOLDER}/bin/python\nprint({PLACEHOLDER!r})\n", 0o755),
        "bin/where": File(target="where-am-i"),
    }
    return Package("prefixed", "1.0.0", files, noarch=None, depends=("python",))


def _post_link() -> Package:
    """A package whose script would write into the prefix when it is linked, were scripts run."""
    script = text('#!/bin/sh\necho ran > "$PREFIX/post-link-ran"\n', 0o755)
    return Package("post-link", "1.0.0", {"bin/.post-link-post-link.sh": script}, noarch=None)


def _with_wrong_hash(archive: Archive) -> Archive:
    return replace(archive, record={**archive.record, "sha256": "0" * 64, "md5": "0" * 32})
