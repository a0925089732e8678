"""The records in Redis, as frozen dataclasses. Each knows its JSON form; ``store`` knows where it lies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, Self

from fngw import errors
from fngw.errors import FngwError, to_problem
from fngw.spec import DeploymentSpec


@dataclass(frozen=True)
class Record:
    """A dataclass with a JSON form. Unknown members are ignored, so that a newer writer does no harm."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = _names(cls)  # type: ignore[arg-type]  # classes can be hashed
        return cls(**{k: v for k, v in data.items() if k in known})


@cache
def _names(cls: type[Record]) -> frozenset[str]:
    """The names of a record's members: kept, because a routing table may have 20,000 records."""
    return frozenset(f.name for f in dataclasses.fields(cls))


# -- desired ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision(Record):
    """What one deploy asked for, resolved against what was there.

    ``number`` is this deploy's; ``generation`` the number of the deploy that last needed new replicas (replicas
    carry it, and are replaced when it changes); ``config_number`` that of the last change that running replicas
    must be told of (the options of a ``LiveConfig``).
    """

    number: int
    generation: int
    config_number: int
    spec: DeploymentSpec
    deployed_at: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return super().from_dict({**data, "spec": DeploymentSpec.from_dict(data["spec"])})


@dataclass(frozen=True)
class Failure(Record):
    """Why a revision's rollout was given up. ``error`` is a class name of ``fngw.errors``."""

    number: int
    code: str
    message: str
    detail: str = ""
    hint: str = ""
    error: str = "DeploymentFailed"

    def problem(self) -> dict[str, Any]:
        """Return the error that a failed rollout raises at the caller, as a problem document (RFC 9457)."""
        cls: type[FngwError] = getattr(errors, self.error, errors.DeploymentFailed)
        return to_problem(cls(self.message, code=self.code, detail=self.detail, hint=self.hint))


@dataclass(frozen=True)
class Desired(Record):
    """What should run under one name.

    ``target`` is the last deploy; ``stable`` the last one that was fully rolled out. When ``failure`` is about
    ``target``, the stable one is kept (or nothing, when there is none). ``serial`` counts the writes of this
    record: compare-and-set is on it.
    """

    name: str
    target: Revision
    stable: Revision | None = None
    failure: Failure | None = None
    deleting: bool = False
    serial: int = 0

    @property
    def failed(self) -> bool:
        return self.failure is not None and self.failure.number == self.target.number

    @property
    def effective(self) -> Revision | None:
        """The revision whose replicas should serve; None when nothing should."""
        if self.deleting:
            return None
        return self.stable if self.failed else self.target

    @property
    def settled(self) -> bool:
        """Whether the last deploy was rolled out completely."""
        return self.stable is not None and self.stable.number == self.target.number

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        stable, failure = data.get("stable"), data.get("failure")
        return cls(
            name=data["name"],
            target=Revision.from_dict(data["target"]),
            stable=Revision.from_dict(stable) if stable else None,
            failure=Failure.from_dict(failure) if failure else None,
            deleting=bool(data.get("deleting")),
            serial=int(data.get("serial", 0)),
        )

    @property
    def routes(self) -> frozenset[str]:
        """The route prefixes that this name holds: also that of a version which still serves."""
        held = (self.target, self.stable)
        return frozenset(r.spec.route_prefix for r in held if r is not None and r.spec.route_prefix is not None)


@dataclass(frozen=True)
class Version(Record):
    """One deployed version, for ``fngw versions`` and ``rollback``.

    ``number`` is that of the last deploy that changed it in place.
    """

    name: str
    version: str | None
    number: int
    generation: int
    image: str
    lock: str | None
    deployed_at: float
    spec: Mapping[str, Any]


# -- observed ---------------------------------------------------------------------------------------------


class ReplicaState(StrEnum):
    STARTING = "STARTING"  # the engine was told to start it; its constructor has not ended
    READY = "READY"  # serves
    UNHEALTHY = "UNHEALTHY"  # failed its health checks: to be replaced
    DRAINING = "DRAINING"  # out of the routing table, or told to finish and leave
    FAILED = "FAILED"  # its start failed, or it died


@dataclass(frozen=True)
class Replica(Record):
    """One replica as the controller sees it. ``since`` is the time of the last change of state (Unix seconds)."""

    id: str
    deployment: str
    generation: int
    state: ReplicaState
    since: float
    pid: int | None = None
    gpus: tuple[str, ...] = ()
    address: str = ""  # path of its Unix socket, as gateways see it
    message: str = ""
    config_number: int = 0  # the live configuration that it has applied
    config_sent: int = 0  # the one it was last told to apply

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return super().from_dict(
            {**data, "state": ReplicaState(data["state"]), "gpus": tuple(data.get("gpus", ()))}
        )


