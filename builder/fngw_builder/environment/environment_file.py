"""Reading what ``conda=`` holds: a dict in the form of an ``environment.yml``, or the text of one. Pure.

Errors in a text say the line and the column, those of structure as well as those of YAML.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fngw.environments import ENVIRONMENT_FILE
from fngw.errors import BuildFailed

#: What conda puts into an environment.yml. `name` and `prefix` mean nothing here.
KNOWN = ("channels", "dependencies", "name", "prefix")
#: Not a channel: it says that `defaults` is not to be added, which fngw never does.
NO_DEFAULTS = "nodefaults"


@dataclass(frozen=True)
class Entry:
    """One line of what somebody wrote, and where: ``" (environment.yml, line 3, column 5)"``, or nothing."""

    text: str
    where: str = ""


@dataclass(frozen=True)
class CondaPart:
    """What ``conda=`` asks for, as written. ``pip`` is the section of that name inside the dependencies."""

    channels: tuple[Entry, ...]
    dependencies: tuple[Entry, ...]
    pip: tuple[Entry, ...]


def invalid(message: str, hint: str = "", *, where: str = "") -> BuildFailed:
    """Return the error for requirements that mean nothing."""
    return BuildFailed(message + where, code="environment_invalid", hint=hint)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint: the name that was probably meant, or all that there are."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def read_conda(conda: Mapping[str, Any]) -> CondaPart:
    """Return what a value of ``conda=`` asks for.

    Args:
        conda: ``{"channels": […], "dependencies": […]}``, or ``{"environment_yml": "the file's text"}``.

    Raises:
        BuildFailed: ``environment_invalid``, with line and column where there are any.
    """
    text = conda.get(ENVIRONMENT_FILE)
    document = _parse(text) if isinstance(text, str) and len(conda) == 1 else _Document(conda)
    data = document.data
    if not isinstance(data, Mapping):
        found = "it is empty" if data is None else f"it holds {_kind(data)}"
        raise invalid(
            f"environment.yml must hold keys such as dependencies; {found}", _EXAMPLE, where=document.at()
        )
    _check_keys(data, document)
    dependencies = list(_dependencies(document))
    channels = tuple(_texts(document, "channels", data.get("channels")))
    return CondaPart(
        channels=tuple(entry for entry in channels if entry.text != NO_DEFAULTS),
        dependencies=tuple(entry for is_pip, entry in dependencies if not is_pip),
        pip=tuple(entry for is_pip, entry in dependencies if is_pip),
    )


_EXAMPLE = 'for example: dependencies: ["numpy=1.26", {"pip": ["requests"]}]'


def _check_keys(data: Mapping[Any, Any], document: _Document) -> None:
    for key in data:
        if key == "variables":
            hint = "give them as env={...} of the deployment"
            raise invalid("conda: 'variables' is not supported", hint, where=document.at(key))
        if key not in KNOWN:
            raise invalid(f"conda: unknown key {key!r}", nearest(str(key), KNOWN), where=document.at(key))


def _dependencies(document: _Document) -> Iterator[tuple[bool, Entry]]:
    """Yield each dependency, and whether pip is to install it."""
    for index, item in enumerate(_list(document, "dependencies", document.data.get("dependencies"))):
        where = document.at("dependencies", index)
        if isinstance(item, str):
            yield False, _entry("dependencies", item, where)
        elif isinstance(item, Mapping) and set(item) == {"pip"}:
            for entry in _texts(document, "dependencies", item["pip"], index, "pip"):
                yield True, entry
        else:
            what = f"the keys {', '.join(map(repr, item))}" if isinstance(item, Mapping) else _kind(item)
            hint = "each is a text such as 'numpy=1.26', or a section 'pip:' with a list"
            raise invalid(f"conda: dependencies holds {what}", hint, where=where)


def _texts(document: _Document, key: str, value: Any, *inside: int | str) -> Iterator[Entry]:
    for index, item in enumerate(_list(document, key, value, *inside)):
        where = document.at(key, *inside, index)
        if not isinstance(item, str):
            named = ".".join([key, *(str(part) for part in inside if isinstance(part, str))])
            hint = "put it in quotes" if item is not None else "the entry is empty"
            raise invalid(f"conda: {named} holds {_kind(item)}, not a text", hint, where=where)
        yield _entry(key, item, where)


def _entry(key: str, text: str, where: str) -> Entry:
    stripped = text.strip()
    if not stripped or "\n" in stripped:
        raise invalid(f"conda: an entry of {key} is {'several lines' if stripped else 'empty'}", where=where)
    return Entry(stripped, where)


def _list(document: _Document, key: str, value: Any, *inside: int | str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        named = ".".join([key, *(str(part) for part in inside if isinstance(part, str))])
        raise invalid(f"conda: {named} must be a list, not {_kind(value)}", where=document.at(key, *inside))
    return list(value)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing", bool: "a truth value"}
    return names.get(type(value)) or f"{value!r}"


# -- YAML, with positions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Document:
    """Data, and where in a text each part of it stands. ``root`` is YAML's node; None for data without a text."""

    data: Any
    root: Any = None

    def at(self, *path: int | str) -> str:
        """Return the place of the part that ``path`` leads to, or of the last one on the way that has one."""
        if self.root is None:
            return ""
        node = self.root
        for step in path:
            node = _child(node, step) or node
        return _place(node.start_mark)


def _child(node: Any, step: int | str) -> Any:
    if isinstance(step, int):
        return node.value[step] if node.id == "sequence" and step < len(node.value) else None
    pairs = node.value if node.id == "mapping" else []
    return next((value if value.id != "scalar" else key for key, value in pairs if key.value == step), None)


def _place(mark: Any) -> str:
    return f" (environment.yml, line {mark.line + 1}, column {mark.column + 1})"


def _parse(text: str) -> _Document:
    import yaml  # an idle builder has no need of it

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        raise invalid(f"environment.yml is not YAML: {reason}", where=_place(mark) if mark else "") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise invalid(f"environment.yml is not YAML: {reason}") from None
    return _Document(data, root)
