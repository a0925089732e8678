"""Make the stand-in, and what it answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pynvml

from fngw_controller.inventory.fake_nvml import FakeGpu, FakeNvml

SOURCE = Path(__file__).with_name("libnvidia-ml.c")
LIBRARY = "libnvidia-ml.so.1"
#: The variable that names the table.
TABLE = "NVML_STANDIN"


def build(folder: Path) -> Path:
    """Compile the stand-in into a folder, which is to be in ``LD_LIBRARY_PATH``; return the library."""
    library = folder / LIBRARY
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True, timeout=60)
    return library


def table(model: FakeNvml) -> str:
    """Return what the stand-in is to answer, so that it does as the fake in memory would."""
    return "".join(f"{line}\n" for line in _lines(model))


def _lines(model: FakeNvml) -> Iterator[str]:
    if model.failure is not None:
        yield f"all {getattr(pynvml, type(model.failure).__name__)().value}"
    yield from (word for word in ("old", "deaf") if getattr(model, word))
    yield from (f"event {uuid} {xid}" for uuid, xid in model.xids)
    for number, gpu in enumerate(model.gpus):
        yield from _gpu(gpu, "-", number)
        for place, part in enumerate(gpu.slices or ()):
            if part is not None:
                yield from _gpu(part, gpu.uuid, place)


def _gpu(gpu: FakeGpu, parent: str, number: int) -> Iterator[str]:
    ecc = -1 if gpu.ecc is None else gpu.ecc
    flags = (gpu.lost, gpu.tells, gpu.slices is not None, gpu.shy)
    yield " ".join(["gpu", gpu.uuid, parent, f"{number} {gpu.memory} {ecc}", *(f"{f:d}" for f in flags), gpu.model])
    for process in gpu.processes:
        memory = -1 if process.memory is None else process.memory
        yield f"process {gpu.uuid} {process.pid} {memory} {process.percent} {process.mps:d}"
