"""The two decorators that make a deployment of user code: ``deployment`` and ``ingress``.

Standard library only, Python >= 3.7: this module is copied into replica images, where users' modules run it.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, TypeVar, Union, overload

from fngw.deployments import Deployment
from fngw.options import make_options
from fngw.sources import LocalSource

__all__ = ["INGRESS_ATTRIBUTE", "deployment", "ingress"]

#: On an ingress class: the ASGI app that serves its HTTP. The runtime looks for it.
INGRESS_ATTRIBUTE = "__fngw_ingress_app__"

Class = TypeVar("Class", bound=type)


@overload
def deployment(func_or_class: Callable[..., Any]) -> Deployment: ...
@overload
def deployment(**options: Any) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    *target: Callable[..., Any], **options: Any
) -> Union[Deployment, Callable[[Callable[..., Any]], Deployment]]:
    """Make a function or a class deployable; bare, or with options.

    Args:
        options: see ``fngw.options.Options``: ``name``, ``version``, ``num_replicas``, ``route_prefix``,
            ``num_cpus``, ``num_gpus``, ``memory`` (bytes or ``"512MiB"``), ``pip``, ``conda``, …

    Raises:
        TypeError: an unknown option (with the nearest name), a wrong type, or not a function or class.
        ValidationError: an option has a value that cannot work.

    Example:
        >>> @fngw.deployment(num_replicas=2)
        ... class Greeter:
        ...     def __init__(self, msg):
        ...         self.msg = msg
        ...     def __call__(self, request):
        ...         return self.msg
        >>> Greeter.deploy("Hello!")
    """
    if target and (len(target) > 1 or options or not callable(target[0])):
        raise TypeError("fngw.deployment takes its options by name: @fngw.deployment(name=…) or @fngw.deployment")

    def decorate(func_or_class: Callable[..., Any]) -> Deployment:
        source = LocalSource(func_or_class)
        return Deployment(source, make_options(**{"name": source.default_name, **options}))

    return decorate(target[0]) if target else decorate


def ingress(app: Any) -> Callable[[Class], Class]:
    """Serve a class's HTTP by an ASGI application, such as a FastAPI or Starlette app.

    Goes below ``@fngw.deployment``. The other methods are still reached by handles.

    Raises:
        TypeError: ``app`` is no ASGI application, or what is decorated is no class.
        ValueError: the class defines ``__call__``, which would never be reached.

    Example:
        >>> @fngw.deployment
        ... @fngw.ingress(app)
        ... class Api:
        ...     pass
    """
    if isinstance(app, (type, Deployment)) or not callable(app):
        raise TypeError(f"fngw.ingress takes an ASGI application, not {app!r}: @fngw.ingress(app)")

    def decorate(cls: Class) -> Class:
        if isinstance(cls, Deployment):
            raise TypeError("fngw.ingress goes below fngw.deployment: @fngw.deployment, then @fngw.ingress(app)")
        if not inspect.isclass(cls):
            raise TypeError(f"fngw.ingress decorates a class, not {cls!r}")
        if any("__call__" in vars(base) for base in cls.__mro__):
            raise ValueError(f"{cls.__name__} has an ingress app and must not define __call__: the app serves it")
        setattr(cls, INGRESS_ATTRIBUTE, app)
        return cls

    return decorate
