"""What a deployment *is* once it leaves the caller's process: a plain, frozen, JSON-able description.

The SDK makes a ``DeploymentSpec`` from a decorated object and its ``Options``; the gateway stores it, the
builder and the controller act on it. Code and constructor arguments are blobs, named by their SHA-256.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from fngw.options import LIVE_OPTIONS, Options, parse_bytes

__all__ = ["CodeRef", "DeploymentSpec", "digest_of", "spec_from_options"]


def digest_of(data: bytes) -> str:
    """Return the name of a blob: ``"sha256:<hex>"``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class CodeRef:
    """Where the replica finds the user's function or class.

    Args:
        bundle: digest of the source archive.
        target: ``"module:qualified.name"`` to import, or None for a by-value pickle.
        pickle: name of the pickle file inside the bundle, or None for an import.
        is_class: whether it is constructed (a class) or called (a function).
        has_reconfigure: whether it can take a ``user_config``.
    """

    bundle: str
    target: Optional[str] = None
    pickle: Optional[str] = None
    is_class: bool = True
    has_reconfigure: bool = False


@dataclass(frozen=True)
class DeploymentSpec:
    """One deployment, completely. Times in seconds, sizes in bytes.

    ``route_prefix`` is None when it is not exposed over HTTP. ``python`` is ``"X.Y"``. ``init`` is the digest of
    the pickled ``(args, kwargs)`` of the constructor, or None when there are none. ``lock`` is the digest of what
    ``conda`` and ``pip`` were solved to, once that is known; ``upgrade`` a word that asks for another solve.
    """

    name: str
    code: CodeRef
    python: str
    version: Optional[str] = None
    num_replicas: int = 1
    route_prefix: Optional[str] = None
    user_config: Any = None
    init: Optional[str] = None
    max_concurrent_queries: int = 100
    max_queued_requests: int = 1000
    request_timeout_s: Optional[float] = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory: Optional[int] = None
    gpu_memory: Optional[int] = None
    gpu_policy: str = "warn"
    conda: Optional[Dict[str, Any]] = None
    pip: Optional[Tuple[str, ...]] = None
    lock: Optional[str] = None
    upgrade: Optional[str] = None
    env: Dict[str, str] = field(default_factory=dict)
    health_check_period_s: float = 10
    health_check_timeout_s: float = 30
    graceful_shutdown_wait_loop_s: float = 2
    graceful_shutdown_timeout_s: float = 20
    schedule: Optional[str] = None
    schedule_timezone: str = "UTC"
    schedule_missed: str = "skip"

    def to_dict(self) -> Dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted, without spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeploymentSpec:
        """Return the spec that ``to_dict`` described; unknown members are ignored (newer clients)."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {k: v for k, v in data.items() if k in known}
        code_known = {f.name for f in dataclasses.fields(CodeRef)}
        values["code"] = CodeRef(**{k: v for k, v in data["code"].items() if k in code_known})
        if values.get("pip") is not None:
            values["pip"] = tuple(values["pip"])
        return cls(**values)

    @property
    def blobs(self) -> Tuple[str, ...]:
        """The digests of what it is made from: its code, and its constructor's arguments if there are any."""
        return (self.code.bundle,) if self.init is None else (self.code.bundle, self.init)

    def live(self) -> Dict[str, Any]:
        """The members that can change without new replicas."""
        return {k: getattr(self, k) for k in sorted(LIVE_OPTIONS)}

    def with_live(self, other: DeploymentSpec) -> DeploymentSpec:
        """Return this spec (its code, arguments, resources, environment) with the live members of ``other``."""
        return dataclasses.replace(self, **other.live())


def spec_from_options(options: Options, code: CodeRef, init: Optional[str], python: str) -> DeploymentSpec:
    """Return the spec of ``options`` with the code and constructor arguments already stored as blobs.

    Args:
        options: validated options; ``conda`` and ``pip`` already read from their files (a dict, a tuple).
        code: where the replica finds the object.
        init: digest of the constructor arguments, or None.
        python: the replica's ``"X.Y"``.
    """
    same = (  # carried over as they are
        "name version num_replicas user_config max_concurrent_queries max_queued_requests request_timeout_s "
        "num_cpus num_gpus gpu_policy health_check_period_s health_check_timeout_s graceful_shutdown_wait_loop_s "
        "graceful_shutdown_timeout_s schedule schedule_timezone schedule_missed"
    ).split()
    values: Dict[str, Any] = {key: getattr(options, key) for key in same}
    sizes = {k: getattr(options, k) for k in ("memory", "gpu_memory")}
    values.update({k: None if v is None else parse_bytes(v) for k, v in sizes.items()})
    return DeploymentSpec(
        code=code,
        python=python,
        init=init,
        route_prefix=options.resolved_route,
        conda=options.conda if isinstance(options.conda, dict) else None,
        pip=options.pip if isinstance(options.pip, tuple) else None,
        env=dict(options.env),
        **values,
    )
