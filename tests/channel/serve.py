"""Serve a folder over HTTP on loopback, count what is asked for, and misbehave when told to.

The folder is the one that make.py fills (a conda channel, a package index), but any will do. A `FaultyServer`
fails, delays, cuts or spoils answers whose path matches a pattern, so that a test sees what a client makes of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CHUNK = 64 * 1024
_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json"}
_FOREVER = 1 << 30


@dataclass
class Fault:
    """What is wrong with the answers to matching paths, for as many requests as `left` says."""

    pattern: str
    left: int
    status: int = 200
    delay: float = 0.0
    cut_after: int | None = None
    corrupt: bool = False
    bytes_per_s: int | None = None


class FaultyServer:
    """A folder on `http://127.0.0.1:<port>`, with counted requests and faults on demand.

    Patterns are those of `fnmatch`, against the path without its leading slash: `*.conda`, `simple/*`.
    Faults are tried in the order in which they were added; one that is used up no longer applies.

    Args:
        root: the folder to serve; it may change while it is served.

    Example:
        >>> with FaultyServer(folder) as server:                       # doctest: +SKIP
        ...     server.fail("conda/linux-64/*.conda", times=2)
        ...     install_from(server.conda_url)
        ...     assert server.count("conda/linux-64/*.conda") == 3
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._faults: list[Fault] = []
        self._asked: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The root's URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def conda_url(self) -> str:
        """The conda channel's URL, where make.py's tree is served."""
        return f"{self.url}/conda"

    @property
    def index_url(self) -> str:
        """The package index's URL, where make.py's tree is served."""
        return f"{self.url}/simple"

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # What a test looks at.

    def count(self, pattern: str = "*") -> int:
        """How many requests (GET and HEAD) asked for a path like `pattern`, failed ones included."""
        with self._changed:
            return _total(self._asked, pattern)

    def sent(self, pattern: str = "*") -> int:
        """How many bytes of bodies were sent for paths like `pattern`: at least what clients have read."""
        with self._changed:
            return _total(self._sent, pattern)

    def requests(self) -> dict[str, int]:
        """Every path that was asked for, and how often."""
        with self._changed:
            return dict(self._asked)

    def forget(self) -> None:
        """Count from zero again; faults stay."""
        with self._changed:
            self._asked.clear()
            self._sent.clear()

    def wait_sent(self, pattern: str, size: int = 1, timeout: float = 60.0) -> None:
        """Block until `size` bytes were sent for paths like `pattern`: to kill a client in mid-download.

        Raises:
            TimeoutError: they did not within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: _total(self._sent, pattern) >= size, timeout):
                raise TimeoutError(
                    f"{_total(self._sent, pattern)} of {size} bytes of {pattern} were sent in {timeout} s"
                )

    # What a test makes go wrong.

    def fail(self, pattern: str = "*", *, status: int = 503, times: int = _FOREVER) -> None:
        """Answer `status` with a short body, the next `times` times."""
        self._add(Fault(pattern, times, status=status))

    def delay(self, pattern: str = "*", *, seconds: float, times: int = _FOREVER) -> None:
        """Wait `seconds` before the answer's first byte; the server's end interrupts the wait."""
        self._add(Fault(pattern, times, delay=seconds))

    def throttle(self, pattern: str = "*", *, bytes_per_s: int, times: int = _FOREVER) -> None:
        """Send bodies at about this rate."""
        self._add(Fault(pattern, times, bytes_per_s=bytes_per_s))

    def cut(self, pattern: str = "*", *, after: int, times: int = _FOREVER) -> None:
        """Promise the whole body, send its first `after` bytes and close the connection."""
        self._add(Fault(pattern, times, cut_after=after))

    def corrupt(self, pattern: str = "*", *, times: int = _FOREVER) -> None:
        """Send a body of the right length with one byte in its middle changed: its hash is wrong."""
        self._add(Fault(pattern, times, corrupt=True))

    def heal(self) -> None:
        """Behave again."""
        with self._changed:
            self._faults.clear()

    def _add(self, fault: Fault) -> None:
        with self._changed:
            self._faults.append(fault)

    # What the request handler calls.

    def _take(self, path: str) -> Fault:
        """Count a request, and use up the first fault that is meant for it."""
        with self._changed:
            self._asked[path] += 1
            for fault in self._faults:
                if fault.left > 0 and fnmatchcase(path, fault.pattern):
                    fault.left -= 1
                    return fault
        return Fault(path, 0)

    def _count_sent(self, path: str, size: int) -> None:
        with self._changed:
            self._sent[path] += size
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a throttled answer nobody reads must not hold up the end of a test

    def __init__(self, owner: FaultyServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed in the middle of a download are what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        fault = self.server.owner._take(path)
        self.server.owner._pause(fault.delay)
        if fault.status != 200:
            self._reply(fault.status, b"told to fail\n", ".txt", with_body)
            return
        file = _file_of(self.server.owner.root, path)
        if file is None:
            self._reply(404, b"not found\n", ".txt", with_body)
        else:
            self._send(file, path, fault, with_body)

    def _send(self, file: Path, path: str, fault: Fault, with_body: bool) -> None:
        body = file.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._reply(304, b"", file.suffix, with_body=False, tag=tag)
            return
        start = _range_start(self.headers.get("Range"), len(body))
        if fault.corrupt and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        self._head(206 if start else 200, file.suffix, len(body) - start, tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if with_body:
            self._stream(body[start:], path, fault)

    def _stream(self, body: bytes, path: str, fault: Fault) -> None:
        for piece in _pieces(body[: fault.cut_after], fault.bytes_per_s):
            # Counted first: a client that has read a piece must find it counted.
            self.server.owner._count_sent(path, len(piece))
            self.wfile.write(piece)
            self.wfile.flush()
            if fault.bytes_per_s:
                self.server.owner._pause(len(piece) / fault.bytes_per_s)
        if fault.cut_after is not None:
            self.close_connection = True

    def _reply(self, status: int, body: bytes, suffix: str, with_body: bool, tag: str = "") -> None:
        self._head(status, suffix, len(body), tag)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _head(self, status: int, suffix: str, size: int, tag: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(size))
        self.send_header("Accept-Ranges", "bytes")
        if tag:
            self.send_header("ETag", tag)


def _file_of(root: Path, path: str) -> Path | None:
    file = (root / path).resolve()
    if not file.is_relative_to(root.resolve()):
        return None
    if file.is_dir():
        file = file / "index.html"
    return file if file.is_file() else None


def _range_start(header: str | None, size: int) -> int:
    """Where `bytes=N-` starts; other ranges are answered with the whole file, as HTTP allows (RFC 9110, 14.2)."""
    if header and header.startswith("bytes=") and header.endswith("-") and header[6:-1].isdigit():
        start = int(header[6:-1])
        return start if start < size else 0
    return 0


def _pieces(body: bytes, bytes_per_s: int | None) -> Iterator[bytes]:
    size = _CHUNK if bytes_per_s is None else max(1, min(_CHUNK, bytes_per_s // 20))
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _total(counts: Counter[str], pattern: str) -> int:
    return sum(n for path, n in counts.items() if fnmatchcase(path, pattern))
