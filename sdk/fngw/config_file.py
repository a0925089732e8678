"""The user's configuration file: which gateway to use where neither an argument nor the environment says so.

``$XDG_CONFIG_HOME/fngw/config.toml``, by default ``~/.config/fngw/config.toml``::

    url = "https://gateway.example.com"
    token = "…"

Standard library only, Python >= 3.7: this module is copied into replica images, where there is no such file.
"""

from __future__ import annotations

import functools
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from fngw.errors import ValidationError

__all__ = ["ConfigFile", "read_config", "whereabouts"]

KEYS = ("url", "token")


@dataclass(frozen=True)
class ConfigFile:
    """What the file says; None: nothing. ``path`` is for messages."""

    path: str = ""
    url: Optional[str] = None
    token: Optional[str] = None


def whereabouts(environ: Mapping[str, str]) -> Optional[Path]:
    """Return the path of the file, there or not; None for a user without a home."""
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # such are to be ignored, says the XDG specification
        try:
            base = Path.home() / ".config"
        except RuntimeError:
            return None
    return base / "fngw" / "config.toml"


def read_config(environ: Mapping[str, str]) -> ConfigFile:
    """Return what the user's file says; an absent one says nothing.

    Raises:
        ValidationError: (code ``config_invalid``) it cannot be read, is not TOML, or says what nobody asked for.
    """
    path = whereabouts(environ)
    if path is None:
        return ConfigFile()
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile()
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from None
    return _read(path, about.st_mtime_ns, stat.S_IMODE(about.st_mode))


@functools.lru_cache(maxsize=8)  # every call by handle asks
def _read(path: Path, changed: int, mode: int) -> ConfigFile:
    values = _parsed(path)
    for key, value in values.items():
        _check(path, key, value)
    if "token" in values and mode & stat.S_IROTH:
        # Told through warnings, so that a script decides what becomes of it; the command line prints it.
        warnings.warn(f"{path} holds a token, and everybody may read it: chmod 600 {path}", stacklevel=2)
    return ConfigFile(str(path), values.get("url"), values.get("token"))


def _parsed(path: Path) -> Dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python < 3.11: only in replicas
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # its text ends in "(at line 3, column 7)"
        raise _invalid(f"{path} is not TOML: {error}") from None


def _check(path: Path, key: str, value: Any) -> None:
    if key not in KEYS:
        import difflib

        near = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "it may have: " + ", ".join(KEYS)
        raise _invalid(f"{path}: unknown key {key!r}", hint)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{path}: {key} must be a text, not {value!r}", f'{key} = "…"')


def _invalid(message: str, hint: str = "") -> ValidationError:
    return ValidationError(
        message, code="config_invalid", hint=hint or 'for example: url = "http://localhost:8000"'
    )
