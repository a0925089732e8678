"""The corpus against a real nginx: what both should do alike, they do. The other rows say why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from .corpus import Case, play, replica_of
from .corpus_refused import REFUSED
from .corpus_replies import REPLIES
from .corpus_served import SERVED
from .h11_ends import Caller
from .nginx import IMPATIENT, REPLICA, SERVER, reference
from .wire import Upstream

ALIKE = [case for case in (*SERVED, *REFUSED, *REPLIES) if not case.nginx]


@pytest.fixture(scope="module")
def nginx() -> Iterator[Path]:
    with reference() as directory:
        yield directory


@pytest.mark.parametrize("case", ALIKE, ids=lambda case: case.name)
def test_nginx_agrees(nginx: Path, case: Case) -> None:
    server = nginx / (SERVER if case.timeout_s is None else IMPATIENT)

    async def call() -> Caller:
        return Caller(*await asyncio.open_unix_connection(server, limit=2**20))

    async def work() -> list[int]:
        upstream = Upstream(nginx / REPLICA, replica_of(case).script)
        await upstream.start()
        try:
            answers = await play(case, call)
        finally:
            await upstream.stop()
        assert answers[-1].cut == case.cut
        return [answer.status // 100 for answer in answers]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == [status // 100 for status in case.statuses]
