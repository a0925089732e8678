"""What the replica tells people: lines on stderr, and tracebacks that begin in the user's own code."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Optional

from fngw.errors import FngwError

__all__ = ["describe", "report", "say", "user_traceback"]

#: Frames of these are how the call got to the user: the runtime itself, the standard library, frozen importlib.
_RUNTIME = str(Path(__file__).parent) + os.sep
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_PACKAGES = ("site-packages" + os.sep, "dist-packages" + os.sep)


def say(text: str) -> None:
    """Write one line to stderr, which is the replica's log. Not by ``logging``: that is the user's to configure."""
    print("fngw: " + text, file=sys.stderr, flush=True)


def report(what: str, error: BaseException) -> None:
    """Log ``error`` with its traceback under a line that says ``what`` failed."""
    say(what + "\n" + user_traceback(error).rstrip())


def describe(error: BaseException) -> str:
    """Return ``"<Type>: <message>"`` in one line of prose, whatever the exception's ``__str__`` does."""
    try:
        message = error.message if isinstance(error, FngwError) else str(error)
    except Exception:  # a user's __str__ that fails must not hide which exception it was
        message = "<its message could not be read>"
    return type(error).__name__ + (": " + message if message else "")


def user_traceback(error: BaseException) -> str:
    """Return the traceback as text, cut at the first frame of the user's code."""
    start = _first_user_frame(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, start))


def _first_user_frame(frame: Optional[TracebackType]) -> Optional[TracebackType]:
    while frame is not None and _is_ours(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return frame


def _is_ours(filename: str) -> bool:
    if filename.startswith(("<frozen ", _RUNTIME)):
        return True
    return filename.startswith(_STDLIB) and not any(part in filename for part in _PACKAGES)
