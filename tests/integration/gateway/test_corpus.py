"""The corpus, row by row: through the gateway, and through nginx where both should do the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Site
from .corpus import Case, play, replica_of
from .corpus_refused import REFUSED
from .corpus_replies import REPLIES
from .corpus_served import SERVED
from .ground import Ground, all_quiet, behind, call, shared_site
from .h11_ends import Answer

CORPUS = [*SERVED, *REFUSED, *REPLIES]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch, shared_site(max_body=1_000_000) as ground:
        patch.setattr("fngw_gateway.proxy.forward.LINGER_S", 0.1)
        yield ground


def test_the_names_tell_rows_apart() -> None:
    assert len({case.name for case in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_raw_bytes_through_the_gateway(ground: Ground, case: Case) -> None:
    async def work(site: Site) -> None:
        replica = replica_of(case)
        await behind(site, replica, request_timeout_s=case.timeout_s)
        answers = await play(case, lambda: call(site))
        if not case.kept:
            await play(Case("after it", (), ()), lambda: call(site))
        await all_quiet(site)
        check(case, answers)
        reached = tuple(said for said in replica.reached if said != b"GET /f/next ")
        assert reached == case.reached
        assert replica.faults == []
        assert case.lines is None or len(replica.lines) == case.lines
        assert all(part in replica.raw.lower() for part in case.passed), replica.raw
        assert not any(part in replica.raw.lower() for part in case.held), replica.raw

    ground.run(work)


def check(case: Case, answers: list[Answer]) -> None:
    """What the client was answered."""
    assert tuple(answer.status for answer in answers) == case.statuses, answers
    last = answers[-1]
    assert last.cut == case.cut
    lines = {b"%b: %b" % field for field in last.headers}
    assert lines >= set(case.has)
    assert not {name for name, _ in last.headers} & set(case.lacks)
    if case.body is not None:
        assert last.body == case.body
    for answer, said in zip(answers, case.reached, strict=False):
        assert answer.status >= 300 or case.answer is not None or answer.body in (said, b"")
