"""GPUs that a file declares: ``{"gpus": [{"uuid": "GPU-…", "model": "…", "memory": "80GiB"}]}``.

For machines where discovery is not possible. It is read again when it has changed; a change that makes no sense is
told in the log, and what it said before stays.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fngw.options import parse_bytes
from fngw_controller.inventory.base import InUse, InventoryError, Seen
from fngw_state.resources import MIB, Device

__all__ = ["GpuFile", "parse"]

log = logging.getLogger(__name__)

#: Several are joined by commas in a variable, and the engine takes them for itself otherwise.
UUID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
MEMBERS = {"uuid", "model", "memory", "mig"}


class GpuFile:
    """The devices that a file declares.

    Args:
        path: the file, JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Seen | None = None
        self._told = ""

    async def read(self) -> Seen:
        """Return what the file says, or said when it last made sense.

        Raises:
            InventoryError: it has never made sense.
        """
        try:
            devices = parse(self._path, self._path.read_bytes())
            self._seen, self._told = Seen(devices, "" if devices else f"{self._path} lists none"), ""
        except OSError as error:
            self._keep(InventoryError(f"FNGW_GPU_INVENTORY: {self._path}: {error.strerror}", hint=HINT))
        except InventoryError as error:
            self._keep(error)
        assert self._seen is not None
        return self._seen

    async def in_use(self) -> InUse | None:
        """Nobody can be asked."""
        return None

    def _keep(self, error: InventoryError) -> None:
        if self._seen is None:
            raise error
        if error.message != self._told:
            log.error("%s; going on with what it said before", error.message)
            self._told = error.message


HINT = 'it is to hold {"gpus": [{"uuid": "GPU-...", "model": "...", "memory": "80GiB"}]}'


def parse(path: Path, text: bytes) -> tuple[Device, ...]:
    """Return the devices that a file declares.

    Args:
        path: for messages.
        text: its contents.

    Raises:
        InventoryError: it is no such file; the message names the member.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _invalid(path, f"is no JSON: {error}") from None
    entries = data.get("gpus") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise _invalid(path, 'has no list "gpus"')
    devices = tuple(_device(path, f"gpus[{i}]", entry) for i, entry in enumerate(entries))
    uuids = [d.uuid for d in devices]
    for number, uuid in enumerate(uuids):
        if uuid in uuids[:number]:
            raise _invalid(path, f"gpus[{number}].uuid: {uuid!r} is listed twice")
    return devices


def _device(path: Path, where: str, entry: Any) -> Device:
    if not isinstance(entry, dict):
        raise _invalid(path, f"{where}: {entry!r} is no object")
    for member in entry:
        if member not in MEMBERS:
            raise _invalid(path, f"{where}.{member}: no such member; known: {', '.join(sorted(MEMBERS))}")
    uuid, model, mig = entry.get("uuid"), entry.get("model", ""), entry.get("mig", False)
    if not isinstance(uuid, str) or not UUID_PATTERN.fullmatch(uuid):
        raise _invalid(path, f"{where}.uuid: {uuid!r} is not the UUID of a GPU")
    if not isinstance(model, str):
        raise _invalid(path, f"{where}.model: {model!r} is no text")
    if not isinstance(mig, bool):
        raise _invalid(path, f"{where}.mig: {mig!r} is neither true nor false")
    return Device(uuid, model, _memory(path, where, entry), mig)


def _memory(path: Path, where: str, entry: Mapping[str, Any]) -> int:
    memory = entry.get("memory")
    try:
        if isinstance(memory, bool) or not isinstance(memory, (str, int)):
            raise ValueError(f"{memory!r} is not a size such as '80GiB'")
        mib = parse_bytes(memory) // MIB
        if mib <= 0:
            raise ValueError(f"{memory!r} is less than 1 MiB")
        return mib
    except ValueError as error:
        raise _invalid(path, f"{where}.memory: {error}") from None


def _invalid(path: Path, problem: str) -> InventoryError:
    return InventoryError(f"FNGW_GPU_INVENTORY: {path}: {problem}", hint=HINT)
