"""Every string and byte that crosses a process boundary between caller, gateway and replica.

Call frames (``POST /-/call/<deployment>/<method>`` at the gateway, ``POST /-/call/<method>`` at the replica)::

    magic  b"FNGW1"
    u32    n, number of parts (big endian)
    n × u64 length of each part
    n × bytes

Part 0 is a pickle of ``(args, kwargs)``, of a result, or of a ``RemoteFailure`` as a dict; the parts after it
are its out-of-band buffers (pickle protocol 5, PEP 574), so that a NumPy array is written and read in place.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

__all__ = [
    "AT_CAPACITY_HEADER",
    "CALL_PREFIX",
    "CALL_TYPE",
    "ERROR_TYPE",
    "HEALTH_PATH",
    "PROBLEM_TYPE",
    "READY_PATH",
    "REPLICA_CALL_PREFIX",
    "REQUEST_ID_HEADER",
    "RESULT_TYPE",
    "ROOT_PATH_HEADER",
    "ReplicaConfig",
    "decode_frame",
    "encode_frame",
    "frame_pickle_protocol",
]

# -- HTTP -------------------------------------------------------------------------------------------------

API_PREFIX = "/-/api/v1"
CALL_PREFIX = "/-/call/"  # at the gateway: /-/call/<deployment>/<method>
REPLICA_CALL_PREFIX = "/-/call/"  # at the replica: /-/call/<method>
CALLS_PREFIX = "/-/calls/"  # at the gateway: /-/calls/<id>, /-/calls/<id>/result
READY_PATH = "/-/ready"  # at the replica: answers once the constructor has ended, well or not
HEALTH_PATH = "/-/health"  # at the replica: runs check_health

CALL_TYPE = "application/x-fngw-call"
RESULT_TYPE = "application/x-fngw-result"
ERROR_TYPE = "application/x-fngw-error"
PROBLEM_TYPE = "application/problem+json"

REQUEST_ID_HEADER = "x-request-id"
#: Private headers between gateway and replica; the gateway drops them from what clients send and from answers.
ROOT_PATH_HEADER = "fngw-root-path"
AT_CAPACITY_HEADER = "fngw-at-capacity"
USER_ERROR_HEADER = "fngw-user-error"  # on a 500 the runtime made from a user's exception
#: What a function sees of the call that waited for it. Taken from the Unix socket only.
CALL_ID_HEADER = "fngw-call-id"
ATTEMPT_HEADER = "fngw-attempt"
#: On what the gateway answers about a call: a pending one is told from a function that answers 202.
CALL_STATUS_HEADER = "fngw-call-status"

DEFAULT_METHOD = "__call__"

# -- builds -----------------------------------------------------------------------------------------------

#: How those lines of a build's log begin that whoever waits for the build should see.
REUSED_LINE = "reused environment "
WARNING_LINE = "warning: "

# -- the replica ------------------------------------------------------------------------------------------

#: Where a container finds its own directory, the shared sockets, and the code.
CONTAINER_REPLICA_DIR = "/run/fngw/replica"
CONTAINER_SHARED_DIR = "/run/fngw/shared"
CONTAINER_APP_DIR = "/srv/fngw/app"
CONTAINER_ENV_DIR = "/opt/fngw/env"
CONTAINER_RUNTIME_DIR = "/opt/fngw/runtime"

#: Files in a replica's directory.
CONFIG_FILE = "replica.json"
INIT_FILE = "init.pkl"
SOCKET_FILE = "http.sock"
#: Files in the shared directory.
GATEWAY_SOCKET_FILE = "gateway.sock"
REDIS_SOCKET_FILE = "redis.sock"

#: The one variable a replica process starts from.
REPLICA_DIR_VARIABLE = "FNGW_REPLICA_DIR"
#: Set in replicas (and wherever a gateway's Unix socket is at hand): how handles reach the gateway.
GATEWAY_SOCKET_VARIABLE = "FNGW_GATEWAY_SOCKET"


@dataclass(frozen=True)
class ReplicaConfig:
    """``replica.json``: all that one replica process needs to know.

    Paths are as the replica sees them. ``python`` is the ``"X.Y"`` that by-value pickles were written by.
    ``init`` tells whether ``init.pkl`` holds constructor arguments. Times are seconds.
    """

    replica_id: str
    deployment: str
    version: Optional[str]
    generation: int
    app_dir: str
    shared_dir: str
    target: Optional[str]
    pickle: Optional[str]
    is_class: bool
    python: str
    init: bool
    route_prefix: Optional[str]
    user_config: Any
    config_revision: int
    max_concurrent_queries: int
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    debug: bool = False
    #: How the replica hears of live configuration, or None: ``socket`` (or ``host`` and ``port``), ``username``,
    #: ``password``, the keys ``config`` (to read, and channel to listen on) and ``ack`` (to write), and the
    #: channel ``acked`` (to tell on).
    redis: Optional[Dict[str, str]] = None

    def to_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> ReplicaConfig:
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in data.items() if k in known})


# -- call frames ------------------------------------------------------------------------------------------

MAGIC = b"FNGW1"
BEST_PICKLE = 5 if sys.version_info >= (3, 8) else 4


def encode_frame(value: Any, *, by_value: bool = False, protocol: int = BEST_PICKLE) -> List[bytes]:
    """Return ``value`` as a frame: a list of byte strings (or memoryviews) to write one after the other.

    Args:
        value: anything that pickles.
        by_value: pickle functions and classes of ``__main__`` by value, with cloudpickle.
        protocol: the pickle protocol; 4 for a peer on Python 3.7.

    Raises:
        pickle.PicklingError, TypeError: what pickle says of a value it cannot write.
    """
    buffers: List[Any] = []
    head = _pickle(value, by_value, protocol, buffers)
    parts: List[Any] = [head, *[b.raw() for b in buffers]]
    sizes = struct.pack(">I%dQ" % len(parts), len(parts), *[len(p) for p in parts])
    return [MAGIC + sizes, *parts]


def _pickle(value: Any, by_value: bool, protocol: int, buffers: List[Any]) -> bytes:
    out = io.BytesIO()
    options: Dict[str, Any] = {"protocol": protocol}
    if protocol >= 5:
        options["buffer_callback"] = buffers.append
    if by_value:
        import cloudpickle  # heavy, and not always needed

        cloudpickle.Pickler(out, **options).dump(value)
    else:
        pickle.Pickler(out, **options).dump(value)
    return out.getvalue()


def decode_frame(data: Any) -> Any:
    """Return the value of a whole frame; its buffers are views into ``data``, not copies.

    Raises:
        ValueError: not a frame, or cut short.
    """
    view = memoryview(data)
    parts = _split(view)
    if len(parts) == 1:
        return pickle.loads(parts[0])
    return pickle.loads(parts[0], buffers=parts[1:])  # type: ignore[call-arg,unused-ignore]


def frame_pickle_protocol(data: Any) -> int:
    """Return the pickle protocol to answer a frame by: its own, which its sender can read, if this Python can.

    Anything that is not a frame gives this Python's best.
    """
    head = len(MAGIC) + 4
    if len(data) < head:
        return BEST_PICKLE
    (count,) = struct.unpack_from(">I", data, len(MAGIC))
    start = bytes(data[head + 8 * count : head + 8 * count + 2])
    return min(start[1], BEST_PICKLE) if start[:1] == pickle.PROTO else BEST_PICKLE


def _split(view: memoryview) -> Sequence[memoryview]:
    head = len(MAGIC)
    if bytes(view[:head]) != MAGIC or len(view) < head + 4:
        raise ValueError("not a call frame")
    (count,) = struct.unpack_from(">I", view, head)
    offset = head + 4 + 8 * count
    if count < 1 or len(view) < offset:
        raise ValueError("a call frame cut short")
    parts = []
    for size in struct.unpack_from(">%dQ" % count, view, head + 4):
        parts.append(view[offset : offset + size])
        offset += size
    if len(view) != offset:
        raise ValueError("a call frame with the wrong length")
    return parts
