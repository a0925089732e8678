"""What replicas really use of the machine, as the leading controller last measured it. For people and metrics only.

Measured only where there are GPUs that tell; it is gone from Redis soon after nobody measures any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fngw_state import keys
from fngw_state.records import Record
from fngw_state.store import Store

__all__ = ["DeviceUse", "Measured", "ReplicaUse", "Usage"]


@dataclass(frozen=True)
class DeviceUse(Record):
    """What is used of one device: by all, or by one replica.

    Args:
        memory_mib: of its memory, what CUDA itself takes for each process included.
        percent: of the time in which something ran on it; None where the driver does not tell.
        own_mib: what the replica's lease gives it; None for a whole device's use.
    """

    memory_mib: int = 0
    percent: int | None = None
    own_mib: int | None = None

    @property
    def excess_mib(self) -> int:
        """What is used beyond that; 0 when nothing is."""
        return 0 if self.own_mib is None else max(0, self.memory_mib - self.own_mib)


@dataclass(frozen=True)
class ReplicaUse(Record):
    """What the processes of one replica use: resident memory of the host (MiB), and each of its devices."""

    deployment: str
    memory_mib: int = 0
    gpus: Mapping[str, DeviceUse] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return super().from_dict({**data, "gpus": _uses(data["gpus"])})


@dataclass(frozen=True)
class Usage(Record):
    """All that was measured at one moment: by device, and by replica."""

    devices: Mapping[str, DeviceUse] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaUse] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        replicas = {name: ReplicaUse.from_dict(use) for name, use in data["replicas"].items()}
        return cls(_uses(data["devices"]), replicas)


def _uses(data: Mapping[str, Any]) -> dict[str, DeviceUse]:
    return {uuid: DeviceUse.from_dict(use) for uuid, use in data.items()}


class Measured:
    """The last measurement.

    Args:
        store: the shared state.

    Example:
        >>> measured = Measured(store)
        >>> await measured.put(token, Usage(devices={"GPU-0": DeviceUse(memory_mib=512)}))
        >>> (await measured.get()).devices["GPU-0"].memory_mib
        512
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, token: int, usage: Usage) -> None:
        """Replace it.

        Raises:
            Fenced: another controller leads.
        """
        command = ["SET", keys.USAGE, usage.to_json(), "PX", str(keys.USAGE_TTL_MS)]
        await self._store.fenced(token, command)

    async def get(self) -> Usage:
        """Return it; an empty one where nobody measures."""
        text = await self._store.redis.get(keys.USAGE)
        return Usage.from_json(text) if text else Usage()
