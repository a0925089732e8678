"""``NvmlGpus`` on the stand-in, in a process that has it in ``LD_LIBRARY_PATH`` and is asked over a pipe."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from tests.nvml_standin.build import TABLE, table

from fngw_controller.inventory.base import InUse, Seen
from fngw_controller.inventory.fake_nvml import FakeNvml
from fngw_controller.inventory.nvml import DRIVER, NvmlGpus


class StandIn:
    """The process. ``model`` is what its library tells of at that moment, for a test to break.

    Args:
        library: the stand-in.
    """

    def __init__(self, library: Path) -> None:
        self.model = FakeNvml()
        self._table = library.with_name("table")
        root = str(Path(__file__).parents[2])
        variables = {"LD_LIBRARY_PATH": str(library.parent), TABLE: str(self._table), "PYTHONPATH": root}
        command = [sys.executable, "-m", "tests.nvml_standin.standin"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env={**os.environ, **variables}, **cast(Any, pipes))

    def ask(self, word: str) -> object:
        self._table.write_text(table(self.model))
        assert self._process.stdin and self._process.stdout
        print(word, file=self._process.stdin, flush=True)
        answer, self.model.starts = pickle.loads(base64.b64decode(self._process.stdout.readline()))
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)
        assert self._process.returncode == 0


class StandInGpus:
    """Behaves as ``NvmlGpus``, on the stand-in.

    Args:
        process: where it is.
        model: what there is.
    """

    def __init__(self, process: StandIn, model: FakeNvml) -> None:
        self._process = process
        process.model = model
        process.ask("anew")

    async def read(self) -> Seen:
        return cast(Seen, self._process.ask("read"))

    async def in_use(self) -> InUse | None:
        return cast("InUse | None", self._process.ask("in_use"))


def main() -> None:
    """Answer, a line each, until there are no more questions."""
    gpus, library = NvmlGpus(), ctypes.CDLL(DRIVER)
    for line in sys.stdin:
        answer: object = None
        if line == "anew\n":
            gpus = NvmlGpus()
            library.standin_forget()
        else:
            answer = asyncio.run(getattr(gpus, line.strip())())
        print(base64.b64encode(pickle.dumps((answer, library.standin_starts()))).decode(), flush=True)


if __name__ == "__main__":
    main()
