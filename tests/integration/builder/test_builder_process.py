"""The builder as a process: what it answers, and what is left of a build when it dies. Builds for local
processes are used, as they need no engine; a bundle that is a pipe makes a build hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from fngw.errors import from_problem
from fngw_builder.local import own_version
from fngw_state import builds, keys
from fngw_state.records import BuildRequest


@pytest.fixture
def request_of(client: Any) -> Any:
    def request_of(text: str = "x = 1\n", **members: Any) -> BuildRequest:
        digest = members.pop("bundle", None) or client.bundle({"main.py": text})
        return BuildRequest(**{"engine": "process", "python": own_version(), "bundle": digest, **members})

    return request_of


def test_a_build_is_answered_announced_and_logged(
    client: Any, start_builder: Any, request_of: Any, connection: Redis, wait_for: Any
) -> None:
    start_builder()
    with connection.pubsub() as pubsub:
        pubsub.subscribe(keys.BUILT_CHANNEL)
        result = client.build(request_of("x = 42\n"))
        announced = wait_for(
            "the announcement", lambda: pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
        )
    assert announced["data"].decode() == result.key
    assert Path(result.artifact.app_dir, "main.py").read_text() == "x = 42\n"
    assert not result.reused
    assert client.log(result.key)[-1].startswith("built local:")
    assert 0 < connection.ttl(keys.BUILD_LOG + result.key) <= keys.BUILD_TTL_S
    assert client.build(request_of("x = 42\n")).reused


def test_an_answer_leaves_nothing_under_way(
    client: Any, start_builder: Any, request_of: Any, connection: Redis, wait_for: Any
) -> None:
    start_builder()
    key = client.build(request_of()).key
    wait_for("the end of the beat", lambda: not builds.under_way(connection, key))


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"pip": ("-e .",)}, "environment_invalid"),
        ({"bundle": "sha256:" + "0" * 64}, "bundle_missing"),
        ({"python": "3.99"}, "python_missing"),
        ({"bundle": "nonsense"}, "bundle_invalid"),
    ],
)
def test_what_fails_is_an_answer_too(
    client: Any, start_builder: Any, request_of: Any, members: Any, code: str
) -> None:
    start_builder()
    result = client.build(request_of(**members))
    error = from_problem(result.error)
    assert (type(error).__name__, error.code) == ("BuildFailed", code)
    assert error.hint
    assert client.log(result.key)[-1] == f"failed: {error.message}"


def test_a_crash_is_an_answer_with_its_traceback(client: Any, start_builder: Any, request_of: Any) -> None:
    start_builder()
    request = request_of()
    blob = client.layout.blob(request.bundle)
    blob.unlink()
    blob.mkdir()
    error = from_problem(client.build(request).error)
    assert error.code == "build_crashed"
    assert "IsADirectoryError" in error.detail
    assert "Traceback" in error.detail


def test_what_waits_in_the_queue_can_be_told(client: Any, request_of: Any, connection: Redis) -> None:
    request = request_of()
    key = builds.request_key(request)
    assert not builds.under_way(connection, key)
    assert builds.ensure(connection, request)
    assert builds.queued(connection, key)
    assert not builds.ensure(connection, request)
    assert not builds.queued(connection, "0" * 32)


def test_a_build_under_way_can_be_told(
    client: Any, start_builder: Any, request_of: Any, connection: Redis, wait_for: Any
) -> None:
    start_builder()
    request = request_of()
    client.stalled(request.bundle)
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    assert builds.under_way(connection, key)
    assert not builds.queued(connection, key)
    assert not builds.ensure(connection, request)


def test_another_builder_leaves_a_build_under_way_alone(
    client: Any, start_builder: Any, request_of: Any, wait_for: Any
) -> None:
    first, second = start_builder(), start_builder()
    request = request_of()
    client.stalled(request.bundle)
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    client.ask(request)
    wait_for("one to leave it", lambda: "another builder is at it" in said(first, second))
    wait_for("its end", lambda: len([*first.horses(), *second.horses()]) == 1)
    assert client.connection.get(keys.BUILD + key) is None
    with client.layout.blob(request.bundle).open("wb") as pipe:
        pipe.write(b"not what its digest says")
    assert from_problem(client.result(key).error).code == "bundle_corrupt"
    assert said(first, second).count("another builder is at it") == 1


def said(*builders: Any) -> str:
    return "".join(builder.log.read_text() for builder in builders)


def test_a_long_build_holds_no_other_up(client: Any, start_builder: Any, request_of: Any, wait_for: Any) -> None:
    builder = start_builder(FNGW_BUILDS="3")
    slow = [request_of(f"x = {n}\n") for n in range(2)]
    for request in slow:
        client.stalled(request.bundle)
        client.ask(request)
    wait_for("both to be under way", lambda: len(builder.horses()) == 2)
    assert client.build(request_of("y = 1\n")).artifact


def test_a_builder_that_died_is_replaced(
    client: Any, start_builder: Any, request_of: Any, connection: Redis, wait_for: Any
) -> None:
    builder = start_builder()
    (worker,) = builder.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for("another one", lambda: builder.workers() not in ([], [worker]))
    assert client.build(request_of()).artifact


def test_a_killed_build_is_answered_and_can_be_had_again(
    client: Any, start_builder: Any, request_of: Any, wait_for: Any
) -> None:
    builder = start_builder()
    request = request_of()
    kept = client.stalled(request.bundle)
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    (horse,) = builder.horses()
    os.kill(horse, signal.SIGKILL)
    assert from_problem(client.result(key).error).code == "build_killed"
    kept.rename(client.layout.blob(request.bundle))
    assert client.build(request).artifact


@pytest.mark.slow
def test_a_killed_builder_holds_a_build_up_no_longer_than_its_beat(
    client: Any, start_builder: Any, request_of: Any, wait_for: Any
) -> None:
    request = request_of()
    kept = client.stalled(request.bundle)
    builder = start_builder()
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    builder.kill()
    kept.rename(client.layout.blob(request.bundle))
    start_builder()
    builds.enqueue(client.connection, request)
    assert client.result(key, deadline_s=keys.BUILD_BEAT_TTL_MS / 1000 + 30).artifact


def test_the_builder_lives_through_a_restart_of_redis(
    client: Any, start_builder: Any, request_of: Any, redis_server: Any
) -> None:
    builder = start_builder()
    assert client.build(request_of("x = 1\n")).artifact
    redis_server.stop()
    redis_server.start()
    assert client.build(request_of("x = 2\n")).artifact
    assert builder.process.poll() is None


def test_an_idle_builder_stops_at_once(start_builder: Any) -> None:
    builder = start_builder(FNGW_BUILDER_STOP_TIMEOUT_S="100")
    builder.process.terminate()
    assert builder.process.wait(timeout=60) == 0


def test_a_stopping_builder_finishes_its_build(
    client: Any, start_builder: Any, request_of: Any, wait_for: Any
) -> None:
    builder = start_builder()
    request = request_of()
    client.stalled(request.bundle)
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    builder.process.terminate()
    with client.layout.blob(request.bundle).open("wb") as pipe:
        pipe.write(b"not what its digest says")
    assert from_problem(client.result(key).error).code == "bundle_corrupt"
    assert builder.process.wait(timeout=60) == 0


def test_a_stopping_builder_does_not_wait_for_ever(
    client: Any, start_builder: Any, request_of: Any, wait_for: Any
) -> None:
    builder = start_builder(FNGW_BUILDER_STOP_TIMEOUT_S="2")
    request = request_of()
    client.stalled(request.bundle)
    key = client.ask(request)
    wait_for("the beat", lambda: client.building(key))
    (horse,) = builder.horses()
    builder.process.terminate()
    builder.process.wait(timeout=60)
    wait_for("the build's end", lambda: not Path(f"/proc/{horse}").exists())
