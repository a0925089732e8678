"""The options of a deployment: their defaults, their validation, and which of them need new replicas.

One frozen dataclass, checked on construction: wrong types raise ``TypeError``, wrong values ``ValidationError``
(a ``ValueError``) that names the option, unknown names ``TypeError`` with the nearest name.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Tuple, Union

from fngw.errors import ValidationError

__all__ = ["DEFAULT_ROUTE", "LIVE_OPTIONS", "OPTION_NAMES", "Options", "make_options", "parse_bytes"]

NAME_PATTERN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?")
PYTHON_PATTERN = re.compile(r"3\.\d{1,2}")
SIZE_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SIZE_UNITS.update({"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40})
GPU_GRAIN = 1000  # shares are accounted in thousandths of a GPU
CLASH_HINT = "give it once, either directly or in ray_actor_options"


class _DefaultRoute:
    """The default of ``route_prefix``: ``/<name>``, following the name."""

    def __repr__(self) -> str:
        return "<default>"

    def __reduce__(self) -> str:
        return "DEFAULT_ROUTE"


DEFAULT_ROUTE = _DefaultRoute()


@dataclass(frozen=True)
class Options:
    """All options of one deployment. See ``docs/reference/options.md`` for their meaning.

    Sizes (``memory``, ``gpu_memory``) are strings such as ``"512MiB"`` or a number of bytes; times are seconds.

    Raises:
        TypeError: an option has the wrong type.
        ValidationError: an option has a value that cannot work.

    Example:
        >>> Options(name="Greeter", num_replicas=2).resolved_route
        '/Greeter'
    """

    name: str
    version: Optional[str] = None
    prev_version: Optional[str] = None
    num_replicas: int = 1
    init_args: Tuple[Any, ...] = ()
    init_kwargs: Dict[str, Any] = field(default_factory=dict)
    route_prefix: Union[str, _DefaultRoute, None] = DEFAULT_ROUTE
    user_config: Any = None
    max_concurrent_queries: int = 100
    max_queued_requests: int = 1000
    request_timeout_s: Optional[float] = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory: Union[str, int, None] = None
    gpu_memory: Union[str, int, None] = None
    gpu_policy: str = "warn"
    python: Optional[str] = None
    conda: Union[Dict[str, Any], str, None] = None
    pip: Union[Tuple[str, ...], str, None] = None
    env: Dict[str, str] = field(default_factory=dict)
    working_dir: Optional[str] = None
    health_check_period_s: float = 10
    health_check_timeout_s: float = 30
    graceful_shutdown_wait_loop_s: float = 2
    graceful_shutdown_timeout_s: float = 20
    schedule: Optional[str] = None
    schedule_timezone: str = "UTC"
    schedule_missed: str = "skip"

    def __post_init__(self) -> None:
        for name, normalise in _NORMALISERS.items():
            object.__setattr__(self, name, normalise(getattr(self, name)))
        for name, check in _CHECKS.items():
            check(name, getattr(self, name))

    @property
    def resolved_route(self) -> Optional[str]:
        """The route prefix, with the default filled in; None when not exposed over HTTP."""
        route = self.route_prefix
        return "/" + self.name if isinstance(route, _DefaultRoute) else route

    def replace(self, **changes: Any) -> Options:
        """Return a copy with ``changes``; names are checked as in ``make_options``."""
        return dataclasses.replace(self, **_fold_ray_options(changes))


OPTION_NAMES: Tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Options))

#: Options that reach running replicas, or concern only the gateway and controller: a deploy that changes no
#: more than these keeps the replicas of the same version.
LIVE_OPTIONS: FrozenSet[str] = frozenset(
    {
        "num_replicas",
        "route_prefix",
        "user_config",
        "max_concurrent_queries",
        "max_queued_requests",
        "request_timeout_s",
        "health_check_period_s",
        "health_check_timeout_s",
        "graceful_shutdown_wait_loop_s",
        "graceful_shutdown_timeout_s",
        "gpu_policy",
        "schedule",
        "schedule_timezone",
        "schedule_missed",
    }
)


def make_options(name: str, **given: Any) -> Options:
    """Return the options given to a decorator, with ``name`` as the fallback for the deployment's name.

    Raises:
        TypeError: an unknown option (with the nearest name) or a wrong type.
        ValidationError: a wrong value.

    Example:
        >>> make_options("f", num_replica=2)
        Traceback (most recent call last):
        TypeError: unknown option 'num_replica'; did you mean 'num_replicas'?
    """
    merged: Dict[str, Any] = {"name": name}
    merged.update(_fold_ray_options(given))
    return Options(**merged)


def parse_bytes(size: Union[str, int]) -> int:
    """Return a size in bytes: ``"512MiB"``, ``"10GB"``, ``"1.5Gi"`` or a plain number.

    Raises:
        ValueError: not a size.

    Example:
        >>> parse_bytes("512MiB")
        536870912
    """
    if isinstance(size, int):
        return size
    match = SIZE_PATTERN.fullmatch(size.strip())
    if not match:
        raise ValueError(f"{size!r} is not a size such as '512MiB' or '10GB'")
    return int(float(match.group(1)) * SIZE_UNITS[(match.group(2) or "").lower()])


# -- names ------------------------------------------------------------------------------------------------


def _fold_ray_options(given: Mapping[str, Any]) -> Dict[str, Any]:
    """Translate ``ray_actor_options`` (Ray Serve 1.x) into the options they mean, and refuse unknown names."""
    merged = {k: v for k, v in given.items() if k != "ray_actor_options"}
    ray = given.get("ray_actor_options")
    for key, value in _translate_ray(ray).items() if ray is not None else ():
        if key in merged:
            raise ValidationError(f"{key}: given both directly and in ray_actor_options", hint=CLASH_HINT)
        merged[key] = value
    for key in merged:
        if key not in OPTION_NAMES:
            raise TypeError(_unknown("option", key, (*OPTION_NAMES, "ray_actor_options")))
    return merged


def _translate_ray(ray: Any) -> Dict[str, Any]:
    _check_mapping("ray_actor_options", ray)
    direct, nested = ("num_cpus", "num_gpus", "memory"), {"env_vars": "env"}
    known_runtime = ("conda", "pip", "env_vars", "working_dir")
    out: Dict[str, Any] = {}
    for key, value in ray.items():
        if key in direct:
            out[key] = value
        elif key == "runtime_env":
            _check_mapping("ray_actor_options['runtime_env']", value)
            for inner, inner_value in value.items():
                if inner not in known_runtime:
                    raise TypeError(_unknown("runtime_env option", inner, known_runtime))
                out[nested.get(inner, inner)] = inner_value
        else:
            raise TypeError(_unknown("ray_actor_options entry", key, (*direct, "runtime_env")))
    return out


def _unknown(kind: str, name: str, known: Tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    tail = f"did you mean {near[0]!r}?" if near else "known: {}".format(", ".join(sorted(known)))
    return f"unknown {kind} {name!r}; {tail}"


# -- normalisation ----------------------------------------------------------------------------------------


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_NORMALISERS: Dict[str, Callable[[Any], Any]] = {
    "init_args": _to_tuple,
    "pip": _to_tuple,
    "init_kwargs": lambda v: {} if v is None else v,
    "env": lambda v: {} if v is None else v,
}


# -- checks -----------------------------------------------------------------------------------------------

Check = Callable[[str, Any], None]


def _bad(name: str, message: str, hint: str = "") -> ValidationError:
    return ValidationError(f"{name}: {message}", hint=hint)


def _typed(name: str, value: Any, types: Any, expected: str) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__} ({value!r})")


def _check_name(name: str, value: Any) -> None:
    _typed(name, value, str, "a string")
    if len(value) > 63 or not NAME_PATTERN.fullmatch(value):
        raise _bad(
            name,
            f"{value!r} is not a deployment name",
            "letters, digits, '_' and '-', starting and ending with a letter or digit, at most 63",
        )


def _check_text(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, str, "a string or None")
    if not value:
        raise _bad(name, "must not be empty")


def _check_python(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, str, "a string such as '3.11' or None")
    if not PYTHON_PATTERN.fullmatch(value):
        raise _bad(name, f"{value!r} is not a Python version such as '3.11'")


def _check_route(name: str, value: Any) -> None:
    if value is None or isinstance(value, _DefaultRoute):
        return
    _typed(name, value, str, "a string or None")
    problem = _route_problem(value)
    if problem:
        raise _bad(name, f"{value!r} {problem}", "for example '/api'; None to keep it off HTTP")


def _route_problem(route: str) -> Optional[str]:
    segments = route.split("/")[1:]
    problems = (
        (not route.startswith("/"), "must start with '/'"),
        (route != "/" and route.endswith("/"), "must not end with '/'"),
        ("{" in route or "}" in route, "must not contain '{' or '}'"),
        (segments[:1] == ["-"], "is under '/-', which is the gateway's own"),
        (bool(re.search(r"[\x00-\x20\x7f?#%\\]", route)), "must be plain path text, not encoded"),
        (route != "/" and any(s in ("", ".", "..") for s in segments), "has an empty or a dot segment"),
        (len(route) > 1024, "is longer than 1024 characters"),
    )
    return next((text for wrong, text in problems if wrong), None)


def _number(
    low: float,
    *,
    whole: bool = False,
    optional: bool = False,
    above: bool = False,
    expected: str = "a number",
) -> Check:
    """A check for numbers ≥ ``low`` (> with ``above``)."""

    def check(name: str, value: Any) -> None:
        if value is None and optional:
            return
        _typed(name, value, int if whole else (int, float), "an integer" if whole else expected)
        if not math.isfinite(value) or value < low or (above and value == low):
            raise _bad(name, "must be {} {}, not {!r}".format(">" if above else "≥", low, value))

    return check


def _check_gpus(name: str, value: Any) -> None:
    _number(0)(name, value)
    if value > 1 and value != int(value):
        raise _bad(name, f"{value!r} is more than one GPU but not a whole number")
    milli = value * GPU_GRAIN
    if abs(milli - round(milli)) > 1e-6:
        raise _bad(name, f"{value!r} is finer than 1/{GPU_GRAIN} of a GPU", "round it, e.g. 0.333")


def _check_gpu_policy(name: str, value: Any) -> None:
    _typed(name, value, str, "a string")
    if value not in ("warn", "restart"):
        raise _bad(name, f"{value!r} is neither 'warn' nor 'restart'")


def _check_size(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, (str, int), "a size such as '512MiB', a number of bytes, or None")
    try:
        size = parse_bytes(value)
    except ValueError as error:
        raise _bad(name, str(error)) from None
    if size <= 0:
        raise _bad(name, "must be > 0")


def _check_json(name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _bad(name, f"cannot be written as JSON: {error}") from None


def _check_mapping(name: str, value: Any) -> None:
    _typed(name, value, dict, "a dict")
    for key in value:
        _typed(f"a key of {name}", key, str, "a string")


def _check_env(name: str, value: Any) -> None:
    _check_mapping(name, value)
    for key, text in value.items():
        _typed(f"{name}[{key!r}]", text, str, "a string")
        if not key or "=" in key or "\0" in key + text:
            raise _bad(name, f"{key!r} is not an environment variable")
        if key.startswith(("NVIDIA_", "CUDA_MPS_", "CUDA_VISIBLE_DEVICES", "FNGW_")):
            raise _bad(name, f"{key} is set by fngw itself", "ask for num_gpus or gpu_memory instead")


def _check_conda(name: str, value: Any) -> None:
    if value is not None:
        _typed(name, value, (dict, str), "a dict, a path to an environment.yml, or None")


def _check_pip(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, (tuple, str), "a list of requirements, a path to a requirements.txt, or None")
    for requirement in value if isinstance(value, tuple) else ():
        _typed(f"an entry of {name}", requirement, str, "a string")


def _check_schedule(name: str, value: Any) -> None:
    """Check one of the options of a schedule; the checker is loaded for those that are given only."""
    if value == {"schedule_timezone": "UTC", "schedule_missed": "skip"}.get(name):
        return
    _typed(name, value, str, "a string")
    from fngw import cron

    problem = cron.PROBLEMS[name](value)
    if problem:
        raise _bad(name, f"{value!r}: {problem}", cron.EXAMPLES[name])


def _check_args(name: str, value: Any) -> None:
    _typed(name, value, tuple, "a tuple or a list")


_CHECKS: Dict[str, Check] = {
    "name": _check_name,
    "version": _check_text,
    "prev_version": _check_text,
    "num_replicas": _number(1, whole=True),
    "init_args": _check_args,
    "init_kwargs": _check_mapping,
    "route_prefix": _check_route,
    "user_config": _check_json,
    "max_concurrent_queries": _number(1, whole=True),
    "max_queued_requests": _number(0, whole=True),
    "request_timeout_s": _number(0, optional=True, above=True),
    "num_cpus": _number(0),
    "num_gpus": _check_gpus,
    "memory": _check_size,
    "gpu_memory": _check_size,
    "gpu_policy": _check_gpu_policy,
    "python": _check_python,
    "conda": _check_conda,
    "pip": _check_pip,
    "env": _check_env,
    "working_dir": _check_text,
    "health_check_period_s": _number(0, above=True),
    "health_check_timeout_s": _number(0, above=True),
    "graceful_shutdown_wait_loop_s": _number(0),
    "graceful_shutdown_timeout_s": _number(0),
    "schedule": _check_schedule,
    "schedule_timezone": _check_schedule,
    "schedule_missed": _check_schedule,
}
