"""The health check of containers, against a real server on a Unix socket."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "s"
    with UnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def check(path: Path, target: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "fngw_state.health", str(path), target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert not done.stderr
    return done.returncode, done.stdout


def test_only_a_200_is_well(server: Path) -> None:
    assert check(server, "/well") == (0, f"{server}: 200\n")
    assert check(server, "/ill") == (1, f"{server}: 503\n")


def test_nobody_there_is_not_well(tmp_path: Path) -> None:
    code, text = check(tmp_path / "none", "/well")
    assert code == 1
    assert "No such file" in text
