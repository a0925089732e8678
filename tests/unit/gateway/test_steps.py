"""A request's coroutine outside of a task: when it goes on, when it becomes one, and how it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from fngw_gateway.proxy import steps
from fngw_gateway.proxy.steps import Steps, in_task, pause

Said = list[str]


@pytest.fixture
def said() -> Said:
    return []


def begun(coroutine: Coroutine[Any, Any, None], said: Said) -> Steps:
    made = Steps(coroutine, asyncio.get_running_loop(), lambda _: said.append("ended"))
    made.go_on()
    return made


async def test_it_goes_on_at_once_and_needs_no_task(said: Said) -> None:
    async def request() -> None:
        assert steps.current() is made[0]
        said.append("begun")
        await pause()
        said.append("answered")

    made: list[Steps] = []
    made.append(Steps(request(), asyncio.get_running_loop(), lambda _: said.append("ended")))
    made[0].go_on()
    assert said == ["begun"]
    assert steps.current() is None
    made[0].set_result(None)
    assert said == ["begun", "answered", "ended"]
    assert made[0].done()
    assert len(asyncio.all_tasks()) == 1


async def test_what_waits_for_anything_else_goes_on_in_a_task(said: Said) -> None:
    news = asyncio.get_running_loop().create_future()

    async def request() -> None:
        said.append(await news)
        async with asyncio.timeout(60):
            await asyncio.sleep(0)

    made = begun(request(), said)
    assert made.task is not None
    news.set_result("came")
    await made.task
    assert said[0] == "came"
    await asyncio.sleep(0)
    assert said == ["came", "ended"]


async def test_one_can_ask_for_a_task(said: Said) -> None:
    async def request() -> None:
        await in_task()
        assert steps.current() is None
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            said.append("in a task")

    made = begun(request(), said)
    assert said == []
    assert made.task is not None
    await made.task
    await in_task()  # where there is one, it is nothing
    await asyncio.sleep(0)
    assert said == ["in a task", "ended"]


@pytest.mark.parametrize("where", ["paused", "task not begun", "task"])
async def test_a_cancel_is_raised_where_it_waits(where: str, said: Said) -> None:
    never = asyncio.get_running_loop().create_future()

    async def request() -> None:
        try:
            await (pause() if where == "paused" else never)
        except asyncio.CancelledError:
            made.uncancel()
            await in_task()
            said.append("refused")

    made = begun(request(), said)
    if where == "task":
        await asyncio.sleep(0)
    made.cancel()
    assert said == []
    async with asyncio.timeout(10):
        while "ended" not in said:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert said == ["refused", "ended"]
    assert made.task is not None
    assert not made.task.cancelled()


async def test_one_that_ends_by_a_cancel_has_ended(said: Said) -> None:
    async def request() -> None:
        await pause()

    made = begun(request(), said)
    made.cancel()
    await asyncio.sleep(0)
    assert said == ["ended"]
    made.cancel()
    await asyncio.sleep(0)
    assert said == ["ended"]


async def test_an_error_reaches_nobody_but_the_log(said: Said, caplog: pytest.LogCaptureFixture) -> None:
    async def request() -> None:
        raise ValueError("a bug")

    with caplog.at_level(logging.ERROR):
        begun(request(), said)
    assert said == ["ended"]
    assert "a bug" in caplog.text


async def test_many_go_on_in_the_next_turn(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async def request(name: str) -> None:
        said.append(f"{name} begun")
        await pause()
        said.append(f"{name} answered")

    monkeypatch.setattr(steps, "FEW", 1)
    first, second = begun(request("first"), said), begun(request("second"), said)
    assert said == ["first begun"]
    await asyncio.sleep(0)
    assert said == ["first begun", "second begun"]
    for one in (first, second):
        one.set_result(None)
        one.set_result(None)  # twice is once
    assert len(said) == 2
    await asyncio.sleep(0)
    assert said[2:] == ["first answered", "ended", "second answered", "ended"]
