"""Constant load on one deployment, as a process of its own, until its standard input ends.

Six kinds of callers at once: HTTP on a kept connection, on fresh ones, a handle, 1 MiB up, 1 MiB down, a streamed
answer. Prints one JSON object: for each kind how many answers came, which versions gave them, and what went wrong.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

import fngw

PAUSE_S = 0.04
MIB = b"x" * 2**20


class Caller(threading.Thread):
    """Repeats one kind of call and keeps book of it."""

    def __init__(self, kind: str, call: Callable[[], str], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.kind = kind
        self._call = call
        self._stop_event = stop
        self.book: dict[str, Any] = {"ok": 0, "versions": {}, "errors": [], "slowest_s": 0.0}

    def run(self) -> None:
        last = False
        while not last:
            # The last call begins after the end was told: it meets all that was done before.
            last = self._stop_event.is_set()
            began = time.monotonic()
            try:
                version = self._call()
            except Exception as error:
                if len(self.book["errors"]) < 50:
                    self.book["errors"].append(f"{time.time():.3f} {type(error).__name__}: {error}"[:300])
            else:
                self.book["ok"] += 1
                self.book["versions"][version] = self.book["versions"].get(version, 0) + 1
            self.book["slowest_s"] = max(self.book["slowest_s"], time.monotonic() - began)
            self._stop_event.wait(PAUSE_S)


def callers(url: str, name: str, stop: threading.Event) -> list[Caller]:
    kept, big = httpx.Client(timeout=60), httpx.Client(timeout=60)
    handle = fngw.get_deployment(name).get_handle()

    def checked(answer: httpx.Response) -> httpx.Response:
        if answer.status_code != 200:
            raise AssertionError(f"status {answer.status_code}: {answer.text[:200]}")
        return answer

    def keep_alive() -> str:
        return checked(kept.get(f"{url}/{name}")).json()["version"]

    def fresh() -> str:
        return checked(httpx.get(f"{url}/{name}", timeout=60)).json()["version"]

    def by_handle() -> str:
        answer = handle.tell.remote(7).result(timeout=60)
        assert answer["argument"] == 7
        return answer["version"]

    def up() -> str:
        answer = checked(big.post(f"{url}/{name}", content=MIB)).json()
        assert answer["sha256"] == hashlib.sha256(MIB).hexdigest()
        return answer["version"]

    def down() -> str:
        answer = checked(kept_down.get(f"{url}/{name}?size={len(MIB)}"))
        assert len(answer.content) == len(MIB)
        return answer.headers["app-version"]

    def streamed() -> str:
        lines = checked(kept_stream.get(f"{url}/{name}?stream=10")).text.split()
        assert len(lines) == 10 and len(set(lines)) == 1, lines
        return lines[0]

    kept_down, kept_stream = httpx.Client(timeout=60), httpx.Client(timeout=60)
    kinds = {"keep-alive": keep_alive, "fresh": fresh, "handle": by_handle}
    kinds |= {"1 MiB up": up, "1 MiB down": down, "stream": streamed}
    return [Caller(kind, call, stop) for kind, call in kinds.items()]


def main() -> None:
    url, name = sys.argv[1:]
    stop = threading.Event()
    threads = callers(url, name, stop)
    for thread in threads:
        thread.start()
    while not all(t.book["ok"] or t.book["errors"] for t in threads):
        time.sleep(0.01)
    print("going", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
    print(json.dumps({t.kind: t.book for t in threads}), flush=True)


main()
