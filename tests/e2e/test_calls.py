"""Calls that wait, on whole stacks: made over HTTP, from Python, in a replica and by the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from fngw_state import keys

SOURCE = """
import hashlib
import time
from pathlib import Path
import fngw
from starlette.responses import JSONResponse, Response, StreamingResponse

@fngw.deployment
class App:
    async def __call__(self, request):
        body = await request.body()
        query = request.query_params
        if "flaky" in query and request.headers["fngw-attempt"] != query["flaky"]:
            return Response("not yet", 503, headers={"retry-after": "0"})
        if "stream" in query:
            return StreamingResponse(iter(["piece\\n"] * int(query["stream"])))
        if "status" in query:
            answer = Response(b"" if query["status"] == "204" else b"kept", int(query["status"]))
            answer.set_cookie("a", "1")
            answer.set_cookie("b", "2")
            return answer
        told = {name: request.headers.get(name) for name in ("fngw-call-id", "fngw-attempt", "x-mine", "prefer")}
        sha = hashlib.sha256(body).hexdigest()
        return {"method": request.method, "path": request.url.path, "query": str(query), "sha256": sha, **told}

    def double(self, value):
        return value * 2

    def fail(self):
        raise LookupError("nothing there")

    def wait_for(self, path):
        while not Path(path).exists():
            time.sleep(0.05)
        return "done"

    def create(self, path):
        Path(path).touch()

    def remove(self, path):
        Path(path).unlink()

    def submit_inside(self, name, value):
        return fngw.get_deployment(name).get_handle().double.submit(value).id
"""


@pytest.fixture
def app(stack, project):
    return deployed(project(stack))


@pytest.fixture
def process_app(process_stack, project):
    return deployed(project(process_stack))


def deployed(app):
    app.write(SOURCE)
    app.deployed()
    return app


def later(http, app, method="POST", path="", **more):
    headers = {"prefer": "respond-async", **more.pop("headers", {})}
    return http.request(method, f"/{app.name}{path}", headers=headers, **more)


def test_a_request_is_made_later_as_it_was(app):
    body = bytes(range(256)) * 5000
    with app.stack.http as http:
        asked = later(http, app, "PUT", "/x/y?a=1&a=2", content=body, headers={"x-mine": "5"})
        assert (asked.status_code, asked.headers["preference-applied"]) == (202, "respond-async")
        result = http.get(f"{asked.headers['location']}/result", params={"wait": 50})
        expected = {
            "method": "PUT",
            "path": f"/{app.name}/x/y",
            "query": "a=1&a=2",
            "sha256": hashlib.sha256(body).hexdigest(),
            "fngw-call-id": asked.json()["id"],
            "fngw-attempt": "1",
            "x-mine": "5",
            "prefer": None,
        }
        assert (result.status_code, result.json()) == (200, expected)
        status = http.get(asked.headers["location"]).json()
        assert (status["status"], status["attempts"], status["error"]) == ("finished", 1, None)


def test_results_of_many_kinds(process_app):
    app = process_app
    with app.stack.http as http:
        for status in (204, 404, 201):
            asked = later(http, app, path=f"?status={status}")
            result = http.get(f"{asked.headers['location']}/result", params={"wait": 50})
            assert result.status_code == status
            assert [c.partition(";")[0] for c in result.headers.get_list("set-cookie")] == ["a=1", "b=2"]
            assert result.content == (b"" if status == 204 else b"kept")
        streamed = later(http, app, path="?stream=500")
        assert http.get(f"{streamed.headers['location']}/result", params={"wait": 50}).text == "piece\n" * 500
        waited = later(http, app, headers={"prefer": "respond-async, wait=50"}, content=b"x")
        assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=50")
        flaky = later(http, app, path="?flaky=3")
        result = http.get(f"{flaky.headers['location']}/result", params={"wait": 50})
        assert (result.status_code, result.json()["fngw-attempt"]) == (200, "3")


CALLER = """
import sys
import fngw

name, path = sys.argv[1], f"/tmp/{sys.argv[1]}"  # in the replica
handle = fngw.get_deployment(name).get_handle()
call = handle.double.submit(21)
assert call.result(timeout=60) == 42
assert fngw.Call.from_id(call.id).result() == 42
held = handle.wait_for.submit(path)
try:
    held.result(timeout=0.3)
except TimeoutError:
    handle.create.remote(path).result()
assert held.result(timeout=60) == "done"
handle.remove.remote(path).result()
try:
    handle.options(retries=0).fail.submit().result(timeout=60)
except fngw.RemoteError as error:
    assert isinstance(error.cause, LookupError), error.cause
inside = handle.submit_inside.remote(name, "ab").result(timeout=60)
assert fngw.Call.from_id(inside).result(timeout=60) == "abab"
slow = handle.options(delay_s=300, idempotency_key="k").double.submit(1)
assert slow.status() == "delayed" and slow.cancel() and slow.status() == "cancelled"
print("all well")
"""


def test_from_python_and_inside_a_replica(app, script):
    done = script(app.stack, CALLER, app.name)
    assert done.stdout == "all well\n"


BACKLOG = """
import sys
import fngw

name, path = sys.argv[1], f"/tmp/{sys.argv[1]}-open"
handle = fngw.get_deployment(name).get_handle()
backlog = [handle.wait_for.submit(path) for _ in range(6)]
for number in range(20):
    assert handle.double.remote(number).result(timeout=60) == 2 * number
