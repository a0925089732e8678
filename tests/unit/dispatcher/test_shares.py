"""How many queued calls of a deployment may be under way."""

from __future__ import annotations

import pytest

from fngw_dispatcher.shares import shares_of
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable


@pytest.mark.parametrize(
    ("replicas", "each", "share", "limit"),
    [(2, 100, 0.5, 100), (1, 1, 0.5, 1), (0, 100, 0.5, 1), (3, 5, 0.5, 7), (1, 10, 1.0, 10)],
)
def test_shares(replicas: int, each: int, share: float, limit: int) -> None:
    there = tuple(RoutedReplica(f"r{n}", "x") for n in range(replicas))
    table = RoutingTable(1, (RoutedDeployment("G", "/G", there, each, 10, None),))
    assert shares_of(table, share) == {"G": limit}
