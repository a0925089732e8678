"""Builds for local processes: the sources unpacked into a folder, and an interpreter of the wanted version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from fngw.errors import BuildFailed
from fngw_builder import host
from fngw_builder.bundle import Member, locate, members, opened
from fngw_builder.environment.cache import size_of
from fngw_builder.environments import Environments
from fngw_builder.made import Made
from fngw_builder.report import Report
from fngw_builder.settings import BuilderSettings
from fngw_state.layout import Layout
from fngw_state.records import Artifact, BuildRequest, BuiltLayer

#: What the runtime imports; see runtime-image/needs.in, of which the rest is optional.
NEEDS = ("uvicorn", "starlette", "cloudpickle", "redis")
#: A cold import of these from a slow disk takes seconds.
IMPORT_TIMEOUT_S = 60
#: A folder that a killed builder left half unpacked; no unpacking takes this long.
ABANDONED_AFTER_S = 3600


def make(request: BuildRequest, settings: BuilderSettings, report: Report) -> Made:
    """Return what a local process runs from.

    Raises:
        BuildFailed: ``python_missing``, ``bundle_missing``, ``bundle_corrupt`` or ``bad_bundle``; and the codes of
            ``environments``.
    """
    image = "local:" + request.bundle.partition(":")[2][:16]
    if not request.has_environment:
        python = interpreter(request.python)
        code, reused = unpack(settings.layout, request.bundle)
        artifact = Artifact(image=image, python=python, app_dir=str(code))
        return Made(artifact, reused, (_code(request, code, reused),))
    environments = Environments(request, settings, report)
    environment = environments.folder("" if environments.brings_python else bare_interpreter(request.python))
    code, reused = unpack(settings.layout, request.bundle)
    artifact = Artifact(
        image=image,
        lock=environment.lock,
        python=str(environment.path / "bin" / "python"),
        app_dir=str(code),
        environment=str(environment.path),
    )
    below = BuiltLayer("environment", environment.lock, environment.size, environment.reused)
    return Made(artifact, reused and environment.reused, (below, _code(request, code, reused)))


def _code(request: BuildRequest, folder: Path, reused: bool) -> BuiltLayer:
    return BuiltLayer("code", request.bundle, size_of(folder), reused)


def bare_interpreter(version: str) -> str:
    """Return the path of a Python to put an environment on: its own packages do not matter.

    Raises:
        BuildFailed: ``python_missing``.
    """
    if version == own_version():
        return host.interpreter()
    path = shutil.which(f"python{version}")
    if path is None:
        raise _python_missing(version, f"there is no python{version} on the PATH")
    return os.path.realpath(path)


def interpreter(version: str) -> str:
    """Return the path of a Python that can serve a replica: this server's own, or one on the PATH.

    Args:
        version: ``"X.Y"``.

    Raises:
        BuildFailed: ``python_missing``.
    """
    if version == own_version():
        return sys.executable
    path = shutil.which(f"python{version}")
    if path is None:
        raise _python_missing(version, f"there is no python{version} on the PATH")
    problem = _import_problem(path)
    if problem:
        raise _python_missing(version, f"{path} cannot import what a replica needs", problem)
    return path


def own_version() -> str:
    """This interpreter's ``"X.Y"``."""
    return "%d.%d" % sys.version_info[:2]


def _import_problem(path: str) -> str:
    command = [path, "-c", "import " + ", ".join(NEEDS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _python_missing(version: str, why: str, detail: str = "") -> BuildFailed:
    return BuildFailed(
        f"no Python {version} for local processes: {why}",
        code="python_missing",
        hint=f"python{version} -m pip install {' '.join(NEEDS)}, use --engine docker, "
        f'or deploy with python="{own_version()}"',
        detail=detail,
    )


def unpack(layout: Layout, digest: str) -> tuple[Path, bool]:
    """Return the folder with a bundle's content, and whether it was there already.

    It appears under its name only when it is complete. Its files are read-only, as replicas share them; its
    folders are not, so that Python can keep byte-code there.

    Raises:
        BuildFailed: ``bundle_missing``, ``bundle_corrupt`` or ``bad_bundle``.
    """
    name = digest.partition(":")[2]
    folder = layout.code / name
    if folder.is_dir():
        os.utime(folder)  # asked for again: not to be cleared away now
        return folder, True
    bundle = locate(layout, digest)
    layout.code.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(layout.code, time.time())
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=layout.code))
    try:
        _extract(bundle, part)
        part.chmod(0o755)
        return folder, not _publish(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone by its name when it was published


def _publish(part: Path, folder: Path) -> bool:
    """Give a folder its name; False when another builder was faster."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True


def _remove_abandoned(code: Path, now: float) -> None:
    for part in code.glob(".part-*"):
        with suppress(FileNotFoundError):  # another builder has just published it
            if now - part.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(part, ignore_errors=True)


def _extract(bundle: Path, root: Path) -> None:
    with opened(bundle) as tar:
        for member in members(tar):
            _write(member, root / member.path, tar.extractfile(member.info) if member.info.isfile() else None)


def _write(member: Member, path: Path, content: IO[bytes] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.info.issym():
        path.symlink_to(member.info.linkname)
    elif content is None:
        path.mkdir(exist_ok=True)
    else:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(member.mode & ~0o222)