assert sum(call.status() == "running" for call in backlog) <= 1
handle.create.remote(path).result(timeout=60)
assert [call.result(timeout=60) for call in backlog] == ["done"] * 6
handle.remove.remote(path).result()
print("all well")
"""


def test_a_backlog_does_not_starve_direct_requests(process_stack, project, script):
    """Of two places queued calls take one, however long they take."""
    app = project(process_stack)
    app.write(SOURCE)
    app.deployed(num_replicas=1, max_concurrent_queries=2)
    assert script(app.stack, BACKLOG, app.name).stdout == "all well\n"


def test_the_command_line(process_app):
    app = process_app
    fngw = app.stack.fngw
    made = json.loads(fngw("call", app.name, "--method", "double", "--data", '"ab"', "--async", "--json").stdout)
    assert fngw("calls", "result", made["id"], "--timeout", "60").stdout == "abab\n"
    assert json.loads(fngw("calls", "result", made["id"], "--json").stdout) == {"result": "abab"}
    listed = json.loads(fngw("calls", "list", "--deployment", app.name, "--json").stdout)["calls"]
    assert [call["id"] for call in listed] == [made["id"]]
    table = fngw("calls", "list", "--status", "finished").stdout
    assert f"{made['id']}  {app.name}" in table
    assert "finished, POST /-/call/" in fngw("calls", "get", made["id"]).stdout
    assert json.loads(fngw("calls", "cancel", made["id"], "--json").stdout)["calls"][0]["status"] == "finished"
    again = fngw("calls", "retry", made["id"], "--json", check=False)
    assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (1, "call_not_failed")
    gone = fngw("calls", "get", "01KAQ7V2M4ZJ0C3S9W8X5T6RNE", check=False)
    assert gone.returncode == 3


def test_a_call_waits_for_replicas_and_fails_when_its_deployment_goes(process_app, wait):
    app = process_app
    with app.stack.http as http, Redis.from_url(app.stack.redis_url) as redis:
        kept = later(http, app, headers={"fngw-delay": "300"})
        http.delete(f"/-/api/v1/deployments/{app.name}")
        wait(lambda: http.get(f"/-/api/v1/deployments/{app.name}").status_code == 404, "its deployment to be gone")
        # The clock is put forward: the call is due.
        assert redis.zadd(keys.RQ_SCHEDULED + "calls", {kept.json()["id"]: 1}, xx=True, ch=True) == 1
        status = http.get(kept.headers["location"], params={"wait": 50}).json()
        assert (status["status"], status["error"]["code"]) == ("failed", "deployment_gone")


def test_rq_and_its_tools_show_the_calls(process_app):
    from rq import Queue
    from rq.job import Job
    from rq.serializers import JSONSerializer

    app = process_app
    with app.stack.http as http, Redis.from_url(app.stack.redis_url) as redis:
        delayed = later(http, app, headers={"fngw-delay": "300", "fngw-priority": "low"}).json()["id"]
        ended = later(http, app).json()["id"]
        http.get(f"/-/calls/{ended}", params={"wait": 50})
        job = Job.fetch(ended, connection=redis, serializer=JSONSerializer)
        assert job.is_finished
        queue = Queue("calls-low", connection=redis, serializer=JSONSerializer)
        assert delayed in queue.scheduled_job_registry.get_job_ids()
        url = (app.stack.data_dir / "redis" / "url").read_text().strip()
        rq = Path(sys.executable).with_name("rq")
        shown = subprocess.run([rq, "info", "--raw", "--url", url], capture_output=True, text=True, check=True)
        assert "queue calls-low 0, 0 executing" in shown.stdout
        assert "worker dispatcher-" in shown.stdout
        http.delete(f"/-/calls/{delayed}")


def test_schedules(process_app, wait):
    app = process_app
    fngw = app.stack.fngw
    words = ("--method", "double", "--data", "3", "--json")
    asked = time.time()
    made = json.loads(fngw("calls", "schedule", app.name, "* * * * *", *words).stdout)
    assert (made["name"], made["target"]) == (app.name, f"/-/call/{app.name}/double")
    assert asked < made["next"] <= time.time() + 60
    with app.stack.http as http:
        own = {"schedule": "@yearly", "schedule_timezone": "Asia/Tokyo"}
        changed = http.patch(f"/-/api/v1/deployments/{app.name}", json=own)
        assert changed.status_code == 202
        wait(lambda: f"@{app.name}" in fngw("calls", "schedule").stdout, "the deployment's own schedule")
        # The clock is put back: the tick of this minute is due.
        with Redis.from_url(app.stack.redis_url) as redis:
            wait(lambda: redis.hexists(keys.SCHEDULE_TICKS, app.name), "the first look at the schedule")
            redis.hset(keys.SCHEDULE_TICKS, app.name, made["next"] - 61)
        listed = {"deployment": app.name}
        made_by_it = wait(lambda: http.get("/-/calls", params=listed).json()["calls"], "its call", 90)
        result = json.loads(fngw("calls", "result", made_by_it[0]["id"], "--timeout", "60", "--json").stdout)
        assert result == {"result": 6}
    minutely = "* * * * *"
    odd_zone, odd_name = [minutely, "--timezone", "Mars/Olympus"], [minutely, "--name", "a b"]
    for words in (["* * * *"], ["61 * * * *"], odd_zone, odd_name):
        refused = fngw("calls", "schedule", app.name, *words, "--json", check=False)
        assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (1, "validation_error"), words
    assert fngw("calls", "schedule", "nobody", "@daily", check=False).returncode == 3
    assert fngw("calls", "schedule", app.name, check=False).returncode == 2
    assert fngw("calls", "schedule", app.name, "--remove").stdout == f"removed {app.name}\n"
    gone = fngw("calls", "schedule", app.name, "--remove", "--json", check=False)
    assert json.loads(gone.stdout)["error"]["code"] == "schedule_not_found"