@dataclass(frozen=True)
class LiveConfig(Record):
    """What a running replica is told to apply. Only a greater ``serial`` than the last one counts.

    ``number`` is the revision's ``config_number``; it may go back, when a deploy failed and is undone.
    """

    serial: int
    number: int
    user_config: Any
    max_concurrent_queries: int
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float

    @classmethod
    def of(cls, revision: Revision, serial: int) -> Self:
        """Return what the replicas of a revision are told."""
        spec = revision.spec
        return cls(
            serial=serial,
            number=revision.config_number,
            user_config=spec.user_config,
            max_concurrent_queries=spec.max_concurrent_queries,
            graceful_shutdown_wait_loop_s=spec.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=spec.graceful_shutdown_timeout_s,
        )


@dataclass(frozen=True)
class Ack(Record):
    """What a replica answers to a ``LiveConfig``: that it applied it, or a problem document that says why not."""

    serial: int
    number: int
    error: Mapping[str, Any] | None = None


class DeploymentStatus(StrEnum):
    HEALTHY = "HEALTHY"
    UPDATING = "UPDATING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


@dataclass(frozen=True)
class Lost(Record):
    """A replica that died by itself. ``at`` is Unix seconds; ``code`` and ``message`` say why."""

    replica: str
    at: float
    code: str
    message: str


@dataclass(frozen=True)
class Status(Record):
    """What the controller last saw of one deployment. ``lost``: those that died, the last at the end."""

    name: str
    status: DeploymentStatus
    message: str
    number: int  # of the revision this is about
    image: str | None
    lock: str | None
    replicas: tuple[Replica, ...]
    lost: tuple[Lost, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        replicas = tuple(Replica.from_dict(r) for r in data["replicas"])
        lost = tuple(Lost.from_dict(entry) for entry in data.get("lost", ()))
        status = DeploymentStatus(data["status"])
        return super().from_dict({**data, "status": status, "replicas": replicas, "lost": lost})


# -- routing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoutedReplica(Record):
    """``address`` is a Unix socket's path, or ``host:port``."""

    id: str
    address: str


@dataclass(frozen=True)
class RoutedDeployment(Record):
    """One deployment in the table; with no replicas its requests wait for one."""

    name: str
    route_prefix: str | None
    replicas: tuple[RoutedReplica, ...]
    max_concurrent_queries: int
    max_queued_requests: int
    request_timeout_s: float | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return super().from_dict({**data, "replicas": tuple(RoutedReplica.from_dict(r) for r in data["replicas"])})


@dataclass(frozen=True)
class RoutingTable(Record):
    """The whole table; swapped whole. ``generation`` grows with every change."""

    generation: int = 0
    deployments: tuple[RoutedDeployment, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        deployments = tuple(RoutedDeployment.from_dict(d) for d in data["deployments"])
        return cls(generation=data["generation"], deployments=deployments)


# -- builds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildRequest(Record):
    """What an image (or a local environment) is made of. Two equal requests give the same build key.

    Args:
        lock: the digest of the lock to build from; None: that of the newest solve of the same requirements, or else
            they are solved.
        upgrade: a word of the caller's: solve anew, once for each word, whatever was solved before.
    """

    engine: str  # "docker" or "process"
    python: str
    bundle: str
    conda: Mapping[str, Any] | None = None
    pip: tuple[str, ...] | None = None
    lock: str | None = None
    upgrade: str | None = None
    deployment: str = field(default="", compare=False)  # for log lines only; not part of the key

    @property
    def has_environment(self) -> bool:
        """Whether it asks for packages."""
        return self.conda is not None or bool(self.pip)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        pip = data.get("pip")
        return super().from_dict({**data, "pip": None if pip is None else tuple(pip)})


@dataclass(frozen=True)
class Artifact(Record):
    """What a replica runs from.

    Docker engine: ``image`` is the image id, ``ref`` its tag. Process engine: ``python`` is the interpreter's
    path, ``app_dir`` the unpacked code. With dependencies, ``lock`` is the digest of what they were solved to, and
    ``environment`` the tag of the image below, or the environment's folder. ``build`` is the key of the build that
    came to it.
    """

    image: str
    ref: str = ""
    lock: str | None = None
    python: str = ""
    app_dir: str = ""
    environment: str = ""
    build: str = ""


@dataclass(frozen=True)
class BuildProgress(Record):
    """How far a build is: ``done`` of ``total``, in ``unit``, of one ``step``; None where that is not known."""

    step: str
    done: int | None = None
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True)
class BuiltLayer(Record):
    """One part of what a build made, the lowest first: ``what`` is ``base``, ``environment`` or ``code``; ``size``
    in bytes. ``digest`` is the id of the image up to there; of the code, the layer's. For local processes it is
    that of what the part was made from: the lock, the bundle."""

    what: str
    digest: str
    size: int
    reused: bool


@dataclass(frozen=True)
class BuildResult(Record):
    """How a build ended: with an artifact, or with an error (a problem document, see ``fngw.errors``)."""

    key: str
    artifact: Artifact | None = None
    error: Mapping[str, Any] | None = None
    reused: bool = False
    seconds: float = 0.0
    layers: tuple[BuiltLayer, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        artifact = data.get("artifact")
        layers = tuple(BuiltLayer.from_dict(layer) for layer in data.get("layers") or ())
        given = {**data, "artifact": Artifact.from_dict(artifact) if artifact else None, "layers": layers}
        return super().from_dict(given)
