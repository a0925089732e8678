"""The user's object, and which of its methods can be called how."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, List, Optional

from fngw.errors import FngwError
from fngw.protocol import DEFAULT_METHOD

__all__ = ["INGRESS_ATTRIBUTE", "Method", "Target"]

#: Set on a class by ``fngw.ingress(app)``.
INGRESS_ATTRIBUTE = "__fngw_ingress_app__"

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


class Method:
    """A callable with what must be known to call it, found out once.

    ``is_coroutine``: awaited on the loop. ``is_lazy``: a generator function, whose call runs nothing yet.
    ``takes_argument``: whether an HTTP request can be passed.
    """

    __slots__ = ("function", "is_coroutine", "is_lazy", "takes_argument")

    def __init__(self, function: Callable[..., Any]) -> None:
        inner: Any = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        self.function = function
        self.is_coroutine = inspect.iscoroutinefunction(inner)
        self.is_lazy = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
        self.takes_argument = _takes_argument(function)


class Target:
    """The instance of a class, or a function.

    Args:
        value: the user's object, constructed.
        is_class: whether it is an instance; a function has no methods besides being called.
    """

    def __init__(self, value: Any, is_class: bool) -> None:
        self.value = value
        self.is_class = is_class
        self.ingress_app: Any = getattr(type(value), INGRESS_ATTRIBUTE, None) if is_class else None
        self.default: Optional[Method] = self._default()

    def _default(self) -> Optional[Method]:
        if not self.is_class:
            return Method(self.value if inspect.isroutine(self.value) else self.value.__call__)
        return Method(self.value.__call__) if callable(self.value) else None

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self.value).__name__ if self.is_class else getattr(self.value, "__name__", "the function")

    def public_methods(self) -> List[str]:
        """The names that a handle may call."""
        names = [DEFAULT_METHOD] if self.default else []
        if self.is_class:
            kind = type(self.value)
            names += [n for n in dir(kind) if not n.startswith("_") and callable(getattr(kind, n, None))]
        return names

    def method(self, name: str) -> Method:
        """Return one by its name.

        Raises:
            AttributeError: unknown or private; the text lists those that can be called.
        """
        if name == DEFAULT_METHOD and self.default:
            return self.default
        function = None
        if self.is_class and not name.startswith("_"):
            function = getattr(self.value, name, None)
        if not callable(function):
            known = ", ".join(self.public_methods()) or "none"
            raise AttributeError(f"{self.name} has no public method {name!r}; available: {known}")
        return Method(function)

    def not_over_http(self) -> FngwError:
        """Return the error of an HTTP request to a class that defines no ``__call__``."""
        return FngwError(
            f"{self.name} defines no __call__, so it cannot answer HTTP",
            code="not_callable",
            hint="define __call__(self, request), or set route_prefix=None and call its methods by handle",
        )


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins tell nothing
        return True
    return any(p.kind in _POSITIONAL for p in parameters)
