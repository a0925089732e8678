"""Linking a lock's conda packages into a folder, Python among them: downloads, checks, and what can go wrong.

Neighbours: `link_worker` is the process that does it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

from fngw.errors import BuildFailed
from fngw_builder.environment import cache, child, disk, link_worker
from fngw_builder.environment.link_worker import Job, Progress
from fngw_builder.environment.lock import CondaPackage, Lock
from fngw_builder.environment.sources import Sources, redact
from fngw_builder.environment.target import Target
from fngw_builder.report import Report

#: Of what the worker says beside its progress, the last lines are kept: its error, or how it crashed.
SAID_LINES = 50
#: How py-rattler begins what it says of one package.
FAILED_PACKAGE = re.compile(r"failed to (?:fetch|link|extract|unpack) (\S+?\.(?:conda|tar\.bz2))")
#: In its causes.
WRONG_HASH = ("invalid checksum", "hash mismatch", "checksum mismatch")
#: In those of a package that its channel has no more.
GONE = ("(404 ", "(410 ", "os error 2)")


def link(lock: Lock, target: Target, stage: Path, sources: Sources, report: Report) -> None:
    """Link the conda packages of a lock into ``stage``, for the prefix of ``target``.

    Args:
        stage: an empty folder on the same disk as the cache, so that files can be shared with it: nothing that
            exists in it afterwards may be written to, only replaced.
        report: gets the progress of the steps ``download``, in bytes, and ``link``, in packages.

    Raises:
        BuildFailed: ``hash_mismatch``, ``channel_unreachable``, ``package_gone``, ``link_failed`` or ``disk_full``.
    """
    sources.packages.mkdir(parents=True, exist_ok=True)
    _note_use(lock, sources)
    said: deque[str] = deque(maxlen=SAID_LINES)
    with _worker(sources) as worker:
        _start(worker, job(lock, target, stage, sources))
        for line in child.lines(worker.stdout):
            if line.startswith("{"):
                _relay(Progress(**json.loads(line)), report)
            else:
                said.append(line)
    if worker.returncode:
        raise _failure("\n".join(said) or f"py-rattler ended with the status {worker.returncode}", lock, sources)
    _note_use(lock, sources)


def job(lock: Lock, target: Target, stage: Path, sources: Sources) -> Job:
    """Return what the worker is to do. It holds credentials."""
    return Job(
        records=[_record(package, sources) for package in lock.conda],
        platform=target.subdir,
        stage=str(stage),
        prefix=target.prefix,
        cache=str(sources.packages),
        retries=sources.retries,
    )


def _record(package: CondaPackage, sources: Sources) -> dict[str, Any]:
    channel = sources.channel(package.channel).url
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(package).items()}
    return {**fields, "channel": f"{channel}/", "url": f"{channel}/{package.subdir}/{package.fn}"}


def _note_use(lock: Lock, sources: Sources) -> None:
    """Of the packages that are in the cache: before, so that they stay, and after, when all are."""
    stems = tuple(package.fn.removesuffix(".conda").removesuffix(".tar.bz2") for package in lock.conda)
    cache.use(sources.cache, [path for path in sources.packages.iterdir() if path.name.startswith(stems)])


def _worker(sources: Sources) -> AbstractContextManager[Popen[str]]:
    environment = {key: value for key, value in sources.environ.items() if not key.startswith("FNGW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", link_worker.__name__]
    return child.running(command, environment=environment, cwd=Path("/"), stdin=PIPE, stderr=STDOUT)


def _start(worker: Popen[str], what: Job) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(asdict(what)) + "\n")
    worker.stdin.flush()  # and left open: the worker ends when it is closed


def _relay(now: Progress, report: Report) -> None:
    """Packages are linked while others are downloaded."""
    if now.download:
        report.progress("download", now.downloaded, now.download, "bytes")
    if now.linked or now.downloaded == now.download:
        report.progress("link", now.linked, now.packages, "packages")


def _failure(text: str, lock: Lock, sources: Sources) -> BuildFailed:
    secrets = sources.secrets(package.channel for package in lock.conda)
    detail, package = redact(text, secrets), _package(text, lock)
    if disk.is_full(text):
        return disk.full(detail, sources.cache)
    if package is None:
        return _link_failed("the conda packages could not be linked", detail)
    what, channel = package.fn, redact(package.channel, secrets)
    if any(sign in text.lower() for sign in WRONG_HASH):
        return BuildFailed(
            f"{what} from the channel {channel} is not what the lock says: its hash differs",
            code="hash_mismatch",
            hint="deploy again; if it stays so, the channel changed or is damaged: deploy with --upgrade",
            detail=detail,
        )
    if any(sign in text for sign in GONE) and "failed to link" not in text:
        return BuildFailed(
            f"the channel {channel} no longer has {what}",
            code="package_gone",
            hint="deploy with --upgrade, which solves the requirements anew",
            detail=detail,
        )
    if "failed to fetch" not in text:
        return _link_failed(f"{what} could not be linked", detail)
    return BuildFailed(
        f"{what} could not be downloaded from the channel {channel}",
        code="channel_unreachable",
        hint=f"it was tried {sources.retries + 1} times; check the network, then deploy again",
        detail=detail,
    )


def _package(text: str, lock: Lock) -> CondaPackage | None:
    found = FAILED_PACKAGE.search(text)
    name = Path(found.group(1)).name if found else ""
    return next((package for package in lock.conda if package.fn == name), None)


def _link_failed(message: str, detail: str) -> BuildFailed:
    hint = "deploy again; if it fails again, empty the caches with `fngw prune`"
    return BuildFailed(message, code="link_failed", hint=hint, detail=detail)
