"""What the checks and the example use of PyTorch, on a GPU that is a file.

The GPU does one thing at a time, whoever asks; what a process takes of its memory is written into the table from
which the stand-in for the driver's library answers. Limits are those that MPS would hold it to.
"""

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

float16, uint8 = 2, 1  # by their sizes
TABLE = Path(__file__).parents[1] / "table"
#: What CUDA itself takes for a process, and how long one multiplication lasts.
CONTEXT, SECONDS = 500 << 20, 0.0005


class OutOfMemoryError(RuntimeError):
    """There is not so much memory for this process."""


class _Device:
    def __init__(self):
        (self.uuid,) = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        self.taken, self.queued = 0, 0
        limits = os.environ.get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", f"{self.uuid}=81920M")
        self.limit = int(dict(text.split("=") for text in limits.split(","))[self.uuid].rstrip("M")) << 20
        pipes = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
        self.mps = pipes is not None and Path(pipes, "control").exists()
        self.take(CONTEXT)

    def take(self, size):
        if self.taken + size > self.limit:
            raise OutOfMemoryError(f"{size} bytes asked for, {self.taken} of {self.limit} taken")
        self.taken += size
        own = f"process {self.uuid} {os.getpid()} "
        with _alone():
            lines = [line for line in TABLE.read_text().splitlines() if not line.startswith(own)]
            part = TABLE.with_name("part")
            part.write_text("\n".join([*lines, f"{own}{self.taken} 50 {self.mps:d}", ""]))
            part.replace(TABLE)

    def finish(self):
        """Wait until the GPU has done what was queued, after all that was queued before."""
        busy = TABLE.with_name("busy")
        with _alone():
            end = max(time.monotonic(), float(busy.read_text()) if busy.exists() else 0) + self.queued * SECONDS
            busy.write_text(str(end))
        self.queued = 0
        time.sleep(max(0.0, end - time.monotonic()))


@contextmanager
def _alone():
    with TABLE.with_name("lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Matrix:
    def __init__(self, size, device):
        assert device == "cuda"
        _gpu.take(size)

    def __matmul__(self, other):
        _gpu.queued += 1


def rand(rows, columns, *, device, dtype):
    return _Matrix(rows * columns * dtype, device)


def ones(size, *, device, dtype):
    return _Matrix(size * dtype, device)


_gpu = _Device()
cuda = SimpleNamespace(
    OutOfMemoryError=OutOfMemoryError,
    synchronize=_gpu.finish,
    device_count=lambda: 1,
    get_device_name=lambda: "NVIDIA Stand-in",
    get_device_properties=lambda number: SimpleNamespace(uuid=_gpu.uuid.removeprefix("GPU-")),
)
