"""A real nginx in front of a scripted replica, on Unix sockets: the reference for what a proxy does."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["IMPATIENT", "REPLICA", "SERVER", "reference"]

#: In the directory that it is given: where nginx looks for the replica, and where it serves; the second one gives
#: replicas little time.
REPLICA, SERVER, IMPATIENT = "r0.sock", "nginx.sock", "impatient.sock"

CONFIG = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; scgi_temp_path {directory}/scgi; uwsgi_temp_path {directory}/uwsgi;
  client_max_body_size 1000000; client_body_buffer_size 256k; lingering_timeout 100ms;
  upstream replica {{ server unix:{directory}/{replica}; keepalive 4; }}
  {server}
  {impatient}
}}
"""
SERVER_CONFIG = """
  server {{
    server_name t; listen unix:{path};
    location / {{ return 404; }}
    location /f {{
      proxy_pass http://replica; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_read_timeout {patience};
    }}
  }}
"""


@contextlib.contextmanager
def reference() -> Iterator[Path]:
    """Run nginx; yields the directory of both sockets."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert binary, "these tests need nginx: run `scripts/engine.sh install`"
    directory = Path(tempfile.mkdtemp(prefix="ngx-"))
    config = directory / "nginx.conf"
    server = SERVER_CONFIG.format(path=directory / SERVER, patience="60s")
    impatient = SERVER_CONFIG.format(path=directory / IMPATIENT, patience="1500ms")
    config.write_text(CONFIG.format(directory=directory, replica=REPLICA, server=server, impatient=impatient))
    command = [binary, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _listens(process, directory / SERVER)
        _listens(process, directory / IMPATIENT)
        yield directory
    finally:
        process.terminate()
        process.communicate(timeout=60)
        shutil.rmtree(directory, ignore_errors=True)


def _listens(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + 60
    while not _answers(path):
        assert process.poll() is None, f"nginx ended: {process.communicate()[1].decode()}"
        assert time.monotonic() < deadline, "nginx does not listen"
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    """Whether somebody listens: the socket's file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False
