"""Counting, and the text that Prometheus reads."""

from __future__ import annotations

import pytest

from fngw_gateway.exposition import render
from fngw_gateway.proxy.tally import CLIENT_LEFT, ROW_LENGTH, Tally, add_rows, without_gauges
from fngw_state.call_counts import CallCounts, DeploymentCalls
from fngw_state.records import DeploymentStatus, Replica, ReplicaState, Status
from fngw_state.usage import DeviceUse, ReplicaUse, Usage


def test_a_tally() -> None:
    tally = Tally()
    assert not tally.used
    tally.under_way += 5
    assert tally.row(queued=2)[-2:] == [3, 2]
    for status, seconds in ((200, 0.005), (204, 0.0051), (503, 61.0), (CLIENT_LEFT, 1.0)):
        tally.end(status, seconds)
    tally.end_tunnel(101)
    tally.refuse(404)
    row = tally.row(queued=0)
    assert row[:6] == [1, 1, 2, 0, 1, 1]
    assert row[6:15] == [1, 1, 0, 0, 1, 0, 0, 0, 1], "a bucket takes its bound; WebSockets have no duration"
    assert row[15:] == [pytest.approx(62.0101), 0, 0]
    assert len(row) == ROW_LENGTH


def test_the_text() -> None:
    tally = Tally()
    tally.under_way += 4
    tally.end(200, 0.5)
    tally.end(500, 0.001)
    unserved = Tally()
    unserved.refuse(404)
    replicas = tuple(Replica(str(n), "f", 1, ReplicaState(state), 0.0) for n, state in enumerate(STATES))
    status = Status("f", DeploymentStatus.HEALTHY, "", 1, None, None, replicas)
    assert render({"f": tally.row(queued=1), "": unserved.row(0)}, {"f": status}, Usage(), CallCounts()) == EXPECTED


def test_what_replicas_use_of_gpus() -> None:
    gpus = {"GPU-0": DeviceUse(3, 40, own_mib=2), "MIG-1": DeviceUse(0, None, own_mib=1)}
    text = render({}, None, Usage({}, {"r1": ReplicaUse("f", 5, gpus)}), CallCounts())
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    one, other = (f'{{deployment="f",replica="r1",gpu="{uuid}"}}' for uuid in gpus)
    assert samples == [
        f'fngw_replica_memory_bytes{{deployment="f",replica="r1"}} {5 << 20}',
        f"fngw_replica_gpu_memory_bytes{one} {3 << 20}",
        f"fngw_replica_gpu_memory_bytes{other} 0",
        f"fngw_replica_gpu_memory_own_bytes{one} {2 << 20}",
        f"fngw_replica_gpu_memory_own_bytes{other} {1 << 20}",
        f"fngw_replica_gpu_utilization_ratio{one} 0.4",
    ]


def test_calls_that_wait() -> None:
    told = {"f": DeploymentCalls({"high": 0, "default": 3, "low": 1}, 2.5, delayed=4, running=5, dead=6)}
    ended = {"f": {"cancelled": 7, "failed": 8, "finished": 9}, "": {"cancelled": 0, "failed": 1, "finished": 2}}
    text = render({}, None, Usage(), CallCounts(told, ended, callbacks=10))
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'fngw_calls_waiting{deployment="f",priority="high"} 0',
        'fngw_calls_waiting{deployment="f",priority="default"} 3',
        'fngw_calls_waiting{deployment="f",priority="low"} 1',
        'fngw_calls_oldest_waiting_seconds{deployment="f"} 2.5',
        'fngw_calls_delayed{deployment="f"} 4',
        'fngw_calls_running{deployment="f"} 5',
        'fngw_calls_dead{deployment="f"} 6',
        'fngw_calls_ended_total{deployment="f",status="cancelled"} 7',
        'fngw_calls_ended_total{deployment="f",status="failed"} 8',
        'fngw_calls_ended_total{deployment="f",status="finished"} 9',
        "fngw_callbacks_pending 10",
        'fngw_callbacks_ended_total{status="cancelled"} 0',
        'fngw_callbacks_ended_total{status="failed"} 1',
        'fngw_callbacks_ended_total{status="finished"} 2',
    ]


STATES = ["READY", "READY", "DRAINING"]
EXPECTED = """\
# HELP fngw_requests_total Requests by the first digit of their status.
# TYPE fngw_requests_total counter
fngw_requests_total{deployment="f",code="499"} 0
fngw_requests_total{deployment="f",code="1xx"} 0
fngw_requests_total{deployment="f",code="2xx"} 1
fngw_requests_total{deployment="f",code="3xx"} 0
fngw_requests_total{deployment="f",code="4xx"} 0
fngw_requests_total{deployment="f",code="5xx"} 1
fngw_requests_total{deployment="",code="499"} 0
fngw_requests_total{deployment="",code="1xx"} 0
fngw_requests_total{deployment="",code="2xx"} 0
fngw_requests_total{deployment="",code="3xx"} 0
fngw_requests_total{deployment="",code="4xx"} 1
fngw_requests_total{deployment="",code="5xx"} 0
# HELP fngw_request_duration_seconds From arrival to the end of the answer.
# TYPE fngw_request_duration_seconds histogram
fngw_request_duration_seconds_bucket{deployment="f",le="0.005"} 1
fngw_request_duration_seconds_bucket{deployment="f",le="0.025"} 1
fngw_request_duration_seconds_bucket{deployment="f",le="0.1"} 1
fngw_request_duration_seconds_bucket{deployment="f",le="0.25"} 1
fngw_request_duration_seconds_bucket{deployment="f",le="1"} 2
fngw_request_duration_seconds_bucket{deployment="f",le="2.5"} 2
fngw_request_duration_seconds_bucket{deployment="f",le="10"} 2
fngw_request_duration_seconds_bucket{deployment="f",le="60"} 2
fngw_request_duration_seconds_bucket{deployment="f",le="+Inf"} 2
fngw_request_duration_seconds_sum{deployment="f"} 0.501
fngw_request_duration_seconds_count{deployment="f"} 2
# HELP fngw_requests_in_flight Requests under way, without those queued.
# TYPE fngw_requests_in_flight gauge
fngw_requests_in_flight{deployment="f"} 1
# HELP fngw_requests_queued Requests that wait for a replica.
# TYPE fngw_requests_queued gauge
fngw_requests_queued{deployment="f"} 1
# HELP fngw_replicas Replicas by state.
# TYPE fngw_replicas gauge
fngw_replicas{deployment="f",state="STARTING"} 0
fngw_replicas{deployment="f",state="READY"} 2
fngw_replicas{deployment="f",state="UNHEALTHY"} 0
fngw_replicas{deployment="f",state="DRAINING"} 1
fngw_replicas{deployment="f",state="FAILED"} 0
"""


def test_rows_add_up() -> None:
    assert add_rows([{"f": [1, 2], "g": [5, 5]}, {}, {"f": [10, 20]}]) == {"f": [11, 22], "g": [5, 5]}
    assert without_gauges({"f": [7, 1.5, 3, 4]}) == {"f": [7, 1.5, 0, 0]}
