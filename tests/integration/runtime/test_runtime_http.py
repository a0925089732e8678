"""HTTP to a real replica: what functions are given, and what is made of what they return."""

from __future__ import annotations

import json
import threading

import pytest

from fngw import protocol

from .replica_process import APPS, eventually


def test_a_function_without_parameters_answers(start):
    replica = start("functions:hello")
    answer = replica.get()
    assert (answer.status_code, answer.text) == (200, "hello")
    assert dict(answer.headers) == {"content-type": "text/plain; charset=utf-8", "content-length": "5"}
    assert replica.client.get(protocol.READY_PATH).json() == {"pid": replica.process.pid, "config_number": 7}
    assert replica.client.get(protocol.HEALTH_PATH).status_code == 200
    assert replica.client.get("/-/nothing").status_code == 404
    assert replica.socket.stat().st_mode & 0o777 == 0o777


def test_a_deployment_object_is_unwrapped(start):
    assert start("functions:wrapped").get().text == "hello"


def test_a_request_tells_the_whole_path_and_the_prefix(start):
    replica = start("functions:echo", shared_dir="/run/shared")
    said = replica.request("POST", "/tested/a/b?x=1", content=b"body", headers={"x-request-id": "id-1"}).json()
    assert said == {
        "path": "/tested/a/b",
        "root_path": "/tested",
        "query": {"x": "1"},
        "body": "body",
        "request_id": "id-1",
        "private": [],
        "gateway": "/run/shared/gateway.sock",
        "cwd": str(APPS),
        "main_path": str(APPS),
    }
    said = replica.get("/a", prefix="").json()
    assert (said["path"], said["root_path"]) == ("/a", "")
    # What a user sends reaches no private page, however it reads once decoded.
    assert replica.get("/%2D/ready", prefix="").json()["path"] == "/-/ready"


@pytest.mark.parametrize(("debug", "has_traceback"), [(False, False), (True, True)])
def test_an_exception_is_a_problem_document(start, debug, has_traceback):
    replica = start("functions:fails", debug=debug)
    answer = replica.get(headers={"x-request-id": "id-2"})
    problem = answer.json()
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers[protocol.USER_ERROR_HEADER] == "1"
    assert (problem["code"], problem["title"]) == ("user_exception", "ValueError: no luck")
    assert problem["hint"] == "`fngw logs tested` shows the traceback"
    assert ("functions.py" in problem.get("detail", "")) == has_traceback
    log = replica.text()
    assert "id-2" in log and "functions.py" in log and "fngw_runtime" not in log and "threads.py" not in log


def test_sys_exit_in_a_function_fails_the_request_only(start):
    replica = start("functions:leaves")
    assert [replica.get().json()["title"] for _ in range(2)] == ["SystemExit: 3"] * 2


def test_a_cancellation_of_its_own_is_a_failure_as_any(start):
    replica = start("functions:cancels")
    answer = replica.get()
    assert (answer.status_code, answer.json()["title"]) == (500, "CancelledError")
    assert replica.call("__call__")["type"] == "CancelledError"


def test_a_result_that_json_cannot_hold_is_named(start):
    problem = start("functions:odd_result").get().json()
    assert problem["code"] == "unserialisable_result"
    assert "set" in problem["title"]


def test_numpy_and_responses(start):
    assert start("functions:arrays").get().json() == {"scalar": 0.5, "array": [[0, 1], [2, 3]]}
    answer = start("functions:response").get()
    assert (answer.status_code, answer.text, answer.headers["x-mine"]) == (418, "made by hand", "1")


def test_a_class_without_call_says_so(start):
    replica = start("functions:NotCallable", is_class=True)
    answer = replica.get()
    assert (answer.status_code, answer.json()["code"]) == (500, "not_callable")
    assert replica.call("method") == 1


