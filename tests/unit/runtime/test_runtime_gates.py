"""Admission, reconfiguration's pause, the inbox, and where the prefix goes."""

from __future__ import annotations

import asyncio

import pytest

from fngw_runtime import root_path
from fngw_runtime.admission import Admission
from fngw_runtime.failures import Failures
from fngw_runtime.inbox import READ_AHEAD, Inbox

FAILURES = Failures("tested", debug=False)


async def turns(times: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit():
    admission = Admission(2)
    assert [admission.admit() for _ in range(3)] == [True, True, False]
    admission.end(begun=False)
    assert admission.admit()


async def test_a_pause_waits_for_the_running_and_holds_the_new():
    admission, log = Admission(10), []

    async def request(name: str, end: asyncio.Event) -> None:
        assert admission.admit()
        await admission.begin()
        log.append(f"{name} begins")
        await end.wait()
        log.append(f"{name} ends")
        admission.end(begun=True)

    async def reconfigure() -> None:
        async with admission.paused():
            log.append("applied")

    end = asyncio.Event()
    first = asyncio.create_task(request("first", end))
    await turns()
    change = asyncio.create_task(reconfigure())
    await turns()
    second = asyncio.create_task(request("second", end))
    await turns()
    end.set()
    await asyncio.gather(first, change, second)
    assert log == ["first begins", "first ends", "applied", "second begins", "second ends"]
    assert admission.admitted.value == admission.running.value == 0


async def test_waiting_for_nothing_in_flight_ends_in_time():
    admission = Admission(1)
    admission.admit()
    await admission.admitted.wait(0.001)
    assert admission.admitted.value == 1
    admission.end(begun=False)
    await admission.admitted.zero()


@pytest.mark.parametrize("between", range(4))
async def test_a_cancellation_that_comes_with_the_end_is_not_lost(between):
    admission = Admission(1)
    admission.admit()
    waiting = asyncio.create_task(admission.admitted.wait(60))
    await turns()
    admission.end(begun=False)
    await turns(between)
    cancelled = waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() == cancelled


class Client:
    """An ASGI ``receive`` that tells how often it was asked."""

    def __init__(self, *messages):
        self.queue: asyncio.Queue = asyncio.Queue()
        self.asked = 0
        for message in messages:
            self.queue.put_nowait(message)

    async def receive(self):
        self.asked += 1
        return await self.queue.get()

    def leave(self):
        self.queue.put_nowait({"type": "http.disconnect"})


def body(data: bytes, more: bool = True):
    return {"type": "http.request", "body": data, "more_body": more}


async def test_an_unwatched_inbox_asks_nothing_by_itself():
    client = Client(body(b"a"))
    with Inbox(client.receive, FAILURES) as inbox:
        await turns()
        assert client.asked == 0
        assert (await inbox.receive())["body"] == b"a"


async def test_a_client_that_leaves_cancels():
    client, reached = Client(body(b"a", more=False)), []
    with Inbox(client.receive, FAILURES) as inbox:
        inbox.watch()
        await turns()
        client.leave()
        await asyncio.Event().wait()
        reached.append("never")
    assert not reached
    assert inbox.gone
    await turns()  # and the task is not cancelled any more


async def test_a_released_inbox_cancels_nothing():
    client = Client()
    with Inbox(client.receive, FAILURES) as inbox:
        inbox.watch()
        inbox.release()
        client.leave()
        await turns()
        assert inbox.gone
        assert [(await inbox.receive())["type"] for _ in range(2)] == ["http.disconnect"] * 2


async def test_other_cancellation_goes_on():
    client = Client()

    async def run():
        with Inbox(client.receive, FAILURES) as inbox:
            inbox.watch()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_reading_ahead_is_limited():
    chunk = b"x" * (READ_AHEAD // 2)
    client = Client(*[body(chunk) for _ in range(6)])
    with Inbox(client.receive, FAILURES) as inbox:
        inbox.watch()
        await turns(20)
        assert client.asked == 2
        total = 0
        for _ in range(6):
            total += len((await inbox.receive())["body"])
            await turns()
        assert total == 3 * READ_AHEAD


def scope(path: str, prefix: bytes | None):
    headers = [(b"host", b"h"), (b"x", b"1")]
    if prefix is not None:
        headers.insert(1, (b"fngw-root-path", prefix))
    return {"type": "http", "path": path, "root_path": "", "headers": headers}


def test_the_prefix_moves_from_the_header_to_the_scope():
    taken = scope("/api/x", b"/api")
    assert root_path.has_prefix(taken)
    root_path.take(taken)
    assert (taken["path"], taken["root_path"]) == ("/api/x", "/api")
    assert taken["headers"] == [(b"host", b"h"), (b"x", b"1")]
    assert not root_path.has_prefix(taken)
    root_path.strip(taken)
    assert taken["path"] == "/x"


@pytest.mark.parametrize(("header", "prefix"), [(b"", ""), ("/é".encode(), "/é"), (b"/%C3%A9", "/é")])
def test_prefixes_that_are_empty_or_not_ascii(header, prefix):
    taken = scope("/x", header)
    root_path.take(taken)
    assert taken["root_path"] == prefix


def test_which_apps_take_the_whole_path():
    from starlette.applications import Starlette

    class Middleware:
        def __init__(self, app):
            self.app = app

    assert root_path.app_wants_whole_path(Middleware(object()))
    here = root_path.starlette_wants_whole_path()
    assert root_path.app_wants_whole_path(Middleware(Starlette())) == here
