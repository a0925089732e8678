"""Taking out of an environment what tells where and how it was made, so that the same lock is the same bytes.

Files may be hard links to the caches: they are replaced, never written to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fngw_builder.environment import wheel_files
from fngw_builder.environment.lock import CondaPackage, Lock

#: Of conda's record of a package, what is about the making machine: its cache, its mirror, its clock.
MACHINES_OWN = ("extracted_package_dir", "package_tarball_full_path", "link", "timestamp", "indexed_timestamp")
#: What installers leave at the root of a prefix, or beside it, for themselves.
LEFT_BEHIND = ("CACHEDIR.TAG", ".lock", ".gitignore", "conda-meta/.condarc")


def tidy(stage: Path, lock: Lock) -> None:
    """Normalise what conda's part of an environment says of itself, and drop what installers left.

    Args:
        stage: the environment, with all of its packages.
        lock: what it was made from.
    """
    for name in LEFT_BEHIND:
        (stage / name).unlink(missing_ok=True)
    meta = stage / "conda-meta"
    if not meta.is_dir():
        return
    by_file = {package.fn: package for package in lock.conda}
    for path in meta.glob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        wheel_files.replace(path, _text(conda_record(record, by_file.get(record["fn"]))))
    # conda knows a prefix by this file; what it tells is when somebody did what.
    wheel_files.replace(meta / "history", b"")


def conda_record(record: Mapping[str, Any], package: CondaPackage | None) -> dict[str, Any]:
    """Return conda's record of an installed package with the channel as the lock has it, no address."""
    kept = {key: value for key, value in record.items() if key not in MACHINES_OWN}
    if package is not None:
        kept["channel"] = package.channel
        kept["url"] = f"{package.channel}/{package.subdir}/{package.fn}"
    return kept


def _text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()
