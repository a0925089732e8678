"""``/-/metrics``: what is counted, and several gateway processes as one (slots on disk), whoever dies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fngw_gateway import metrics as metrics_module
from fngw_gateway.metrics import Metrics
from fngw_gateway.proxy.tally import ROW_LENGTH, Row

from .conftest import Site
from .wire import Peer, Upstream, echo, eventually, samples


def row(requests: int, in_flight: int = 0) -> Row:
    counts: Row = [0] * ROW_LENGTH
    counts[2], counts[-2] = requests, in_flight
    return counts


# -- what is counted --------------------------------------------------------------------------------------


async def scrape(site: Site) -> dict[str, float]:
    return samples(await site.ask("GET", "/-/metrics"))


async def test_requests_are_counted_by_how_they_ended(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            if request.target == "/f/ws":
                peer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            elif request.target == "/f/hang":
                upstream.count += 1
            else:
                peer.answer(status=request.target.removeprefix("/f/") + " Whatever")

    upstream = await site.one(script)
    for status in (200, 200, 201, 302, 404, 500):
        assert (await site.ask("GET", f"/f/{status}")).status == status
    assert (await site.ask("GET", "/nothing")).status == 404
    assert (await site.ask("GET", "/-/healthz")).status == 200
    counted = await scrape(site)
    by_code = {key: value for key, value in counted.items() if key.startswith('requests_total{deployment="f"')}
    assert list(by_code.values()) == [0, 0, 3, 1, 1, 1]
    assert counted['requests_total{deployment="",code="4xx"}'] == 1
    assert counted['request_duration_seconds_count{deployment="f"}'] == 6
    assert 0 < counted['request_duration_seconds_sum{deployment="f"}'] < 60

    hanging, socket = await site.client(), await site.client()
    hanging.write(b"GET /f/hang HTTP/1.1\r\nHost: t\r\n\r\n")
    socket.write(b"GET /f/ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert await socket.head()
    await eventually(lambda: upstream.count == 1)
    assert (await scrape(site))['requests_in_flight{deployment="f"}'] == 2
    hanging.abort()
    socket.abort()

    async def over() -> bool:
        return (await scrape(site))['requests_in_flight{deployment="f"}'] == 0

    await eventually(over)
    counted = await scrape(site)
    assert counted['requests_total{deployment="f",code="499"}'] == 1
    assert counted['requests_total{deployment="f",code="1xx"}'] == 1


async def test_those_that_wait_are_counted_apart(site: Site) -> None:
    site.route(request_timeout_s=30)
    client = await site.client()
    client.write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")

    async def waits() -> bool:
        counted = await scrape(site)
        return (
            counted.get('requests_queued{deployment="f"}') == 1
            and counted['requests_in_flight{deployment="f"}'] == 0
        )

    await eventually(waits)
    site.route(await site.upstream(echo))
    assert (await client.answer()).status == 200
    assert (await scrape(site))['requests_queued{deployment="f"}'] == 0


async def test_the_page(site: Site) -> None:
    answer = await site.ask("GET", "/-/metrics")
    assert (answer.status, answer.get("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert answer.get("x-request-id")
    assert (await site.ask("HEAD", "/-/metrics")).status == 200
    assert (await site.ask("POST", "/-/metrics")).json()["code"] == "method_not_allowed"


# -- several processes ------------------------------------------------------------------------------------


class Process:
    """Stands for a gateway process: its counts, and its slot."""

    def __init__(self, directory: Path) -> None:
        self.now: dict[str, Row] = {}
        self.deployments = frozenset("f")
        self.metrics = Metrics(directory, self)
        self.metrics.start()

    def rows(self) -> dict[str, Row]:
        return self.now

    def counted(self) -> frozenset[str]:
        return self.deployments

    async def sees(self) -> tuple[float, float]:
        """Requests and requests in flight, over all processes."""
        total = (await self.metrics.total()).get("f", row(0))
        return total[2], total[-2]

    async def written(self, requests: int) -> None:
        slot = self.metrics._slot
        assert slot is not None
        await eventually(lambda: slot.exists() and json.loads(slot.read_text()).get("f", row(0))[2] == requests)

    async def die(self) -> None:
        """End as by SIGKILL: nothing is written, and the kernel lets go of the lock."""
        assert self.metrics._task is not None and self.metrics._lock is not None
        self.metrics._task.cancel()
        os.close(self.metrics._lock)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "WRITE_EVERY_S", 0.02)


async def test_whoever_is_asked_answers_for_all(tmp_path: Path) -> None:
    one, two, three = (Process(tmp_path) for _ in range(3))
    one.now, two.now = {"f": row(3, in_flight=1)}, {"f": row(4, in_flight=2)}
    await one.written(3)
    await two.written(4)
    assert [await p.sees() for p in (one, two, three)] == [(7, 3)] * 3
    two.now = {"f": row(5)}
    assert await two.sees() == (8, 1), "its own counts are there at once"
    for process in (one, two, three):
        await process.metrics.stop()


async def test_counts_do_not_go_back_when_a_process_dies(tmp_path: Path) -> None:
    one, two = Process(tmp_path), Process(tmp_path)
    one.now, two.now = {"f": row(3)}, {"f": row(4, in_flight=2)}
    await two.written(4)
    await two.die()
    assert await one.sees() == (7, 0), "what it had in flight is gone"
    successor = Process(tmp_path)
    assert successor.metrics._slot == two.metrics._slot
    assert await one.sees() == (7, 0)
    successor.now = {"f": row(1)}
    await successor.written(5)
    assert await one.sees() == await successor.sees() == (8, 0)
    await one.metrics.stop()
    await successor.metrics.stop()
    assert await Process(tmp_path).sees() == (8, 0), "nor when all have stopped"
    assert len(list(tmp_path.glob("*.json"))) == 2


async def test_what_was_deleted_is_forgotten(tmp_path: Path) -> None:
    one = Process(tmp_path)
    one.now = {"f": row(3)}
    await one.written(3)
    await one.die()
    two = Process(tmp_path)
    two.deployments, two.now = frozenset("g"), {"g": row(1)}
    assert await two.metrics.total() == {"g": row(1)}
    await two.written(0)
    two.deployments = frozenset("fg")
    assert set(await two.metrics.total()) == {"g"}
    await two.metrics.stop()


async def test_a_slot_of_another_release_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "0.json").write_text('{"f": [1, 2, 3]}')
    one = Process(tmp_path)
    assert await one.sees() == (0, 0)
    await one.metrics.stop()


async def test_without_a_directory_it_counts_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    one = Process(tmp_path / "file" / "metrics")
    one.now = {"f": row(3)}
    assert await one.sees() == (3, 0)
    await one.metrics.stop()
    assert "of this process alone" in caplog.text
