"""Logs are asked from the controller before the answer begins, so that its absence can be told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fngw.errors import Unreachable, ValidationError
from fngw_gateway.api.logs import ask_controller, moment
from fngw_gateway.settings import GatewaySettings

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\na1b2 | hello\n"


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(data_dir=tmp_path, run_dir=tmp_path)


async def test_an_absent_controller_is_told_before_the_answer_begins(settings: GatewaySettings) -> None:
    with pytest.raises(Unreachable, match="the controller does not answer"):
        await ask_controller(settings, "Greeter", {})


async def test_lines_are_passed_on(settings: GatewaySettings) -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        writer.close()

    async with await asyncio.start_unix_server(answer, settings.layout.controller_socket):
        lines = await ask_controller(settings, "Greeter", {"tail": "5"})
        assert b"".join([chunk async for chunk in lines]) == b"a1b2 | hello\n"
    assert asked[0].startswith(b"GET /logs/Greeter?tail=5 ")


def test_since_is_an_age_or_a_time() -> None:
    assert moment("90s", now=1000.0) == 910.0
    assert moment("1.5h", now=10000.0) == 4600.0
    assert moment("1700000000", now=1.0) == 1700000000.0


@pytest.mark.parametrize("since", ["yesterday", "10x", "-5m", ""])
def test_other_words_for_a_time_are_refused(since: str) -> None:
    with pytest.raises(ValidationError, match="since"):
        moment(since, now=1000.0)
