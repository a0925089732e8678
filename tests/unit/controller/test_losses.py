"""Places that wait to be filled again, and deaths that are remembered."""

from __future__ import annotations

from fngw_controller.losses import Losses
from fngw_state.records import Failure

DIED = Failure(1, "replica_died", "replica r died")


def test_a_place_waits_until_it_is_filled():
    losses = Losses()
    losses.schedule(7, 1, DIED)
    losses.schedule(8, 2, DIED)
    assert [(r.attempt, r.failure) for r in losses.retries(7)] == [(1, DIED)]
    losses.fill(7, 2)
    assert losses.retries(7)
    losses.fill(7, 1)
    assert not losses.retries(7) and losses.retries(8)
    losses.forget_retries()
    assert not losses.retries(8)


def test_what_was_found_out_later_replaces_the_first_reason_and_no_other():
    losses, later = Losses(), Failure(1, "replica_died", "replica r died", detail="its log")
    other = Failure(1, "replica_died", "replica r died")
    losses.schedule(7, 1, DIED)
    losses.schedule(7, 2, other)
    losses.explain(DIED, later)
    assert [r.failure for r in losses.retries(7)] == [later, other]


def test_only_the_last_deaths_are_remembered():
    losses = Losses()
    for number in range(7):
        losses.died(f"r{number}", DIED)
    assert [lost.replica for lost in losses.deaths] == ["r2", "r3", "r4", "r5", "r6"]
    heir = Losses()
    heir.remember(losses.deaths)
    assert heir.deaths == losses.deaths
