"""Parts that die, freeze or forget, on real stacks: replicas are replaced or kept, and requests go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from fngw_state import keys

SOURCE = """
import asyncio
import hashlib
import os
import time
import fngw
from starlette.responses import Response

@fngw.deployment
class App:
    def __init__(self, gate=""):
        while gate and not os.path.exists(gate):
            time.sleep(0.02)

    async def __call__(self, request):
        query = request.query_params
        if "stream" in query:
            return self.lines(int(query["stream"]))
        if "size" in query:
            return Response(b"x" * int(query["size"]), headers={"app-version": "one"})
        body = await request.body()
        return {"version": "one", "pid": os.getpid(), "sha256": hashlib.sha256(body).hexdigest()}

    async def lines(self, count):
        for _ in range(count):
            yield "one\\n"
            await asyncio.sleep(0.02)

    def tell(self, argument):
        return {"version": "one", "argument": argument}
"""


@pytest.fixture
def app(stack, project):
    return prepared(project(stack))


@pytest.fixture
def process_app(process_stack, project):
    return prepared(project(process_stack))


def prepared(app):
    app.write(SOURCE)
    return app


def works(app):
    return httpx.get(f"{app.stack.url}/{app.name}", timeout=60).status_code == 200


def kill(stack, module):
    """Kill a part of a stack; return its process id."""
    old = stack.pid(module)
    os.kill(old, signal.SIGKILL)
    return old


def kill_replica(app, replica_id, pid):
    if app.stack.engine == "process":
        os.kill(pid, signal.SIGKILL)
    else:
        words = ["docker", "ps", "-q", "--filter", f"label=org.fngw.replica={replica_id}"]
        container = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)


def test_a_replica_that_is_killed_is_replaced(app, wait):
    """Within seconds: a machine that has other things to do may take longer for one, but not for each of three."""
    replicas, taken = app.deployed(version="1", num_replicas=2), []
    while not any(started < 5 and healthy < 10 for started, healthy in taken):
        assert len(taken) < 3, taken
        victim, killed = min(replicas), time.time()
        kill_replica(app, victim, replicas[victim])
        found = wait(lambda gone=victim: others(app, gone), "two replicas")
        assert (replicas.keys() - {victim}) <= found.keys()
        [replica_id] = found.keys() - replicas.keys()
        times = wait(lambda new=replica_id: told_of(app, new), "a word of its health")
        taken.append([at - killed for at in times])
        replicas = found
    print(f"REPLACED {app.stack.engine}: started, serving {taken} s after the kill")


def told_of(app, replica_id):
    """When a replica was told to start, and when it was healthy (Unix seconds); None before that was told."""
    with Redis.from_url(app.stack.redis_url, decode_responses=True) as redis:
        entries = redis.xrange(keys.EVENTS + app.name)
    told = [(entry, json.loads(fields["e"])) for entry, fields in entries]
    times = {e["state"]: float(i.split("-")[0]) / 1000 for i, e in told if e.get("replica") == replica_id}
    return (times["starting"], times["healthy"]) if "healthy" in times else None


def others(app, victim):
    found = app.stack.replicas(app.name)
    return found if len(found) == 2 and victim not in found else None


def test_a_killed_controller_adopts_what_runs(app, traffic, wait):
    first = app.deployed(version="1", num_replicas=2)
    with traffic(app.stack, app.name) as load:
        old = kill(app.stack, "fngw_controller")
        began = time.monotonic()
        wait(lambda: app.stack.pids("fngw_controller") not in ([], [old]), "a new controller")
        wait(lambda: leads_since(app.stack, began), "a new leader")
        # It works: what is asked of it now is done, and the replicas are the same ones.
        assert first.items() <= app.deployed(version="1", num_replicas=3).items()
    print(f"ADOPTED {app.stack.engine}: {load.answers} answers")
    assert not load.errors, load.errors
    assert first.items() <= app.stack.replicas(app.name).items()


def leads_since(stack, began):
    pid = stack.pid("fngw_controller")
    with Redis.from_url(stack.redis_url, decode_responses=True) as redis:
        return f"-{pid}-" in (redis.get(keys.LEADER) or "")


def test_a_controller_killed_in_the_middle_of_an_update_finishes_it(process_app, traffic, wait, tmp_path):
    app, gate = process_app, tmp_path / "gate"
    first = app.deployed(version="1", num_replicas=3)
    with traffic(app.stack, app.name) as load:
        update = app.begin(str(gate), version="2", num_replicas=3)
        wait(lambda: len(app.stack.status(app.name)["replicas"]) == 4, "the first new replica, which stays unready")
        kill(app.stack, "fngw_controller")
        gate.touch()
        assert app.end(update) is None
    assert not load.errors, load.errors
    second = app.stack.replicas(app.name)
    assert len(second) == 3 and not second.keys() & first.keys()


def test_a_killed_gateway_worker_is_back_at_once(process_app, wait):
    app = process_app
    app.deployed(version="1")
    old = kill(app.stack, "fngw_gateway")
    # The listening socket is the supervisor's: a connection waits there for the next worker.
    began = time.monotonic()
    assert works(app)
    print(f"GATEWAY: first answer {time.monotonic() - began:.2f} s after the kill")
    assert app.stack.pids("fngw_gateway") != [old]
    assert len(app.deployed(version="1", num_replicas=2)) == 2


def test_gateways_serve_on_while_redis_is_away(process_app, traffic, wait):
    app = process_app
    first = app.deployed(version="1")
    with traffic(app.stack, app.name) as load:
        old = kill_redis(app.stack)
        wait(lambda: redis_pid(app.stack) not in (None, old), "a new Redis")
        assert first.items() <= app.deployed(version="1", num_replicas=2).items()
    assert not load.errors, load.errors


def redis_pid(stack):
    try:
        with Redis.from_url(stack.redis_url) as redis:
            return int(redis.info("server")["process_id"])
    except (RedisError, OSError):
        return None


def kill_redis(stack):
    pid = redis_pid(stack)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_an_emptied_redis_stops_nothing_and_is_filled_again(app, traffic, wait):
    first = app.deployed(version="1", num_replicas=2)
    with traffic(app.stack, app.name) as load:
        with Redis.from_url(app.stack.redis_url) as redis:
            redis.flushall()
            wait(lambda: redis.hexists(keys.DESIRED, app.name) and redis.exists(keys.ROUTES), "desired state")
        wait(lambda: healthy(app), "a status")
        assert app.stack.replicas(app.name) == first
        assert first.items() <= app.deployed(version="1", num_replicas=3).items()
    assert not load.errors, load.errors


def healthy(app):
    answer = httpx.get(f"{app.stack.url}/-/api/v1/deployments/{app.name}", timeout=60)
    return answer.status_code == 200 and answer.json()["status"] == "HEALTHY"


def test_a_builder_that_is_killed_during_a_build_loses_none(app, wait):
    pids = app.stack.pids("fngw_builder")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    deploy = app.begin(version="1")
    with Redis.from_url(app.stack.redis_url, decode_responses=True) as redis:
        wait(lambda: redis.hexists(keys.DESIRED, app.name), "the deploy to be accepted")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert app.end(deploy) is None
    assert works(app)


# -- two controllers --------------------------------------------------------------------------------------


@pytest.fixture
def second_controller(process_stack):
    """Starts another controller of the same stack, by hand."""
    started = []

    def start():
        first = process_stack.pid("fngw_controller")
        pairs = Path(f"/proc/{first}/environ").read_bytes().split(b"\0")
        env = dict(pair.decode().partition("=")[::2] for pair in pairs if pair)
        env["FNGW_STOP_REPLICAS_ON_EXIT"] = "0"
        python = Path(f"/proc/{first}/cmdline").read_bytes().split(b"\0")[0].decode()
        command = [python, "-P", "-m", "fngw_controller"]
        log = (process_stack.data_dir / "logs" / "second.log").open("w")
        started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        log.close()
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        assert process.wait(timeout=60) is not None


def leader_pid(stack):
    with Redis.from_url(stack.redis_url, decode_responses=True) as redis:
        value = redis.get(keys.LEADER)
    return int(value.rpartition("|")[0].split("-")[-2]) if value else None


@pytest.mark.slow
def test_of_two_controllers_one_leads_and_a_frozen_one_writes_nothing(
    process_app, traffic, wait, second_controller
):
    app, stack = process_app, process_app.stack
    replicas = app.deployed(version="1", num_replicas=2)
    old = wait(lambda: leader_pid(stack), "a leader")
    second = second_controller()
    wait(lambda: "another controller leads" in stack.log("second"), "the second one to wait")
    assert leader_pid(stack) == old
    url = stack.redis_url
    with traffic(stack, app.name) as load:
        os.kill(old, signal.SIGSTOP)
        frozen = time.monotonic()
        wait(lambda: leader_pid(stack) == second.pid, "the second one to lead")
        print(f"TAKEN OVER: {time.monotonic() - frozen:.2f} s after the freeze")
        assert app.deployed(version="1", num_replicas=3).items() >= replicas.items()
        with Redis.from_url(url, decode_responses=True) as redis:
            before = seen_in(redis, app.name)
            os.kill(old, signal.SIGCONT)
            wait(lambda: old not in stack.pids("fngw_controller"), "the woken one to leave")
            assert seen_in(redis, app.name) == before
        assert leader_pid(stack) == second.pid
    assert not load.errors, load.errors
    assert app.stack.replicas(app.name).items() >= replicas.items()


def seen_in(redis, name):
    """What a leader writes."""
    written = [redis.hgetall(keys.DESIRED), redis.hgetall(keys.STATUS), redis.get(keys.ROUTES)]
    return [*written, redis.get(keys.FENCE), redis.get(keys.GENERATION), redis.xlen(keys.EVENTS + name)]
