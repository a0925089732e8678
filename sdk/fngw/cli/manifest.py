"""Reads ``fngw.toml``: the deployments that there shall be, checked as far as this machine can."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tomllib

from fngw.cli.load import load
from fngw.cli.report import usage_error
from fngw.deploying import constructor_arguments
from fngw.deployments import Deployment
from fngw.errors import ValidationError
from fngw.options import OPTION_NAMES

__all__ = ["Entry", "read_manifest"]

_TABLE = "deployments"
_RENAMED = {
    "init_args": "args",
    "init_kwargs": "kwargs",
}  # how options are called in the file; the name is the table's
#: What a deployment's table may have.
KEYS = ("target", *(_RENAMED.get(name, name) for name in OPTION_NAMES if name != "name"))
#: Options that are paths when they are text; relative ones count from the file.
PATHS = ("working_dir", "conda", "pip")
#: Here False is a value. Elsewhere it means None, which TOML cannot say.
ANY_VALUE = ("user_config", "args", "kwargs", "env")
EXAMPLE = """for example:
    [deployments.Greeter]
    target = "app.py:Greeter"
    version = "1\""""


@dataclass(frozen=True)
class Entry:
    """One deployment of the file. ``args`` and ``kwargs`` are its constructor's."""

    deployment: Deployment
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        return self.deployment.name


def read_manifest(path: Path) -> list[Entry]:
    """Return the deployments of a file, in its order.

    Raises:
        FngwError: ``usage``: the file, or an entry, makes no sense; or what importing a target raises (``load``).
    """
    tables = _tables(path)
    modules: dict[Path, ModuleType] = {}
    entries = [_entry(path, name, table, modules) for name, table in tables.items()]
    _refuse_shared_routes(path, entries)
    return entries


def _tables(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise usage_error(f"{path}: {(error.strerror or str(error)).lower()}", "say which file: -f FILE") from None
    except ValueError as error:  # its text ends in "(at line 3, column 7)"
        raise usage_error(f"{path} is not TOML: {error}", EXAMPLE) from None
    _refuse_unknown(str(path), values, (_TABLE,))
    tables = values.get(_TABLE, {})
    if not isinstance(tables, dict):
        raise usage_error(f"{path}: {_TABLE} must be tables, each with the name of a deployment", EXAMPLE)
    return tables


def _refuse_unknown(where: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(_RENAMED.get(key, key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise usage_error(f"{where}: unknown key {key!r}", hint)


# -- one entry --------------------------------------------------------------------------------------------


def _entry(path: Path, name: str, table: Any, modules: dict[Path, ModuleType]) -> Entry:
    where = f"{path}: {_TABLE}.{name}"
    if not isinstance(table, dict):
        raise usage_error(f"{where} must be a table", EXAMPLE)
    _refuse_unknown(where, table, KEYS)
    target = table.get("target")
    if not isinstance(target, str):
        raise usage_error(f"{where}: target is missing, or no text", 'target = "app.py:Greeter"')
    deployment = _only(where, load([_beside(path, target)], modules))
    try:
        deployment = deployment.options(name=name, **_options(path, table))
        args, kwargs = constructor_arguments(deployment)
    except ValidationError as error:
        raise usage_error(f"{where}: {error.message}", error.hint) from None
    except TypeError as error:
        raise usage_error(f"{where}: {error}", "its constructor takes what args and kwargs say") from None
    return Entry(deployment, args, kwargs)


def _beside(path: Path, text: str) -> str:
    return str(path.absolute().parent / Path(text).expanduser())


def _only(where: str, found: list[Deployment]) -> Deployment:
    if len(found) == 1:
        return found[0]
    names = ", ".join(d.name for d in found)
    raise usage_error(f"{where}: its file has {len(found)} deployments: {names}", "name one: FILE:ATTR")


def _options(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    originals = {ours: option for option, ours in _RENAMED.items()}
    return {originals.get(k, k): _value(path, k, v) for k, v in table.items() if k != "target"}


def _value(path: Path, key: str, value: Any) -> Any:
    if value is False and key not in ANY_VALUE:
        return None
    return _beside(path, value) if key in PATHS and isinstance(value, str) else value


def _refuse_shared_routes(path: Path, entries: Iterable[Entry]) -> None:
    held: dict[str, str] = {}
    for entry in entries:
        route = entry.deployment.route_prefix
        if route is not None and held.setdefault(route, entry.name) != entry.name:
            raise usage_error(
                f"{path}: {held[route]} and {entry.name} have the same route_prefix, {route!r}",
                "give one another; route_prefix = false keeps it off HTTP",
            )
