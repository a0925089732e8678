"""A real nginx in front of a scripted replica, on Unix sockets: the reference for what a proxy does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["REPLICA", "SERVER", "reference"]

#: In the directory that it is given: where nginx looks for the replica, and where it serves.
REPLICA, SERVER = "r0.sock", "nginx.sock"

CONFIG = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; scgi_temp_path {directory}/scgi; uwsgi_temp_path {directory}/uwsgi;
  client_max_body_size 1000000; client_body_buffer_size 256k; lingering_timeout 100ms;
  upstream replica {{ server unix:{directory}/{replica}; keepalive 4; }}
  server {{
    server_name t; listen unix:{directory}/{server};
    location / {{ return 404; }}
    location /f {{
      proxy_pass http://replica; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_read_timeout 500ms;
    }}
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
    config.write_text(CONFIG.format(directory=directory, replica=REPLICA, server=SERVER))
    command = [binary, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _listens(process, directory / SERVER)
        yield directory
    finally:
        process.terminate()
        process.communicate(timeout=10)
        shutil.rmtree(directory, ignore_errors=True)


def _listens(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.is_socket():
        assert process.poll() is None, f"nginx ended: {process.communicate()[1].decode()}"
        assert time.monotonic() < deadline, "nginx does not listen"
        time.sleep(0.01)