def test_a_sync_stream(start, folder):
    replica = start("functions:SyncStream", is_class=True, init=((str(folder),), {}))
    with replica.stream("/tested") as answer:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "".join(answer.iter_text()) == "line 0\nline 1\nline 2\n"
    assert (folder / "closed").exists()
    assert replica.get("/tested?number=1").json()["code"] == "unserialisable_result"


def test_a_stream_that_breaks_off_is_not_completed(start, folder):
    replica = start("functions:SyncStream", is_class=True, init=((str(folder),), {}))
    with replica.connect() as connection:
        replica.send("/tested?fail=1", connection)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"first" in received and not received.endswith(b"0\r\n\r\n")
    eventually(lambda: "broke off" in replica.text(), "the traceback is logged")


@pytest.mark.parametrize("kind", ["SyncStream", "AsyncStream"])
def test_a_client_that_leaves_closes_the_generator(start, folder, kind):
    replica = start("functions:" + kind, is_class=True, init=((str(folder),), {}))
    with replica.connect() as connection:
        replica.send("/tested?endless=1", connection)
        assert b"200" in connection.recv(4096)
    eventually((folder / "closed").exists, "the generator is closed")


def test_an_async_stream_reads_while_it_writes(start, folder):
    replica = start("functions:AsyncStream", is_class=True, init=((str(folder),), {}))
    chunk = b"0123456789" * 10_000
    with replica.connect() as connection:
        head = "POST /tested HTTP/1.1\r\nhost: r\r\nfngw-root-path: /tested\r\ncontent-length: 2000000\r\n\r\n"
        connection.sendall(head.encode())
        received = b""
        for sent in range(1, 21):  # ten times what is read ahead, one chunk at a time
            connection.sendall(chunk)
            while received.count(b"0123456789") < sent * 9_000:
                received += connection.recv(65536)


def test_a_client_that_leaves_cancels_async_code(start, folder):
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}), max_concurrent_queries=1)
    with replica.connect() as connection:
        replica.send("/tested?n=1", connection)
        eventually((folder / "begun-1").exists, "the request is under way")
    eventually((folder / "cancelled").exists, "it is cancelled")
    (folder / "go").touch()
    eventually(lambda: replica.get("/tested").text == "finished", "its place is free again")
    assert "Traceback" not in replica.text()


def test_one_too_many_is_told_so_and_health_is_not_counted(start, folder):
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}), max_concurrent_queries=2)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(replica.get("/tested?n=1").text)),
        threading.Thread(target=lambda: results.append(replica.call("blocking"))),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: (folder / "begun-1").exists() and (folder / "begun-blocking").exists(), "two under way")
    refused = replica.get("/tested")
    assert (refused.status_code, refused.headers[protocol.AT_CAPACITY_HEADER], refused.content) == (503, "1", b"")
    assert replica.client.get(protocol.HEALTH_PATH).status_code == 200
    assert (folder / "checked").exists()
    (folder / "go").touch()
    for thread in threads:
        thread.join(60)
    assert results == ["finished", "finished"]
    assert replica.get("/tested").text == "finished"


def test_sync_code_of_a_client_that_left_keeps_its_place(start, folder):
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}), max_concurrent_queries=1)
    body = b"".join(protocol.encode_frame(((), {})))
    with replica.connect() as connection:
        head = f"POST /-/call/blocking HTTP/1.1\r\nhost: r\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        eventually((folder / "begun-blocking").exists, "the call is under way")
    assert replica.get("/tested").headers.get(protocol.AT_CAPACITY_HEADER) == "1"
    (folder / "go").touch()
    eventually((folder / "ended-blocking").exists, "it ran on")
    eventually(lambda: replica.get("/tested").status_code == 200, "its place is free again")


def test_head_and_keep_alive(start):
    replica = start("functions:echo")
    answer = replica.request("HEAD", "/tested")
    assert answer.content == b"" and int(answer.headers["content-length"]) > 0
    assert json.loads(replica.get("/tested").content)["path"] == "/tested"
