"""Thousands of calls that wait, while every part of fngw is killed again and again: none is lost.

``FNGW_TEST_CALLS`` is how many (2000), ``FNGW_TEST_SEED`` what the kills are drawn by.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from fngw_state import keys
from fngw_state.call_records import Call
from fngw_state.calls import Calls
from fngw_state.layout import default_run_dir
from fngw_state.payloads import Payloads
from fngw_state.store import Store, connect

CALLS = int(os.environ.get("FNGW_TEST_CALLS", "2000"))
SEED = int(os.environ.get("FNGW_TEST_SEED", "6"))
SENDERS = 6
#: Seconds: over which the calls are handed in; after which the kills are over; and for what is then left to end.
SENDING_S = 25.0 if CALLS <= 3000 else 60.0
KILLING_S = SENDING_S + 10.0
SETTLING_S = 120.0
#: Longer than a lease: a dispatcher that wakes then has lost its calls.
PAUSE_S = 11.0

SOURCE = """
import asyncio
import os
import fngw
from starlette.responses import JSONResponse

RUNS = os.open({runs!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@fngw.deployment(num_replicas=3)
class App:
    async def __call__(self, request):
        number = int(await request.body())
        headers = request.headers
        told = f"{{headers.get('fngw-call-id', '?')}} {{headers.get('fngw-attempt', '?')}} {{number}}"
        os.write(RUNS, told.encode() + b"\\n")  # one short write to its end: never mixed with another
        await asyncio.sleep(0.03)
        status = 500 if number % 50 == 0 else 404 if number % 50 == 1 else 200
        return JSONResponse({{"number": number, "double": number * 2}}, status)
"""


@dataclass
class Sent:
    """What was taken in: number → the ids that were answered for it; and how often it had to be sent again."""

    ids: dict[int, set[str]] = field(default_factory=dict)
    again: int = 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_call_is_lost_whatever_is_killed(installation, project, tmp_path, wait):
    stack = installation.up("process", "--workers", "2", "--dispatchers", "2")
    app, runs = project(stack), tmp_path / "runs"
    app.write(SOURCE.format(runs=str(runs)))
    app.deployed(version="1", num_replicas=3)
    began = time.monotonic()
    sent, over = Sent(), threading.Event()
    with ThreadPoolExecutor(SENDERS + 1) as pool:
        killed = pool.submit(kill_at_random, stack, random.Random(SEED), over)
        numbers = itertools.count()
        sending = [pool.submit(send, app, numbers, sent, began) for _ in range(SENDERS)]
        try:
            for one in sending:
                one.result()
            wait(lambda: time.monotonic() - began > KILLING_S or open_calls(stack) == 0, "the kills", KILLING_S + 9)
        finally:
            over.set()
    taken_s = time.monotonic() - began
    wait(lambda: open_calls(stack) == 0, "the calls to end", SETTLING_S)
    found = asyncio.run(account(stack, sent))
    tell(found, runs, killed.result(), sent, taken_s, time.monotonic() - began)
    check(found, sent, lines_of(runs))
    wait(lambda: not at_rest(stack), f"an end of what is left of calls, such as {at_rest(stack)}")


# -- sending ----------------------------------------------------------------------------------------------


def send(app, numbers, sent, began):
    """Have calls taken in, each until it is: what is not answered is sent again under the same key."""
    pause = threading.Event()
    limits = httpx.Limits(max_keepalive_connections=1)
    with httpx.Client(base_url=app.stack.url, timeout=30, limits=limits) as http:
        while (number := next(numbers)) < CALLS:
            pause.wait(max(0.0, began + number * SENDING_S / CALLS - time.monotonic()))
            while True:
                try:
                    answer = http.post(f"/{app.name}", content=str(number), headers=wishes(number))
                except httpx.TransportError:
                    answer = None
                if answer is not None and answer.status_code == 202:
                    sent.ids.setdefault(number, set()).add(answer.json()["id"])
                    break
                # 404: the route is not there for a moment while a gateway that lost Redis starts anew.
                assert answer is None or answer.status_code in (404, 429, 503), answer.text
                sent.again += 1
                pause.wait(0.05)


def wishes(number):
    """A call that always fails is tried twice; the others have attempts enough for all the kills."""
    retries = 1 if number % 50 == 0 else 20
    return {"prefer": "respond-async", "idempotency-key": f"number-{number}", "fngw-retries": str(retries)}


# -- killing ----------------------------------------------------------------------------------------------


def kill_at_random(stack, chance, over):
    """Kill (or pause) a part every second or so until told to stop; return which were, and how often."""
    killed, waking = Counter(), []
    try:
        for part in parts_at_random(chance):
            if over.wait(chance.uniform(0.5, 1.5)):
                return killed
            pids = pids_of(stack, part.removeprefix("paused "))
            if not pids:
                continue
            pid = chance.choice(pids)
            if part.startswith("paused "):
                signalled(pid, signal.SIGSTOP)
                waking.append(threading.Timer(PAUSE_S, signalled, (pid, signal.SIGCONT)))
                waking[-1].start()
            else:
                signalled(pid, signal.SIGKILL)
            killed[part] += 1
    finally:
        for timer in waking:  # none stays paused
            timer.join()
    return killed


def parts_at_random(chance):
    """Yield parts for ever: each as often as the others, in an order that nobody can foresee."""
    parts = ["fngw_gateway", "fngw_dispatcher", "fngw_controller", "fngw_runtime", "redis"]
    while True:
        yield from chance.sample([*parts, "fngw_dispatcher", "fngw_runtime", "paused fngw_dispatcher"], 8)


def signalled(pid, number):
    """Send a signal to a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def pids_of(stack, part):
    if part == "redis":
        pid = redis_pid(stack)
        return [] if pid is None else [pid]
    if part == "fngw_runtime":
        return replica_pids(stack)
    return stack.pids(part)


def replica_pids(stack):
    """The processes of replicas: they know their own directory, and nothing of the data directory."""
    run = str(default_run_dir(stack.data_dir)).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"fngw_runtime" in (path / "cmdline").read_bytes() and run in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return sorted(found)


def redis_url(stack):
    """Its URL does not change; the controller, whose environment has it, may be dead just now."""
    if not hasattr(stack, "known_redis_url"):
        stack.known_redis_url = stack.redis_url
    return stack.known_redis_url


def redis_pid(stack):
    try:
        with Redis.from_url(redis_url(stack), socket_timeout=2) as redis:
            return int(redis.info("server")["process_id"])
    except (RedisError, OSError):
        return None


# -- accounting -------------------------------------------------------------------------------------------


def open_calls(stack):
    """How many calls have not ended; None while Redis cannot tell."""
    try:
        with Redis.from_url(redis_url(stack), socket_timeout=5, decode_responses=True) as redis:
            return sum(map(int, redis.hvals(keys.CALLS_OPEN)))
    except (RedisError, OSError):
        return None


async def account(stack, sent):
    """Return what is known of each call: number → the call and its result."""
    store = Store(connect(redis_url(stack)))
    calls = Calls(store, Payloads(stack.data_dir / "payloads"))
    busy = asyncio.Semaphore(50)

    async def one(number, call_id):
        async with busy:
            return number, await calls.get(call_id), await calls.result(call_id)

    try:
        rows = await asyncio.gather(*(one(n, i) for n, ids in sent.ids.items() for i in ids))
    finally:
        await calls.close()
        await store.close()
    return {number: (call, result) for number, call, result in rows}


def lines_of(runs):
    """What the function wrote each time that it ran: call, attempt, number."""
    return [tuple(line.split()) for line in runs.read_text().splitlines()]


def check(found, sent, lines):
    """Hold every call to what was promised."""
    assert sorted(sent.ids) == list(range(CALLS))
    assert all(len(ids) == 1 for ids in sent.ids.values()), "a key named two calls"
    assert len({call.id for call, _ in found.values()}) == CALLS
    ran = Counter(call_id for call_id, _, _ in lines)
    attempts = Counter((call_id, attempt) for call_id, attempt, _ in lines)
    assert all(attempt.isdigit() for _, attempt, _ in lines)
    twice = [key for key, times in attempts.items() if times > 1]
    assert not twice, f"an attempt was made twice: {twice[:5]}"
    for number, (call, result) in found.items():
        assert isinstance(call, Call) and call.has_ended, (number, call)
        highest = max((int(attempt) for call_id, attempt in attempts if call_id == call.id), default=0)
        assert highest <= call.attempt <= call.retries + 1, (call, highest)
        check_one(number, call, result, ran[call.id])


def check_one(number, call, result, ran):
    expected = {"number": number, "double": number * 2}
    if number % 50 == 0:
        assert call.status == "failed" and call.error and call.attempt == 2, call
    elif call.status == "finished":
        assert ran >= 1, call
        assert result.status == (404 if number % 50 == 1 else 200)
        assert httpx.Response(200, content=result.body).json() == expected
    else:  # killed 21 times over: told so, with every attempt
        assert call.status == "failed" and len(call.tries) == call.attempt == 21, call


def at_rest(stack):
    """What is left of calls where nothing should be, once all have ended."""
    with Redis.from_url(redis_url(stack), decode_responses=True) as redis:
        lengths = {}
        for queue in (*keys.CALL_QUEUES, keys.CALLBACKS_QUEUE):
            lengths[queue] = redis.llen(keys.RQ_QUEUE + queue)
            for registry in (keys.RQ_STARTED, keys.RQ_SCHEDULED, keys.RQ_DEFERRED):
                lengths[registry + queue] = redis.zcard(registry + queue)
        lengths |= {name: redis.hlen(name) for name in (keys.CALLS_OPEN, keys.CALLS_RUNNING)}
        lengths |= {name: redis.zcard(name) for name in (keys.CALLS_LEASES,)}
    return {name: length for name, length in lengths.items() if length}


def tell(found, runs, killed, sent, taken_s, ended_s):
    """Print the account."""
    lines = lines_of(runs)
    statuses = Counter(call.status for call, _ in found.values())
    ran = Counter(call_id for call_id, _, _ in lines)
    again = sum(1 for times in ran.values() if times > 1)
    print(
        f"CALLS {len(found)} of {CALLS}: {dict(statuses)}; {len(lines)} runs, {again} calls ran more than once; "
        f"{sent.again} requests sent again; killed {sum(killed.values())}: {dict(killed)}; "
        f"kills over after {taken_s:.1f} s, all ended after {ended_s:.1f} s"
    )
