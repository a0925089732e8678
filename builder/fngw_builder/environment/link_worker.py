"""A process that downloads conda packages and links them into a folder, with py-rattler.

    python -m fngw_builder.environment.link_worker < job

A process of its own, as py-rattler goes on in the background when it is cancelled: to stop, this one is killed. The
first line of its input is the job, and it ends when its input does: its parent is gone then. Its output is JSON
lines of `Progress`, as often as something changed; all else that it prints is why it failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rattler

#: Between two looks for progress.
EVERY_S = 0.1
#: A server that sends nothing for so long, and a disk that links nothing, will not do so later.
STALLED_AFTER_S = 90.0


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Args:
        records: the packages, as keyword arguments of py-rattler's records; with ``url``, ``fn`` and ``channel``.
        platform: conda's name of the platform.
        stage: the folder to link into, empty.
        prefix: the absolute path that the packages are told they lie in.
        cache: the folder that keeps unpacked packages.
        retries: how often a download is tried again.
    """

    records: list[dict[str, Any]]
    platform: str
    stage: str
    prefix: str
    cache: str
    retries: int


@dataclass(frozen=True)
class Progress:
    """How far it is: bytes of the packages that were not in the cache, and packages linked of all."""

    downloaded: int
    download: int
    linked: int
    packages: int


class Reporter:
    """Takes py-rattler's callbacks, which come from its threads, and adds them up.

    Args:
        sizes: bytes of each package that has to be downloaded, by name.
        packages: how many are to be linked.
    """

    def __init__(self, sizes: dict[str, int], packages: int) -> None:
        self._download = sum(sizes.values())
        self._packages = packages
        self._downloaded: dict[int, int] = {}
        self._linked = 0
        self.last_sign = time.monotonic()

    def now(self) -> Progress:
        done = min(sum(self._downloaded.copy().values()), self._download)
        return Progress(done, self._download, self._linked, self._packages)

    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        return operation

    def on_download_start(self, cache_entry: int) -> int:
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        self._downloaded[download_idx] = progress
        self.last_sign = time.monotonic()

    def on_link_start(self, operation: int, package_name: str) -> int:
        self.last_sign = time.monotonic()
        return operation

    def on_link_complete(self, index: int) -> None:
        self._linked += 1
        self.last_sign = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Accept the callbacks that tell nothing of interest."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: 0


def main() -> int:
    """Do the job on the standard input, and return the exit status."""
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    try:
        asyncio.run(_link(job))
    except Exception as error:  # py-rattler's errors have no other base; all are told to the parent
        print(error, flush=True)
        return 1
    return 0


async def _link(job: Job) -> None:
    from rattler import Client, PackageCache, Subdir, install
    from rattler.package_cache import ValidationMode

    # With the origin: two channels may have the same package by another content.
    cache = PackageCache.new_layered([Path(job.cache)], cache_origin=True, validation_mode=ValidationMode.full())
    records = [_record(data) for data in job.records]
    index = await cache.index()
    missing = {r.name.normalized: r.size or 0 for r in records if not index.contains_record(r)}
    reporter = Reporter(missing, len(records))
    telling = asyncio.create_task(_tell_regularly(reporter))
    await install(
        records,
        target_prefix=job.stage,
        package_cache=cache,
        platform=Subdir(job.platform),
        execute_link_scripts=False,
        show_progress=False,
        client=Client.default_client(max_retries=job.retries, user_agent="fngw"),
        reporter=reporter,
        alternative_target_prefix=job.prefix,
    )
    telling.cancel()
    _tell(reporter.now())


def _record(data: dict[str, Any]) -> rattler.RepoDataRecord:
    from rattler import BuildString, NoArchType, PackageRecord, RepoDataRecord

    fields = dict(data)
    url, fn, channel = fields.pop("url"), fields.pop("fn"), fields.pop("channel")
    fields["build"] = BuildString(fields["build"])
    fields["noarch"] = NoArchType(fields["noarch"]) if fields["noarch"] else None
    for key in ("sha256", "md5"):
        fields[key] = bytes.fromhex(fields[key]) if fields[key] else None
    return RepoDataRecord(PackageRecord(**fields), fn, url, channel)


async def _tell_regularly(reporter: Reporter) -> None:
    told = None
    while True:
        now = reporter.now()
        if now != told:
            _tell(now)
        elif time.monotonic() - reporter.last_sign > STALLED_AFTER_S:
            print(f"nothing came for {STALLED_AFTER_S:.0f} seconds: operation timed out", flush=True)
            os._exit(1)  # py-rattler's threads would wait on
        told = now
        await asyncio.sleep(EVERY_S)


def _tell(now: Progress) -> None:
    print(json.dumps(asdict(now)), flush=True)


def _end_with_the_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    # At once: py-rattler's threads may abort an interpreter that takes itself apart.
    os._exit(main())
