"""From a lock to a folder that Python runs from, the same bytes wherever it is made.

The order matters: pip's part replaces conda's, and byte-code is made of what is there at the end (``bytecode``).
"""

from __future__ import annotations

from pathlib import Path

from fngw_builder.environment import bytecode, disk, normalise, skeleton
from fngw_builder.environment.install import install
from fngw_builder.environment.link import link
from fngw_builder.environment.lock import Lock
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target
from fngw_builder.report import Report


def materialise(
    lock: Lock,
    target: Target,
    stage: Path,
    sources: Sources,
    report: Report,
    wheels_dir: Path | None = None,
) -> None:
    """Make the environment of a lock in ``stage``, to be compiled and moved to ``target.prefix``.

    Its files may be hard links to the caches: nobody may write to them, only replace them.

    Args:
        lock: the environment.
        target: what the lock was solved for.
        stage: an empty folder of this build's own, on the disk of the caches; best from `Cache.stage`.
        sources: serving the requirements that the lock is of.
        report: gets the progress of the steps ``download``, ``link`` and ``install``.
        wheels_dir: the folder of the bundle's wheels, if the lock has any.

    Raises:
        BuildFailed: see `link` and `install`; ``disk_full``.
    """
    with disk.watched(stage):
        if lock.conda:
            link(lock, target, stage, sources, report)
        else:
            skeleton.write(stage, lock.python, target.interpreter)
        install(lock, target, stage, sources, report, wheels_dir)
        normalise.tidy(stage, lock)
        bytecode.strip(stage)
