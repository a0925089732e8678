"""Pickles that travel to replicas, and what has to travel with them.

Functions and classes that a replica cannot import go by value, with cloudpickle. Two things are added to it:

- A trace of the local modules that the pickle refers to by name, so that their files can be shipped.
- Determinism: cloudpickle marks each class that goes by value with a random id (so that one that arrives twice
  is one class). Here the id is derived from the class's own pickle, so that the same source gives the same
  bundle, and two runs of a script speak of the same class.
"""

from __future__ import annotations

import dis
import hashlib
import io
import pickle
import re
import sys
import weakref
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Set, Tuple

import cloudpickle
from cloudpickle import cloudpickle as internals

from fngw.errors import ValidationError
from fngw.protocol import BEST_PICKLE

__all__ = ["Pickled", "pickle_arguments", "pickle_by_value"]

_TRACKER_ID = re.compile(r"[0-9a-f]{32}")
_HINT = "create it in the constructor instead, or send what it is made from"


@dataclass(frozen=True)
class Pickled:
    """A pickle; the names of the modules that it loads; whether it holds code by value."""

    data: bytes
    modules: FrozenSet[str]
    has_code: bool


def pickle_by_value(target: Any) -> Pickled:
    """Return the pickle of a function or class, by value wherever it cannot be imported.

    Raises:
        ValidationError: something that it uses cannot be pickled; the message names the variable.
    """
    try:
        return _dump(target, BEST_PICKLE)
    except Exception as error:  # a user's __reduce__ may raise anything; it is told as what it is
        where = _culprit(_used_by(target))
        name = getattr(target, "__qualname__", repr(target))
        raise _unpicklable(f"{where} used by {name}" if where else name, error) from error


def pickle_arguments(args: Tuple[Any, ...], kwargs: Dict[str, Any], python: str) -> Pickled:
    """Return the pickle of ``(args, kwargs)`` for a constructor on ``python`` (``"X.Y"``).

    Raises:
        ValidationError: one cannot be pickled (the message names it), or holds code and Python differs.
    """
    named = [(f"init_args[{i}]", value) for i, value in enumerate(args)]
    named += [(f"init_kwargs[{key!r}]", value) for key, value in kwargs.items()]
    protocol = 4 if python in ("3.6", "3.7") else BEST_PICKLE
    try:
        pickled = _dump((args, kwargs), protocol)
    except Exception as error:  # as above
        raise _unpicklable(_culprit(named) or "init_args", error) from error
    here = "%d.%d" % sys.version_info[:2]
    if pickled.has_code and python != here:
        raise ValidationError(
            f"init_args: they hold a function or class of this script, which Python {here} cannot send to {python}",
            code="python_mismatch",
            hint="define it in a module of its own, which travels as source",
        )
    return pickled


# -- pickling ---------------------------------------------------------------------------------------------


class _Tracer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, noting what it meets. ``draft`` gives every class the same id."""

    def __init__(self, protocol: int, draft: bool) -> None:
        self.out = io.BytesIO()
        super().__init__(self.out, protocol=protocol)
        self._draft = draft
        self.modules: Set[str] = set()
        self.classes: List[type] = []
        self.has_code = False

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        by_value = isinstance(reduced, tuple) and len(reduced) > 2  # shorter: NoneType and its like
        if isinstance(obj, ModuleType):
            self.modules.add(obj.__name__)
        elif isinstance(obj, (type, FunctionType, BuiltinFunctionType)) and not by_value:
            self.modules.add(str(obj.__module__))
        elif isinstance(obj, (type, FunctionType)):
            self.has_code = True
            self.modules.update(_imports_inside(obj))
            return self._steady_class(obj, reduced) if isinstance(obj, type) else reduced
        return reduced

    def _steady_class(self, cls: type, reduced: Any) -> Any:
        """Return what stands for ``cls``, without what pickling itself may have left in it."""
        self.classes.append(cls)
        reduced[2][0].pop("__slotnames__", None)  # copyreg's cache, there once an instance was pickled
        if not self._draft:
            return reduced
        arguments = tuple(0 if isinstance(a, str) and _TRACKER_ID.fullmatch(a) else a for a in reduced[1])
        return (reduced[0], arguments, *reduced[2:])


def _dump(value: Any, protocol: int) -> Pickled:
    draft = _traced(value, protocol, draft=True)
    classes = list(dict.fromkeys(draft.classes))
    _settle_ids(classes, hashlib.sha256(draft.out.getvalue()).hexdigest())
    tracer = _traced(value, protocol, draft=False) if classes else draft  # without classes they are the same
    return Pickled(tracer.out.getvalue(), frozenset(tracer.modules), tracer.has_code)


def _traced(value: Any, protocol: int, *, draft: bool) -> _Tracer:
    tracer = _Tracer(protocol, draft)
    tracer.dump(value)
    return tracer


#: Ids that were given here; others are cloudpickle's own, or came with a pickle from elsewhere, and stay.
_settled: weakref.WeakSet[type] = weakref.WeakSet()


def _settle_ids(classes: List[type], content: str) -> None:
    """Give each class that goes by value an id from its content, once."""
    known = getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", None)
    by_id = getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_ID", None)
    if known is None or by_id is None:
        return  # another cloudpickle than those known: its random ids work, too
    with internals._DYNAMIC_CLASS_TRACKER_LOCK:
        for index, cls in enumerate(c for c in classes if c not in _settled):
            ident = hashlib.sha256(f"{content}/{index}".encode()).hexdigest()[:32]
            by_id.pop(known.get(cls), None)
            known[cls] = ident
            by_id[ident] = cls
            _settled.add(cls)


def _imports_inside(obj: Any) -> Iterator[str]:
    """Yield the modules that the body of a function imports when it runs."""
    codes = [obj.__code__] if isinstance(obj, FunctionType) else []
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME" and step.argval:
                yield str(step.argval)


# -- telling what cannot be pickled -----------------------------------------------------------------------


def _culprit(named: Iterable[Tuple[str, Any]]) -> str:
    """Return the name of the first value that cannot be pickled by itself, or ''."""
    for name, value in named:
        try:
            _dump(value, BEST_PICKLE)
        except Exception:  # that it cannot is what we look for
            return name
    return ""


def _used_by(target: Any) -> Iterator[Tuple[str, Any]]:
    """Yield the variables that a function, or the methods of a class, get from around them."""
    functions = [target] if isinstance(target, FunctionType) else []
    for name, value in vars(target).items() if isinstance(target, type) else ():
        value = getattr(value, "__func__", value)  # static and class methods
        if isinstance(value, FunctionType):
            functions.append(value)
        elif not name.startswith("__"):
            yield f"the class attribute {name!r}", value
    for function in functions:
        yield from _variables_of(function)


def _variables_of(function: Callable[..., Any]) -> Iterator[Tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            yield f"the closure variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    scope = function.__globals__
    for name in code.co_names:
        if name in scope and not isinstance(scope[name], ModuleType):
            yield f"the global variable {name!r}", scope[name]


def _unpicklable(what: str, error: BaseException) -> ValidationError:
    kind = "" if isinstance(error, (TypeError, pickle.PicklingError)) else type(error).__name__ + ": "
    return ValidationError(f"{what} cannot be sent to a replica: {kind}{error}", code="unpicklable", hint=_HINT)
