"""Class-based views: the methods of a class that a FastAPI app has as routes, bound to the replica's instance.

``@app.get("/")`` on a method registers a plain function, whose ``self`` FastAPI takes for a query parameter. Here
``self`` becomes a dependency that gives the instance, and the routes are registered anew, in their order: FastAPI
reads a function's signature when a route is made. Routes of another class on the same app are left out, so that
several classes can share one.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, List

__all__ = ["bind"]


def bind(app: Any, instance: Any) -> None:
    """Make the routes of ``app`` that are methods of the instance's class call the instance.

    Args:
        app: any ASGI app; all but FastAPI's are left as they are.
        instance: what ``self`` is to be.
    """
    fastapi = sys.modules.get("fastapi")  # not imported: then the app is not one of its
    if fastapi is None or not isinstance(app, fastapi.FastAPI):
        return
    routes = [r for r in app.router.routes if callable(getattr(r, "endpoint", None)) and hasattr(r, "dependant")]
    if not any(_is_method(r.endpoint) for r in routes):
        return
    bound = fastapi.APIRouter()
    for route in routes:
        app.router.routes.remove(route)
        if _is_method(route.endpoint):
            if not _belongs(route.endpoint, type(instance)):
                continue
            route.endpoint = _with_instance(route.endpoint, instance, fastapi.Depends)
        bound.routes.append(route)
    app.include_router(bound)


def _is_method(endpoint: Any) -> bool:
    """Whether a function was defined in a class body: ``Class.method``, not ``function.<locals>.inner``."""
    scope = getattr(endpoint, "__qualname__", "").rpartition(".")[0]
    return bool(scope) and not scope.endswith("<locals>") and not inspect.ismethod(endpoint)


def _belongs(endpoint: Any, kind: type) -> bool:
    return any(endpoint in vars(base).values() for base in kind.__mro__)


def _with_instance(endpoint: Any, instance: Any, depends: Any) -> Any:
    """Return the function with a signature in which its first parameter depends on the instance."""

    async def current() -> Any:
        return instance

    signature = inspect.signature(endpoint)
    first, *others = signature.parameters.values()
    parameters: List[Any] = [first.replace(default=depends(current), kind=inspect.Parameter.KEYWORD_ONLY)]
    parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in others]
    endpoint.__signature__ = signature.replace(parameters=sorted(parameters, key=lambda p: p.kind))
    return endpoint
