"""What can be typed after ``fngw``, as data: read from the catalog and from the commands' own signatures."""

from __future__ import annotations

import enum
import importlib
import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from fngw.cli.catalog import COMMANDS, Command

__all__ = ["Option", "Shape", "Value", "shapes"]


class Value(enum.StrEnum):
    """What stands in the place of an argument, or of an option's value."""

    NAMES = enum.auto()  # of deployments
    PYTHON = enum.auto()  # a Python file
    FILE = enum.auto()
    FOLDER = enum.auto()
    WORDS = enum.auto()  # one of a few
    TEXT = enum.auto()  # whatever


@dataclass(frozen=True)
class Option:
    """An option: what it is called, and what comes after it (None: nothing). ``words`` are those of WORDS;
    ``many``: it may be given more than once."""

    flags: tuple[str, ...]
    help: str
    value: Value | None = None
    words: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True)
class Shape:
    """A command. ``first`` is its first argument, or None; ``many``: any number of them. ``words``: as above."""

    name: str
    summary: str
    options: tuple[Option, ...]
    first: Value | None
    many: bool = False
    words: tuple[str, ...] = ()


def shapes() -> list[Shape]:
    """Return all commands, and ``help``."""
    commands = tuple(command.name for command in COMMANDS)
    return [*map(_shape, COMMANDS), Shape("help", "show a command's help", (), Value.WORDS, words=commands)]


def _shape(command: Command) -> Shape:
    function = getattr(importlib.import_module(f"fngw.cli.{command.module}"), command.function)
    parameters = list(_parameters(function))
    options = [_option(kind, info) for kind, info in parameters if isinstance(info, OptionInfo) and not info.hidden]
    options.append(Option(("-h", "--help"), "what it does, with examples"))
    arguments = [(kind, info) for kind, info in parameters if isinstance(info, ArgumentInfo)]
    if not arguments:
        return Shape(command.name, command.summary, tuple(options), None)
    kind, info = arguments[0]
    many = get_origin(kind) is list
    return Shape(command.name, command.summary, tuple(options), _value(kind, info), many, _words(kind))


def _parameters(function: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the type of each parameter, without its None, and what typer knows of it."""
    hints = get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        kind, info = get_args(hints[name])[:2]
        rest = [k for k in get_args(kind) if k is not type(None)] if isinstance(kind, types.UnionType) else [kind]
        yield rest[0], info


def _option(kind: Any, info: OptionInfo) -> Option:
    # Within Annotated, typer keeps the first name of an option as its default.
    names = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
    value = None if kind is bool else _value(kind, info)
    many = get_origin(kind) is list
    return Option(tuple(sorted(names, key=len)), str(info.help or ""), value, _words(kind), many)


def _value(kind: Any, info: ArgumentInfo | OptionInfo) -> Value:
    metavar = str(info.metavar or "")
    if _words(kind):
        return Value.WORDS
    if kind is Path:
        return Value.FOLDER if metavar == "D" else Value.FILE
    if metavar.startswith("FILE[:ATTR]"):
        return Value.PYTHON
    return Value.NAMES if metavar.removesuffix("...") == "NAME" else Value.TEXT


def _words(kind: Any) -> tuple[str, ...]:
    return tuple(map(str, kind.__members__)) if isinstance(kind, enum.EnumMeta) else ()
