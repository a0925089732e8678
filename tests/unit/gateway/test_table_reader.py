"""Reading one routing table after the other."""

from __future__ import annotations

from dataclasses import replace

from fngw_gateway.tables import Reader
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable

ONE, TWO = (
    RoutedDeployment(
        name=name,
        route_prefix=f"/{name}",
        replicas=(RoutedReplica(f"{name}-1", f"/run/{name}"),),
        max_concurrent_queries=1,
        max_queued_requests=2,
        request_timeout_s=None,
    )
    for name in ("one", "two")
)


def table(generation: int, *deployments: RoutedDeployment) -> RoutingTable:
    return RoutingTable(generation, deployments)


def test_a_table_is_what_was_written():
    reader = Reader()
    for written in (table(1, ONE, TWO), table(2, TWO, ONE), table(3), table(4, ONE)):
        assert reader.read(written.to_json()) == written


def test_what_has_not_changed_is_the_same_object():
    reader = Reader()
    first = reader.read(table(1, ONE, TWO).to_json())
    changed = replace(TWO, max_concurrent_queries=5)
    second = reader.read(table(2, ONE, changed).to_json())
    assert second.deployments[0] is first.deployments[0]
    assert second.deployments[1] == changed


def test_a_member_of_a_newer_writer_is_ignored():
    text = table(1, ONE).to_json().replace('"name":"one"', '"name":"one","new":1')
    assert Reader().read(text) == table(1, ONE)
