"""Projects on disk, packed by a process of their own, and loaded by another as a replica would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Appended to a script: packs its ``target``, with its ``args`` and ``options``, into the folder ``$OUT``.
PACK = """
import dataclasses, json, os, pathlib, sys
from fngw.pack import pack
from fngw.options import Options
given = globals()
d = given["target"]
d = getattr(d, "func_or_class", d)
options = Options(name="x", **given.get("options", {}))
packed = pack(d, options, given.get("args", ()), given.get("kwargs", {}), limit=2**28)
out = pathlib.Path(os.environ["OUT"])
out.mkdir(exist_ok=True)
(out / "bundle.tar").write_bytes(packed.bundle.file.read())
packed.bundle.file.close()
if packed.init:
    (out / "init.pkl").write_bytes(packed.init.file.read())
print(json.dumps(dataclasses.asdict(packed.code)))
"""

# What a replica does to find the target; then runs the code given to it.
LOAD = """
import importlib, json, pickle, sys
code, run = json.loads(sys.argv[1]), sys.argv[2]
sys.path.insert(0, ".")
if code["pickle"]:
    target = pickle.load(open(code["pickle"], "rb"))
else:
    module, _, name = code["target"].partition(":")
    target = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
target = getattr(target, "func_or_class", target)
try:
    args, kwargs = pickle.load(open("../init.pkl", "rb"))
except FileNotFoundError:
    args, kwargs = (), {}
print(eval(run))
"""


@dataclass(frozen=True)
class PackedProject:
    code: dict[str, Any]
    out: Path

    @property
    def names(self) -> list[str]:
        with tarfile.open(self.out / "bundle.tar") as tar:
            return tar.getnames()

    def load(self, run: str) -> str:
        """Return what a fresh process prints of ``run``, which may use ``target``, ``args`` and ``kwargs``."""
        folder = self.out / "app"
        folder.mkdir()
        with tarfile.open(self.out / "bundle.tar") as tar:
            tar.extractall(folder, filter="data")
        return run_python(["-c", LOAD, json.dumps(self.code), run], folder)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def run_python(args: list[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., PackedProject]:
    """Run ``code`` (with ``-c``, or appended to a copy of the file ``script``) and pack its ``target``."""

    def run(code: str, cwd: Path, script: str = "", **env: str) -> PackedProject:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        text = textwrap.dedent(code) + PACK
        if script:
            (cwd / script).write_text(text)
        printed = run_python([script] if script else ["-c", text], cwd, OUT=str(out), **env)
        return PackedProject(json.loads(printed.splitlines()[-1]), out)

    return run
