"""NVIDIA's MPS daemon, started and ended by the checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CONTROL = shutil.which("nvidia-cuda-mps-control")
#: It has so long to come up; one that cannot use the devices is gone before the next look.
START_S, LOOK_S = 30.0, 2.0


class Mps:
    """The daemon, with its pipes in ``folder``: not where CUDA looks by itself, so that it serves who is told."""

    def __init__(self, folder: Path) -> None:
        self._variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}
        (folder / "log").mkdir(exist_ok=True)

    def start(self) -> bool:
        """Start it, and its server for this user; tell whether that one came up, and stays."""
        # Its output is not captured: the daemon would keep the pipe open.
        if self._run("-d", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            return False
        self.tell(f"start_server -uid {os.getuid()}")
        until, before = time.monotonic() + START_S, ""
        while time.monotonic() < until:
            found = self.tell("get_server_list")
            if found and found == before:
                return True
            before = found
            time.sleep(LOOK_S)
        return False

    def tell(self, command: str) -> str:
        return self._run(input=f"{command}\n", text=True, capture_output=True).stdout.strip()

    def stop(self) -> None:
        """End it; who still uses it is not waited for any longer than this."""
        self.tell("quit -t 20")

    def _run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        assert CONTROL
        env = {**os.environ, **self._variables}
        return subprocess.run([CONTROL, *words], env=env, timeout=60, **more)


def starts() -> bool:
    """Tell whether it can be started here: some sandboxes have its programs, and not what they need."""
    if CONTROL is None:
        return False
    folder = Path(tempfile.mkdtemp(prefix="fngw-mps-"))
    daemon = Mps(folder)
    try:
        return daemon.start()
    finally:
        daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)
