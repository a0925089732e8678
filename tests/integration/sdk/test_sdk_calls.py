"""Handles and refs, against a fake gateway over real sockets."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

import fngw
from fngw.handles import DeploymentHandle

from .fake_gateway import FakeGateway


class Gate:
    """Calls of ``hold`` wait in the gateway until the test opens it."""

    def __init__(self) -> None:
        self.entered = 0
        self.opened = threading.Event()

    async def hold(self, value: Any = None) -> Any:
        self.entered += 1
        await asyncio.to_thread(self.opened.wait, 60)
        return value


@pytest.fixture
def gate(gateway: FakeGateway) -> Iterator[Gate]:
    gate = Gate()
    gateway.methods["d.hold"] = gate.hold
    yield gate
    gate.opened.set()


@pytest.fixture
def handle(gateway: FakeGateway) -> DeploymentHandle:
    def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def fail(message: str) -> None:
        raise LookupError(message)

    def write(array: np.ndarray) -> np.ndarray:
        return array + 1

    gateway.methods.update({"d.__call__": lambda x: x * 2, "d.echo": echo, "d.fail": fail, "d.write": write})
    return DeploymentHandle("d")


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_results(handle: DeploymentHandle) -> None:
    assert handle.remote(2).result() == 4
    assert handle.echo.remote(1, a=2).result(timeout=60) == ((1,), {"a": 2})
    assert handle.options(method_name="echo").remote().result() == ((), {})
    ref = handle.remote(3)
    assert [ref.result(), ref.result()] == [6, 6]
    assert ref.done()
    assert "Ref of d, done" in repr(ref)


def test_get(handle: DeploymentHandle) -> None:
    assert fngw.get(handle.remote(1)) == 2
    assert fngw.get([handle.remote(i) for i in range(3)], timeout=60) == [0, 2, 4]
    assert fngw.get([]) == []
    for wrong in (3, [3]):
        with pytest.raises(TypeError, match="Ref"):
            fngw.get(wrong)  # type: ignore[call-overload]


def test_arrays_go_out_of_band_and_come_back_writable(handle: DeploymentHandle) -> None:
    array = np.zeros(1_000_000)
    ref = handle.write.remote(array)
    array[:] = 7  # after the call began: not what is sent
    result = ref.result()
    assert result.sum() == 1_000_000
    result[0] = 5
    assert handle.options(pickle_protocol=4).write.remote(np.zeros(3)).result().tolist() == [1, 1, 1]


def test_errors_in_user_code(handle: DeploymentHandle) -> None:
    ref = handle.fail.remote("no such thing")
    for _ in range(2):
        with pytest.raises(fngw.RemoteError, match=r"d\.fail raised LookupError: no such thing") as caught:
            ref.result()
    assert "in fail\n" in str(caught.value)
    assert isinstance(caught.value.cause, LookupError)
    assert caught.value.code == "user_exception"


def test_the_cause_is_the_innermost(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    def outer() -> None:
        error = fngw.RemoteError("inner failed")
        error.cause_bytes = pickle.dumps(KeyError("x"))  # type: ignore[attr-defined]
        raise error

    gateway.methods["d.outer"] = outer
    with pytest.raises(fngw.RemoteError) as caught:
        handle.outer.remote().result()
    assert isinstance(caught.value.cause, KeyError)


def test_a_cause_that_cannot_be_loaded(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    def strange() -> None:
        error = ValueError("strange")
        error.cause_bytes = b"cnot_a_module\nX\n."  # type: ignore[attr-defined]
        raise error

    gateway.methods["d.strange"] = strange
    with pytest.raises(fngw.RemoteError, match="strange") as caught:
        handle.strange.remote().result()
    assert caught.value.cause is None


def test_the_runtimes_own_errors_keep_their_words(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    def unknown() -> None:
        raise fngw.ValidationError("d has no method 'x'; it has: echo, fail", code="unknown_method")

    gateway.methods["d.x"] = unknown
    with pytest.raises(fngw.RemoteError, match=r"^d has no method 'x'; it has: echo, fail") as caught:
        handle.x.remote().result()
    assert caught.value.code == "unknown_method"


def test_the_gateways_errors(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    with pytest.raises(fngw.DeploymentNotFound):
        DeploymentHandle("gone").remote().result()
    with pytest.raises(fngw.Overloaded):
        DeploymentHandle("full").remote().result()
    gateway.token = "other"
    with pytest.raises(fngw.Unauthorized):
        handle.remote(1).result()


def test_a_result_that_cannot_be_loaded(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    class Breaks:
        def __reduce__(self) -> Any:
            return (int, ("no number",))

    gateway.methods["d.odd"] = Breaks
    with pytest.raises(fngw.FngwError, match=r"cannot be loaded here: ValueError") as caught:
        handle.odd.remote().result()
    assert caught.value.code == "result_not_loadable"


def test_what_cannot_be_pickled_is_told_at_once(handle: DeploymentHandle) -> None:
    with pytest.raises(TypeError, match="lock"):
        handle.remote(threading.Lock())


def test_timeout_leaves_the_call_running(handle: DeploymentHandle, gate: Gate) -> None:
    ref = handle.hold.remote(1)
    with pytest.raises(TimeoutError, match=r"d\.hold"):
        ref.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        fngw.get([ref], timeout=0.01)
    gate.opened.set()
    assert ref.result() == 1


async def test_await(handle: DeploymentHandle) -> None:
    assert await handle.remote(2) == 4
    assert await asyncio.gather(*[handle.remote(i) for i in range(5)]) == [0, 2, 4, 6, 8]
    with pytest.raises(fngw.RemoteError):
        await handle.fail.remote("x")


def test_one_ref_in_several_loops_and_threads(handle: DeploymentHandle, gate: Gate) -> None:
    ref = handle.hold.remote("x")

    async def wait() -> Any:
        return await ref

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(asyncio.run, wait()), pool.submit(ref.result), pool.submit(asyncio.run, wait())]
        gate.opened.set()
        assert [w.result(60) for w in waiting] == ["x"] * 3


async def test_cancelling_an_await_cancels_the_call(
    gateway: FakeGateway, handle: DeploymentHandle, gate: Gate
) -> None:
    ref = handle.hold.remote()

    async def wait() -> Any:
        return await ref

    waiting = asyncio.create_task(wait())
    await asyncio.to_thread(eventually, lambda: gate.entered == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(gateway.cancelled.wait, 60)


def test_cancel(gateway: FakeGateway, handle: DeploymentHandle, gate: Gate) -> None:
    ref = handle.hold.remote()
    eventually(lambda: gate.entered == 1)
    assert ref.cancel()
    assert gateway.cancelled.wait(60)


def test_refs_as_arguments(handle: DeploymentHandle, gate: Gate) -> None:
    slow = handle.hold.remote(20)
    outer = handle.remote(slow)
    nested = handle.echo.remote([slow, {"k": handle.remote(1)}], key=slow)
    assert not outer.done()
    gate.opened.set()
    assert outer.result() == 40
    assert nested.result() == (([20, {"k": 2}],), {"key": 20})
    assert handle.remote(slow).result() == 40


def test_a_failed_ref_as_an_argument(handle: DeploymentHandle) -> None:
    with pytest.raises(fngw.RemoteError, match="first"):
        handle.remote(handle.fail.remote("first")).result()


def test_many_at_once_then_on_kept_connections(handle: DeploymentHandle, gate: Gate) -> None:
    held = [handle.hold.remote(i) for i in range(200)]
    eventually(lambda: gate.entered == 200)
    gate.opened.set()
    assert fngw.get(held, timeout=60) == list(range(200))
    assert fngw.get([handle.remote(i) for i in range(50)]) == [2 * i for i in range(50)]


def test_threads(handle: DeploymentHandle) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: handle.remote(i).result(), range(64))) == [2 * i for i in range(64)]


def _in_child(handle: DeploymentHandle, results: Any) -> None:
    results.put((os.getpid(), handle.remote(21).result(timeout=60)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child(handle: DeploymentHandle) -> None:
    assert handle.remote(1).result() == 2  # the parent's loop runs
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_child, args=(handle, results))
    child.start()
    assert results.get(timeout=60) == (child.pid, 42)
    child.join(60)
    assert child.exitcode == 0
    assert handle.remote(1).result() == 2
    results.close()
    results.join_thread()
    child.close()


def test_a_pickled_handle_in_another_process(handle: DeploymentHandle) -> None:
    code = f"import pickle; h = pickle.loads({pickle.dumps(handle)!r}); h.remote(1); print(h.remote(21).result())"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("42", "")  # and it ends without a word


def test_over_the_unix_socket(
    gateway: FakeGateway, handle: DeploymentHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FNGW_GATEWAY_SOCKET", gateway.socket)
    monkeypatch.setenv("FNGW_URL", "http://127.0.0.1:9")
    assert fngw.get([handle.remote(i) for i in range(30)]) == [2 * i for i in range(30)]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_URL", "http://127.0.0.1:9")
    with pytest.raises(fngw.Unreachable, match=r"http://127\.0\.0\.1:9.*\n.*fngw up"):
        DeploymentHandle("d").remote().result()


def _request(body: bytes, more: Any = None) -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/a",
        "raw_path": b"/a",
        "query_string": b"x=1",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "server": ("h", 80),
        "scheme": "http",
        "http_version": "1.1",
        "app": more,
    }
    return Request(scope, receive)


def _pickled(request: Request) -> Any:
    async def read() -> Any:
        return request.method, request.url.path, request.query_params["x"], await request.json()

    return read()


async def test_a_starlette_request_travels_with_its_body(gateway: FakeGateway, handle: DeploymentHandle) -> None:
    gateway.methods["d.req"] = _pickled
    request = _request(b'{"a": 1}', more=threading.Lock())
    assert await handle.req.remote(request) == ("POST", "/a", "1", {"a": 1})
    assert await handle.req.remote(request=request) == ("POST", "/a", "1", {"a": 1})


def test_a_request_that_cannot_be_read_here(handle: DeploymentHandle) -> None:
    with pytest.raises(fngw.ValidationError) as caught:
        handle.remote(_request(b""))
    assert caught.value.code == "request_unread"
    with pytest.raises(fngw.ValidationError, match="inside"):
        handle.remote([_request(b"")])
