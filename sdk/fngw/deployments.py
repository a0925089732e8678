"""``Deployment``: a named source of code with its options. Immutable; ``options`` makes changed copies.

Its neighbours: ``sources`` (where the code is), ``deploying`` (what a deploy does), ``handles`` (calling it).

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Generic, Optional, Tuple, TypeVar, Union

from fngw import endpoint
from fngw.environments import wanted_python
from fngw.errors import ValidationError
from fngw.handles import DeploymentHandle
from fngw.options import OPTION_NAMES, Options, parse_bytes
from fngw.sources import Source, StoredSource, caller_python

__all__ = ["Deployment"]

T = TypeVar("T")


class _Option(Generic[T]):
    """A read-only property of a ``Deployment``: the option of this name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = f"The option ``{name}``."

    def __get__(self, deployment: Optional[Deployment], owner: Any = None) -> T:
        if deployment is None:
            return self  # type: ignore[return-value]  # on the class: itself, as for a property
        value: T = getattr(deployment._options, self._name)
        return value

    def __set__(self, deployment: Deployment, value: Any) -> None:
        raise AttributeError(f"{self._name} is read-only; .options({self._name}=…) makes a changed copy")


class Deployment:
    """A function or class that can be deployed under a name.

    Made by ``fngw.deployment``, or fetched by ``fngw.get_deployment``: then its code and constructor arguments
    stay with the gateway, and ``func_or_class`` is not available. Pickled (say, as a constructor argument of
    another deployment) it travels as its name and options, without code and constructor arguments, and is of use
    on the other side: ``get_handle``, ``deploy`` and ``delete`` work on what runs under the name.

    Two are equal when their name and options are. Every option is a read-only property.
    """

    name = _Option[str]()
    version = _Option[Optional[str]]()
    prev_version = _Option[Optional[str]]()
    num_replicas = _Option[int]()
    init_args = _Option[Tuple[Any, ...]]()
    init_kwargs = _Option[Dict[str, Any]]()
    user_config = _Option[Any]()
    max_concurrent_queries = _Option[int]()
    max_queued_requests = _Option[int]()
    request_timeout_s = _Option[Optional[float]]()
    num_cpus = _Option[float]()
    num_gpus = _Option[float]()
    memory = _Option[Union[str, int, None]]()
    gpu_memory = _Option[Union[str, int, None]]()
    gpu_policy = _Option[str]()
    python = _Option[Optional[str]]()
    conda = _Option[Union[Dict[str, Any], str, None]]()
    pip = _Option[Union[Tuple[str, ...], str, None]]()
    env = _Option[Dict[str, str]]()
    working_dir = _Option[Optional[str]]()
    health_check_period_s = _Option[float]()
    health_check_timeout_s = _Option[float]()
    graceful_shutdown_wait_loop_s = _Option[float]()
    graceful_shutdown_timeout_s = _Option[float]()
    schedule = _Option[Optional[str]]()
    schedule_timezone = _Option[str]()
    schedule_missed = _Option[str]()

    def __init__(self, source: Source, options: Options) -> None:
        self._source = source
        self._options = options
        source.check(options)

    @property
    def route_prefix(self) -> Optional[str]:
        """The route prefix (the default filled in); None when not exposed over HTTP."""
        return self._options.resolved_route

    @property
    def func_or_class(self) -> Callable[..., Any]:
        """The decorated function or class itself.

        Raises:
            ValidationError: the deployment was fetched or unpickled; its code is not in this process.
        """
        return self._source.func_or_class

    @property
    def url(self) -> Optional[str]:
        """Where it is served over HTTP, or None when it is not."""
        route = self.route_prefix
        return None if route is None else endpoint.current().url + route

    def options(self, **changes: Any) -> Deployment:
        """Return a copy with changed options.

        Raises:
            TypeError, ValidationError: as for ``fngw.deployment``.

        Example:
            >>> Greeter.options(name="Loud", init_kwargs={"loud": True}).deploy("Hi")
        """
        return Deployment(self._source, self._options.replace(**changes))

    def deploy(self, *args: Any, _blocking: bool = True, **kwargs: Any) -> None:
        """Deploy it, printing progress to stderr.

        Args:
            args, kwargs: constructor arguments; they override ``init_args`` and ``init_kwargs`` this once.
            _blocking: wait until it is healthy and every gateway routes to it.

        Raises:
            TypeError: the constructor does not take these arguments; nothing is sent.
            ValidationError: something cannot be packed, sent, or work.
            DeploymentFailed: it was rolled back, with the replica's traceback; code ``superseded`` when a later
                deploy overtook this one.
            BuildFailed: its image could not be built, with the log's tail.
            RouteConflict, VersionConflict: another deployment has the route; ``prev_version`` is not what runs.
            Unreachable, Unauthorized: the gateway does not answer, or refuses the token.
        """
        from fngw.deploying import deploy

        deploy(self, args, kwargs, wait=_blocking)

    def delete(self) -> None:
        """Delete it and wait until it is gone; no error when there is none.

        Raises:
            Unreachable, Unauthorized: the gateway does not answer, or refuses the token.
        """
        from fngw.deploying import delete

        delete(self.name)

    def get_handle(self, sync: bool = True) -> DeploymentHandle:
        """Return a handle to call it by. ``sync`` is accepted for Ray Serve 1.x: every handle's ``Ref`` can both
        be awaited and asked for its ``result()``."""
        return DeploymentHandle(self.name, pickle_protocol=_protocol_for(self.python))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{self.name} is a deployment and cannot be called directly: deploy it with {self.name}.deploy(…), "
            f"then call it with {self.name}.get_handle().remote(…) or over HTTP; "
            f"{self.name}.func_or_class is the plain object"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deployment):
            return NotImplemented
        ours, theirs = _comparable(self._options), _comparable(other._options)
        return all(_same(ours[k], theirs[k]) for k in ours)

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    def __repr__(self) -> str:
        return f"Deployment(name={self.name!r}, version={self.version!r}, route_prefix={self.route_prefix!r})"

    def __copy__(self) -> Deployment:
        return self  # immutable; and a copy by pickling would lose the code

    def __deepcopy__(self, memo: Any) -> Deployment:
        return self

    def __reduce__(self) -> Any:
        local = ("init_args", "init_kwargs", "working_dir")
        options = {k: getattr(self._options, k) for k in OPTION_NAMES if k not in local}
        return (_rebuild, (options, self._source.has_reconfigure))


def _rebuild(options: Dict[str, Any], has_reconfigure: bool) -> Deployment:
    return Deployment(StoredSource(options["name"], has_reconfigure), Options(**options))


def _comparable(options: Options) -> Dict[str, Any]:
    """The options with defaults filled in, so that a fetched deployment equals the one that was deployed."""
    values = {name: getattr(options, name) for name in OPTION_NAMES}
    values["route_prefix"] = options.resolved_route
    values["python"] = wanted_python(options) or caller_python()
    for size in ("memory", "gpu_memory"):
        values[size] = None if values[size] is None else parse_bytes(values[size])
    return values


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except ValueError:  # NumPy arrays have no single truth value
        return False


def _protocol_for(python: Optional[str]) -> Optional[int]:
    """Return 4 for a replica that cannot read pickle protocol 5 (Python 3.7), else None: the best."""
    try:
        minor = int((python or caller_python()).split(".")[1])
    except (IndexError, ValueError):
        raise ValidationError(f"python: {python!r} is not a Python version such as '3.11'") from None
    return 4 if minor < 8 else None
