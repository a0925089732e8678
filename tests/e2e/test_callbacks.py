"""Callbacks of a whole fngw: signed as the documentation says, looked at and sent again by the command line."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import fngw

@fngw.deployment
def answer(request):
    return "yes"
"""


class Hook(BaseHTTPRequestHandler):
    """Answers 410, which is not taken as received, until ``open`` is set."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        server.got.append((self.headers["fngw-signature"], body))
        self.send_response(204 if server.open.is_set() else 410)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.open = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def documented_check() -> Callable[[str, bytes, str], bool]:
    """The function that docs/calls.md gives to receivers."""
    page = (ROOT / "docs" / "calls.md").read_text()
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    check: Callable[[str, bytes, str], bool] = found["is_genuine"]
    return check


def test_a_callback_is_signed_and_can_be_followed(installation: Any, project: Any, hook: Any, wait: Any) -> None:
    installation.env["FNGW_CALLBACK_ALLOW"] = "127.0.0.1"
    stack = installation.up()
    app = project(stack)
    app.write(CODE.replace("def answer", "def App"))
    app.deployed()
    url = f"http://127.0.0.1:{hook.server_port}/hook"
    with stack.http as http:
        headers = {"prefer": "respond-async", "fngw-callback-url": url}
        call_id = http.post(f"/{app.name}", headers=headers).json()["id"]
        wait(lambda: hook.got, "the first try")
        told = rf"tells {re.escape(url)} \({call_id}-cb1\): delayed, attempt [1-8] of 9: answered 410"
        wait(lambda: re.search(told, stack.fngw("calls", "get", call_id).stdout), "a word of it")
        hook.open.set()
        # The pauses between the tries double each time: 64 s before the eighth.
        wait(lambda: ": finished, attempt" in stack.fngw("calls", "get", call_id).stdout, "its arrival", 200)
    signature, body = hook.got[-1]
    secret = (stack.data_dir / "callback-secret").read_text().strip()
    is_genuine = documented_check()
    assert is_genuine(signature, body, secret)
    assert not is_genuine(signature, body + b" ", secret)
    again = stack.fngw("calls", "retry", f"{call_id}-cb1", check=False)
    assert (again.returncode, "is finished: only a failed call" in again.stderr) == (1, True)
