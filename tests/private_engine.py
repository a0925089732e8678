"""A Docker engine of one test's own, in a network namespace of its own, beside the usual one."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class PrivateEngine:
    """A dockerd that no other test uses.

    Args:
        wait: ``wait(condition, what)``, from the caller's fixtures.
        environ: the daemon's environment variables; None: this process's own.
    """

    def __init__(self, wait: Callable[..., Any], environ: Mapping[str, str] | None = None) -> None:
        self._wait = wait
        self._environ = environ
        self.folder = Path(tempfile.mkdtemp(prefix="fngw-dockerd-"))
        self.url = f"unix://{self.folder}/d.sock"
        self._namespace = f"fngw-{secrets.token_hex(3)}"
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        subprocess.run(["ip", "-n", self._namespace, "link", "set", "lo", "up"], check=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        options += [f"--pidfile={self.folder}/pid", f"--host={self.url}", "--bridge=none", "--iptables=false"]
        log = (self.folder / "log").open("a")
        # Not `ip netns exec`: it mounts /sys anew, and hides the control groups.
        command = ["nsenter", f"--net=/run/netns/{self._namespace}", "dockerd", *options]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environ)
        log.close()
        self._wait(self._answers, "a private Docker engine")

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return self.docker("version").returncode == 0

    def docker(self, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", self.url, *words], capture_output=True, **more)

    def stop(self) -> None:
        """As an upgrade of the engine does: containers die with it."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(timeout=180) is not None

    def load(self, *images: str) -> None:
        """Copy images from the usual engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            self.docker("load", stdin=save.stdout, check=True)
        assert save.returncode == 0

    @property
    def killed(self) -> bool:
        """Whether it runs no more."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """As a crash of the engine does."""
        assert self._process is not None
        noted = self.folder / "exec/containerd/containerd.pid"
        containerd = Path("/proc") / noted.read_text().strip() / "exe" if noted.exists() else None
        self._process.kill()
        self._process.wait()
        # Its containerd dies with it, a moment later, and would not be started again as long as it seems to run.
        if containerd is not None:
            self._wait(lambda: not _runs(containerd), "the end of its containerd")
        for stale in (self.folder / "pid", noted):
            stale.unlink(missing_ok=True)

    def remove(self) -> None:
        if self._process is not None:
            if self.killed:
                self.start()  # it ends the containers that it left running
            self.stop()
        subprocess.run(["ip", "netns", "delete", self._namespace], check=True)
        for mount in self._mounts():  # of layers that a killed engine was unpacking
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self.folder)

    def _mounts(self) -> list[str]:
        """What is mounted below its folder, the innermost first."""
        points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return sorted((p for p in points if p.startswith(f"{self.folder}/")), reverse=True)


def _runs(exe: Path) -> bool:
    """Whether a process is there that is no zombie: those have no program any more."""
    try:
        return bool(exe.readlink())
    except OSError:
        return False
