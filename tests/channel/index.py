"""A package index (PEP 503) as plain files: toy wheels and source distributions, and any real wheel beside them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from .wheels import make_wheel, metadata_of, normalised

# A build backend without requirements, so that no test has to fetch one. `compile_extension` is a line of its own.
_BACKEND = '''\
"""A PEP 517 backend that is part of the source distribution."""

import base64
import hashlib
import os
import subprocess
import sysconfig
import zipfile

NAME, VERSION, EXTENSION, ERROR = {name!r}, {version!r}, {extension!r}, {error!r}


def _compiled():
    source = os.path.join(os.getcwd(), EXTENSION + ".c")
    built = EXTENSION + sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_path("include")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-I" + include, source, "-o", built], check=True)
    with open(built, "rb") as file:
        return {{built: file.read()}}


def _files():
    module = "%s/__init__.py" % NAME
    with open(module, "rb") as file:
        return {{module: file.read()}}


def _tag():
    if not EXTENSION:
        return "py3-none-any"
    version = sysconfig.get_config_var("py_version_nodot")
    return "cp%s-cp%s-linux_x86_64" % (version, sysconfig.get_config_var("SOABI").split("-")[1])


def build_wheel(folder, config_settings=None, metadata_directory=None):
    if ERROR:
        raise RuntimeError(ERROR)
    info = "%s-%s.dist-info" % (NAME, VERSION)
    files = dict(_files(), **(_compiled() if EXTENSION else {{}}))
    with open("PKG-INFO", "rb") as file:
        files[info + "/METADATA"] = file.read()
    wheel = "Wheel-Version: 1.0\\nGenerator: toy\\nRoot-Is-Purelib: %s\\nTag: %s\\n" % (not EXTENSION, _tag())
    files[info + "/WHEEL"] = wheel.encode()
    rows = []
    for path, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append("%s,sha256=%s,%d" % (path, digest, len(data)))
    files[info + "/RECORD"] = "\\n".join(rows + [info + "/RECORD,,", ""]).encode()
    name = "%s-%s-%s.whl" % (NAME, VERSION, _tag())
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return name
'''
_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_C_SOURCE = """\
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_pip_compiled", "", -1, methods};
PyMODINIT_FUNC PyInit__pip_compiled(void) { return PyModule_Create(&module); }
"""
_WRONG = {"pip_badhash-1.0.0-py3-none-any.whl"}


def toy_distributions() -> dict[str, bytes]:
    """The toys' files by name: wheels that conflict, need too much or are not what the index says, and sdists."""
    return dict(
        [
            _toy("pip-legacylib", "1.15.0", body="def answer():\n    return 'old'\n"),
            _toy("pip-legacylib", "2.3.0", body="def answer():\n    return 'new'\n"),
            _toy("pip-needs-legacy1", "1.0.0", ["pip-legacylib<2"]),
            _toy("pip-unsatisfiable", "1.0.0", ["pip-legacylib>=9"]),
            # For both worlds: a distribution that wants a package which conda installs under the same name.
            _toy("pip-on-conda", "1.0.0", ["legacylib<2"]),
            _toy("pip-only-new-python", "1.0.0", python=">=4"),
            _toy("pip-badhash", "1.0.0"),
            _greeter(),
            _sdist("pip-sdist-only", "1.0.0"),
            _sdist("pip-compiled", "1.0.0", {"_pip_compiled.c": _C_SOURCE}, extension="_pip_compiled"),
            _sdist("pip-broken-sdist", "1.0.0", error="this source distribution cannot be built"),
        ]
    )


def write_index(root: Path, files: Mapping[str, bytes], wheels: Iterable[Path]) -> None:
    """Write `simple/` and `files/` below `root`: the toys, and the wheels as hard links."""
    folder = root / "files"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for wheel in wheels:
        if not (folder / wheel.name).exists():
            (folder / wheel.name).hardlink_to(wheel)
    projects: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        projects[_project(file.name)].append(file)
    for project, versions in projects.items():
        _write_page(root / "simple" / project, project, [_link(file) for file in versions])
    _write_page(root / "simple", "index", [f'<a href="{project}/">{project}</a>' for project in projects])


def _toy(
    name: str, version: str, requires: Iterable[str] = (), body: str = "", python: str = ">=3.7"
) -> tuple[str, bytes]:
    files = {f"{name.replace('-', '_')}/__init__.py": f"__version__ = {version!r}\n{body}"}
    return make_wheel(name, version, files, requires=list(requires), python=python)


def _greeter() -> tuple[str, bytes]:
    """An entry point, and a script that names the interpreter in its first line."""
    module = {"pip_greeter/__init__.py": "def main():\n    print('hello from pip-greeter')\n"}
    scripts = {"pip-greet-script": "#!python\nimport sys\nprint(sys.executable)\n"}
    entry = ["pip-greet = pip_greeter:main"]
    return make_wheel("pip-greeter", "1.0.0", module, python=">=3.7", console_scripts=entry, scripts=scripts)


def _sdist(
    name: str, version: str, files: Mapping[str, str] | None = None, extension: str = "", error: str = ""
) -> tuple[str, bytes]:
    module = name.replace("-", "_")
    content = {
        "PKG-INFO": metadata_of(name, version, python=">=3.7"),
        "pyproject.toml": _PYPROJECT,
        "backend.py": _BACKEND.format(name=module, version=version, extension=extension, error=error),
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        **(files or {}),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in content.items():
            member = tarfile.TarInfo(f"{module}-{version}/{path}")
            member.size = len(data.encode())
            tar.addfile(member, io.BytesIO(data.encode()))
    return f"{module}-{version}.tar.gz", gzip.compress(buffer.getvalue(), mtime=0)


def _project(file_name: str) -> str:
    stem = file_name.removesuffix(".tar.gz")
    return normalised(stem.split("-")[0])


def _link(file: Path) -> str:
    digest = "0" * 64 if file.name in _WRONG else hashlib.sha256(file.read_bytes()).hexdigest()
    new = ' data-requires-python="&gt;=4"' if file.name.startswith("pip_only_new_python") else ""
    return f'<a href="../../files/{escape(file.name)}#sha256={digest}"{new}>{escape(file.name)}</a>'


def _write_page(folder: Path, title: str, links: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["<!DOCTYPE html>", f"<html><head><title>{title}</title></head><body>", *links, "</body></html>", ""]
    (folder / "index.html").write_text("\n".join(lines))
