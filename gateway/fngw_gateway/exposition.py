"""Metrics as Prometheus reads them (text format 0.0.4). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from fngw_gateway.proxy.tally import BOUNDS, CODES, Row
from fngw_state.call_counts import CallCounts, DeploymentCalls
from fngw_state.records import ReplicaState, Status
from fngw_state.resources import MIB
from fngw_state.usage import DeviceUse, Usage

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


def render(rows: Mapping[str, Row], statuses: Mapping[str, Status] | None, usage: Usage, calls: CallCounts) -> str:
    """Return all metrics as text.

    Args:
        rows: sums over the gateway processes, by deployment; "" for requests that none serves.
        statuses: what the controller last saw of each deployment; None when that is not known.
        usage: what replicas use of GPUs; an empty one where nobody measures.
        calls: those that wait; none where that is not known.

    Example:
        >>> render({}, None, Usage(), CallCounts())
        ''
    """
    families = (
        ("fngw_requests_total", "counter", "Requests by the first digit of their status.", _requests(rows)),
        ("fngw_request_duration_seconds", "histogram", "From arrival to the end of the answer.", _durations(rows)),
        ("fngw_requests_in_flight", "gauge", "Requests under way, without those queued.", _gauge(rows, -2)),
        ("fngw_requests_queued", "gauge", "Requests that wait for a replica.", _gauge(rows, -1)),
        ("fngw_replicas", "gauge", "Replicas by state.", _replicas(statuses or {})),
        ("fngw_replica_memory_bytes", "gauge", "Resident memory of a replica that holds a GPU.", _memory(usage)),
        ("fngw_replica_gpu_memory_bytes", "gauge", "GPU memory in use.", _gpus(usage, _memory_used)),
        ("fngw_replica_gpu_memory_own_bytes", "gauge", "GPU memory that is its own.", _gpus(usage, _memory_own)),
        ("fngw_replica_gpu_utilization_ratio", "gauge", "Part of the time it used the GPU.", _gpus(usage, _busy)),
        *_call_families(calls),
    )
    return "".join(f"{line}\n" for family in families for line in _family(*family))


def _call_families(calls: CallCounts) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    told = calls.deployments
    yield "fngw_calls_waiting", "gauge", "Queued calls that wait for their turn.", _waiting(told)
    yield "fngw_calls_oldest_waiting_seconds", "gauge", "How long the oldest of them has waited.", _oldest(told)
    yield "fngw_calls_delayed", "gauge", "Calls whose time has not come.", _each(told, lambda d: d.delayed)
    yield "fngw_calls_running", "gauge", "Queued calls under way.", _each(told, lambda d: d.running)
    yield "fngw_calls_dead", "gauge", "Failed calls that can be tried again.", _each(told, lambda d: d.dead)
    yield "fngw_calls_ended_total", "counter", "Queued calls by how they ended.", _ended(calls.ended)
    if calls.ended or told or calls.callbacks:
        yield "fngw_callbacks_pending", "gauge", "Callbacks that have not arrived.", [f" {calls.callbacks}"]
    yield "fngw_callbacks_ended_total", "counter", "Callbacks by how they ended.", _callbacks(calls.ended)


def _waiting(told: Mapping[str, DeploymentCalls]) -> Iterator[str]:
    for name, deployment in told.items():
        for priority, many in deployment.waiting.items():
            yield f'{{deployment="{name}",priority="{priority}"}} {many}'


def _oldest(told: Mapping[str, DeploymentCalls]) -> Iterator[str]:
    """Zero where none waits, so that an alert ends."""
    return _each(told, lambda deployment: max(0.0, deployment.oldest_s or 0.0))


def _each(told: Mapping[str, DeploymentCalls], value: Callable[[DeploymentCalls], float]) -> Iterator[str]:
    return (f'{{deployment="{name}"}} {value(deployment)}' for name, deployment in told.items())


def _ended(ended: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for name, counts in ended.items():
        if name:
            for status, many in counts.items():
                yield f'{{deployment="{name}",status="{status}"}} {many}'


def _callbacks(ended: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    return (f'{{status="{status}"}} {many}' for status, many in ended.get("", {}).items())


def _family(name: str, kind: str, text: str, samples: Iterable[str]) -> Iterator[str]:
    """The samples of one metric under their head; nothing without any."""
    body = [f"{name}{sample}" for sample in samples]
    if body:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        yield from body


def _requests(rows: Mapping[str, Row]) -> Iterator[str]:
    for name, row in rows.items():
        for code, count in zip(CODES, row, strict=False):
            yield f'{{deployment="{name}",code="{code}"}} {count}'


def _durations(rows: Mapping[str, Row]) -> Iterator[str]:
    first, end = len(CODES), len(CODES) + len(_BUCKETS)
    for name, row in rows.items():
        if not name:
            continue  # refused at once
        counts = list(accumulate(row[first:end]))
        for bound, count in zip(_BUCKETS, counts, strict=True):
            yield f'_bucket{{deployment="{name}",le="{bound}"}} {count}'
        yield f'_sum{{deployment="{name}"}} {row[end]}'
        yield f'_count{{deployment="{name}"}} {counts[-1]}'


def _gauge(rows: Mapping[str, Row], place: int) -> Iterator[str]:
    return (f'{{deployment="{name}"}} {row[place]}' for name, row in rows.items() if name)


def _replicas(statuses: Mapping[str, Status]) -> Iterator[str]:
    for name, status in statuses.items():
        counts = Counter(replica.state for replica in status.replicas)
        for state in ReplicaState:
            yield f'{{deployment="{name}",state="{state}"}} {counts[state]}'


def _memory(usage: Usage) -> Iterator[str]:
    for replica, use in usage.replicas.items():
        yield f'{{deployment="{use.deployment}",replica="{replica}"}} {use.memory_mib * MIB}'


def _gpus(usage: Usage, value: Callable[[DeviceUse], float | None]) -> Iterator[str]:
    """One sample for each replica and device of it where there is a value."""
    for replica, use in usage.replicas.items():
        for uuid, part in use.gpus.items():
            found = value(part)
            if found is not None:
                yield f'{{deployment="{use.deployment}",replica="{replica}",gpu="{uuid}"}} {found}'


def _memory_used(part: DeviceUse) -> int:
    return part.memory_mib * MIB


def _memory_own(part: DeviceUse) -> int | None:
    return None if part.own_mib is None else part.own_mib * MIB


def _busy(part: DeviceUse) -> float | None:
    return None if part.percent is None else part.percent / 100
