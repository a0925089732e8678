"""How long to wait before a part is started again."""

from __future__ import annotations

from fngw_supervisor.ladder import STEPS_S, Ladder


def test_the_delay_grows_to_its_end_and_stays() -> None:
    ladder, delays = Ladder(), []
    for _ in range(len(STEPS_S) + 2):
        ladder = ladder.died(lived_s=1)
        delays.append(ladder.delay_s)
    assert delays == [*STEPS_S, STEPS_S[-1], STEPS_S[-1]]


def test_a_time_of_being_well_starts_it_anew() -> None:
    ladder = Ladder().died(1).died(1).died(1)
    assert ladder.died(lived_s=30).delay_s == 0.1


def test_never_started_is_said_once_and_not_of_one_that_was_well() -> None:
    ladder, said = Ladder(), []
    for _ in range(8):
        ladder = ladder.died(0.1)
        said.append(ladder.never_started)
    assert said == [False] * 4 + [True] + [False] * 3
    ladder = Ladder().died(31)
    for _ in range(8):
        ladder = ladder.died(0.1)
        assert not ladder.never_started
