"""Makes the data and run directories fit for use, and keeps the secrets of this installation.

Nothing is ever removed here: what does not fit is named, with what to do about it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fngw.errors import FngwError
from fngw_state.layout import Layout

#: Grows when what lies in a data directory changes so that older or newer fngw cannot read it.
LAYOUT_VERSION = 1
_LAYOUT_FILE = "layout.json"
_SECRETS_FILE = "secrets.json"


def prepare(layout: Layout) -> None:
    """Make the directories, and see that they are ours and of this layout.

    Raises:
        FngwError: ``data_dir_unusable``, ``disk_full``, ``data_dir_version`` or ``run_dir_not_ours``.
    """
    with explained(layout.data):
        layout.create()
        layout.redis.mkdir(mode=0o700, exist_ok=True)
        _check_owner(layout.run)
        _check_layout(layout.data)


@contextmanager
def explained(data: Path) -> Iterator[None]:
    """Turn what the operating system says of the data directory into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise explain(error, data) from error


def explain(error: OSError, data: Path) -> FngwError:
    """Return an OSError that came up while using the data directory as one of ours."""
    where = error.filename or data
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FngwError(
            f"no space is left for the data directory {data} (writing {where})",
            code="disk_full",
            hint="free some space on that disk, or give another --data-dir; nothing was removed",
        )
    return FngwError(
        f"cannot use the data directory {data}: {where}: {error.strerror}",
        code="data_dir_unusable",
        hint="make it writable for this user, or give another with --data-dir (or FNGW_DATA_DIR)",
    )


def _check_owner(run: Path) -> None:
    """Refuse a run directory of somebody else's: in /tmp anybody could have made it before us."""
    for directory in (run.parent, run):
        if directory.name.startswith("fngw") or directory == run:
            owner = directory.stat().st_uid
            if owner != os.getuid():
                raise FngwError(
                    f"the run directory {directory} belongs to another user (uid {owner})",
                    code="run_dir_not_ours",
                    hint="set FNGW_RUN_DIR to a short path of your own",
                )


def _check_layout(data: Path) -> None:
    path = data / _LAYOUT_FILE
    if not path.exists():
        write_private(path, json.dumps({"layout": LAYOUT_VERSION}) + "\n")
        return
    found = _read_json(path).get("layout")
    if found != LAYOUT_VERSION:
        raise FngwError(
            f"the data directory {data} has layout {found!r}; this fngw reads layout {LAYOUT_VERSION}",
            code="data_dir_version",
            hint=f"run the fngw that wrote it, give another --data-dir, or move it away: mv {data} {data}.old",
        )


def redis_password(data: Path) -> str:
    """Return the embedded Redis' password, made at the first call. Only this user can read its file."""
    path = data / _SECRETS_FILE
    with explained(data):
        known = _read_json(path) if path.exists() else {}
        if not known.get("redis_password"):
            known["redis_password"] = secrets.token_urlsafe(32)
            write_private(path, json.dumps(known) + "\n")
        path.chmod(0o600)
        return str(known["redis_password"])


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can ever open, whole or not at all."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    part.rename(path)


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    except ValueError:
        pass  # said below, as for any other content
    raise FngwError(
        f"{path} cannot be read: it is not a JSON object",
        code="data_dir_unusable",
        hint=f"put it back from a backup, or move it away to have it made anew: mv {path} {path}.bad",
    )
