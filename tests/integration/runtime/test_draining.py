"""The end of a drain: what has not finished is cut off, and nobody is told that it was answered."""

from __future__ import annotations

import subprocess

import pytest

from fngw import protocol

from .replica_process import eventually

PREFIX = f"{protocol.ROOT_PATH_HEADER}: /tested"
CALL = b"".join(protocol.encode_frame(((), {})))


def ask(replica, first, *lines, body=b""):
    """Send a request on a connection of its own."""
    connection = replica.connect()
    head = [f"{first} HTTP/1.1", "host: r", f"content-length: {len(body)}", *lines]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return connection


def rest(connection):
    """All that comes until the connection ends."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def worker(start, folder):
    return start("functions:Worker", is_class=True, init=((str(folder),), {}), graceful_shutdown_timeout_s=0.3)


def end(replica):
    replica.terminate()
    assert replica.wait() == 0
    assert "requests unfinished: 1" in replica.text()


@pytest.mark.parametrize("way", ["http", "waiting", "blocking"])
def test_a_request_that_outlasts_the_drain_is_not_answered(worker, folder, way):
    if way == "http":
        connection = ask(worker, "POST /tested", PREFIX, "x-request-id: id-3", body=b"x")
    else:
        connection = ask(worker, f"POST /-/call/{way}", "x-request-id: id-3", body=CALL)
    eventually(lambda: list(folder.glob("begun-*")), "the request is under way")
    end(worker)
    assert rest(connection) == b""
    assert (folder / "deleted").exists()
    assert (folder / "cleaned-up").exists() == (way != "blocking")
    assert "fngw: cut off, as the drain is over [" in worker.text() and "request id-3]" in worker.text()


def test_a_page_that_outlasts_the_drain_is_not_answered(start, folder):
    site = start("site_app:Site", is_class=True, env={"TEST_FOLDER": str(folder)}, graceful_shutdown_timeout_s=0.3)
    connection = ask(site, "GET /tested/stuck", PREFIX)
    eventually((folder / "begun-stuck").exists, "the request is under way")
    end(site)
    assert rest(connection) == b""
    assert "cut off, as the drain is over [request -]" in site.text() and "in stuck" in site.text()
    assert (folder / "shut-down").exists()


@pytest.mark.parametrize("kind", ["SyncStream", "AsyncStream"])
def test_a_stream_that_outlasts_the_drain_is_not_completed(start, folder, kind):
    replica = start("functions:" + kind, is_class=True, init=((str(folder),), {}), graceful_shutdown_timeout_s=0.3)
    connection = ask(replica, "GET /tested?endless=1", PREFIX)
    begun = connection.recv(4096)
    assert b" 200 " in begun
    replica.terminate()
    received = begun + rest(connection)
    assert not received.endswith(b"0\r\n\r\n")
    assert replica.wait() == 0
    assert (folder / "closed").exists()


def test_an_answer_may_be_read_slowly_while_it_drains(start):
    """Larger than all buffers, so that most of it waits in the replica."""
    replica = start("functions:large")
    connection = ask(replica, "GET /tested", PREFIX)
    begun = connection.recv(4096)
    replica.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        replica.wait(2.5)  # longer than it takes to leave once nothing is under way
    received = begun + rest(connection)
    assert len(received.partition(b"\r\n\r\n")[2]) == 50_000_000
    assert replica.wait() == 0
