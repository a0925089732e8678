"""A gateway for the SDK's tests: the control API and the call protocol over real sockets, with scripted answers.

No controller is behind it: a deploy's events are what the test says, and calls run ``methods`` in this process.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fngw.errors import DeploymentNotFound, FngwError, Overloaded, ValidationError, to_problem
from fngw.protocol import (
    BEST_PICKLE,
    ERROR_TYPE,
    PROBLEM_TYPE,
    RESULT_TYPE,
    decode_frame,
    encode_frame,
    frame_pickle_protocol,
)
from fngw.spec import digest_of

API = "/-/api/v1"

LOCK = "sha256:" + "1" * 64
#: What a build comes to.
BUILT: dict[str, Any] = {
    "image": "sha256:" + "a" * 64,
    "ref": "fngw/app:3f2a",
    "lock": LOCK,
    "python": "",
    "app_dir": "",
    "environment": "fngw/env:77aa",
    "build": "",
    "layers": [
        {"what": "base", "digest": "sha256:" + "b" * 64, "size": 120 << 20, "reused": True},
        {"what": "environment", "digest": "sha256:" + "e" * 64, "size": 312 << 20, "reused": False},
        {"what": "code", "digest": "sha256:" + "c" * 64, "size": 9000, "reused": False},
    ],
    "reused": False,
    "seconds": 3.25,
}


def event(kind: str, message: str = "", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "message": message, **fields}


class FakeGateway:
    """What it was told, and what it shall answer. ``token``: refuse others."""

    def __init__(self) -> None:
        self.token = ""
        self.url = ""
        self.socket = ""
        self.bundle_limit = 2**20
        self.blobs: dict[str, bytes] = {}
        self.specs: dict[str, dict[str, Any]] = {}
        self.prev_versions: list[Any] = []
        self.refuse: FngwError | None = None
        self.outcome = "new"
        self.script = [event("accepted", "ok"), event("done", "up")]
        self.break_after: set[int] = set()  # numbers of events after which the stream breaks, once each
        self.resumed_from: list[str] = []
        self.methods: dict[str, Any] = {}
        self.cancelled = threading.Event()
        self.revision = 0
        self.given_up: list[tuple[int, str]] = []
        self.built: list[dict[str, Any]] = []  # specs
        self.build_script = [event("build", "solving"), event("done", "local:1", result=BUILT)]
        self.build_left = threading.Event()  # by a client that did not wait for its end
        self.locks: dict[str, str] = {}
        self.doctor_asked: list[str] = []
        self.checks: list[dict[str, str]] = []
        self.version = "0"

    # -- control API --------------------------------------------------------------------------------------

    async def info(self, request: Request) -> Response:
        return JSONResponse(
            {"version": self.version, "revision": self.revision, "limits": {"bundle": self.bundle_limit}}
        )

    async def list(self, request: Request) -> Response:
        return JSONResponse({"deployments": [{"name": n, "status": "HEALTHY"} for n in self.specs]})

    async def status(self, request: Request) -> Response:
        self._known(request)
        return JSONResponse({"name": request.path_params["name"], "status": "HEALTHY"})

    async def spec(self, request: Request) -> Response:
        return JSONResponse({"spec": self.specs[self._known(request)], "revision": self.revision, "serves": True})

    async def put(self, request: Request) -> Response:
        if self.refuse:
            raise self.refuse
        body = await request.json()
        code = body["spec"]["code"]["bundle"], body["spec"]["init"]
        if not set(filter(None, code)) <= set(self.blobs):
            raise ValidationError("a blob is missing")
        self.specs[request.path_params["name"]] = body["spec"]
        self.prev_versions.append(body["prev_version"])
        self.revision += 1
        return JSONResponse({"revision": self.revision, "outcome": self.outcome}, 202)

    async def delete(self, request: Request) -> Response:
        del self.specs[self._known(request)]
        self.revision += 1
        self.script = [event("deleted", "gone")]
        return JSONResponse({"revision": self.revision}, 202)

    async def patch(self, request: Request) -> Response:
        self.specs[self._known(request)].update(await request.json())
        self.revision += 1
        return JSONResponse({"revision": self.revision, "outcome": "update"}, 202)

    async def cancel(self, request: Request) -> Response:
        self.given_up.append((int(request.query_params["revision"]), request.query_params["reason"]))
        return JSONResponse({"revision": self.revision, "outcome": "cancelled"}, 202)

    async def events(self, request: Request) -> Response:
        after = request.headers.get("last-event-id", "")
        self.resumed_from.append(after)
        return StreamingResponse(self._events(int(after or -1) + 1), media_type="text/event-stream")

    async def _events(self, start: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        for index in range(start, len(self.script)):
            yield f"id: {index}\ndata: {json.dumps({'number': self.revision, **self.script[index]})}\n\n"
            if index in self.break_after:
                self.break_after.remove(index)
                return
        if self.script[-1]["kind"] not in ("done", "failed", "superseded", "deleted"):
            while True:  # until the client goes
                yield ": still here\n\n"
                await asyncio.sleep(0.02)

    async def build(self, request: Request) -> Response:
        if self.refuse:
            raise self.refuse
        spec = (await request.json())["spec"]
        assert spec["code"]["bundle"] in self.blobs
        self.built.append(spec)
        return StreamingResponse(self._build_events(), media_type="text/event-stream")

    async def _build_events(self) -> AsyncIterator[str]:
        for one in self.build_script:
            yield f"data: {json.dumps(one)}\n\n"
        try:
            while self.build_script[-1]["kind"] == "progress":  # under way, until the client goes
                yield ": building\n\n"
                await asyncio.sleep(0.02)
        finally:
            self.build_left.set()

    async def lock(self, request: Request) -> Response:
        if request.path_params["digest"] not in self.locks:
            raise FngwError("there is no such lock", code="lock_missing", status=404)
        return PlainTextResponse(self.locks[request.path_params["digest"]])

    async def doctor(self, request: Request) -> Response:
        self.doctor_asked.append(request.query_params["python"])
        return JSONResponse({"version": self.version, "time": time.time(), "checks": self.checks})

    async def prune(self, request: Request) -> Response:
        if self.refuse:
            raise self.refuse
        return JSONResponse({"freed": 3 << 30, "left": {"packages": 0, "uv": 1 << 20}})

    async def logs(self, request: Request) -> Response:
        return PlainTextResponse("".join(f"{k}={v}\n" for k, v in sorted(request.query_params.items())))

    async def blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if request.method == "HEAD":
            return Response(status_code=200 if digest in self.blobs else 404)
        body = await request.body()
        assert digest_of(body) == digest
        assert digest not in self.blobs, "it was asked for before"
        self.blobs[digest] = body
        return Response(status_code=201)

    def _known(self, request: Request) -> str:
        name = str(request.path_params["name"])
        if name not in self.specs:
            raise DeploymentNotFound(f"no deployment is named {name!r}")
        return name

    # -- calls --------------------------------------------------------------------------------------------

    async def call(self, request: Request) -> Response:
        name = f"{request.path_params['name']}.{request.path_params['method']}"
        body = await request.body()
        if name == "full.__call__":
            raise Overloaded("the queue of full is full")
        if name not in self.methods:
            raise DeploymentNotFound(f"no deployment is named {name!r}")
        working = asyncio.ensure_future(self._work(name, body))
        gone = asyncio.ensure_future(self._gone(request))
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            self.cancelled.set()
            return Response(status_code=499)
        gone.cancel()
        return working.result()

    async def _gone(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    async def _work(self, name: str, body: bytes) -> Response:
        protocol = frame_pickle_protocol(body)
        try:
            args, kwargs = decode_frame(body)
            result = self.methods[name](*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            return self._frame(result, RESULT_TYPE, 200, protocol)
        except Exception as error:
            return self._failure(error, protocol)

    def _failure(self, error: Exception, protocol: int) -> Response:
        failure = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
            "cause": getattr(error, "cause_bytes", None) or pickle.dumps(error),
            "code": getattr(error, "code", "user_exception"),
        }
        return self._frame(failure, ERROR_TYPE, 500, protocol)

    def _frame(self, value: Any, kind: str, status: int, protocol: int = BEST_PICKLE) -> Response:
        frame = encode_frame(value, by_value=True, protocol=protocol)
        return Response(b"".join(frame), status, media_type=kind)

    # -- the application ----------------------------------------------------------------------------------

    def app(self) -> Any:
        routes = [
            Route(API + "/info", self.info),
            Route(API + "/deployments", self.list),
            Route(API + "/deployments/{name}", self.status),
            Route(API + "/deployments/{name}", self.put, methods=["PUT"]),
            Route(API + "/deployments/{name}", self.delete, methods=["DELETE"]),
            Route(API + "/deployments/{name}", self.patch, methods=["PATCH"]),
            Route(API + "/deployments/{name}/cancel", self.cancel, methods=["POST"]),
            Route(API + "/deployments/{name}/spec", self.spec),
            Route(API + "/deployments/{name}/events", self.events),
            Route(API + "/deployments/{name}/logs", self.logs),
            Route(API + "/blobs/{digest}", self.blob, methods=["HEAD", "PUT"]),
            Route(API + "/builds", self.build, methods=["POST"]),
            Route(API + "/locks/{digest}", self.lock),
            Route(API + "/doctor", self.doctor),
            Route(API + "/prune", self.prune, methods=["POST"]),
            Route("/-/call/{name}/{method}", self.call, methods=["POST"]),
        ]
        starlette = Starlette(routes=routes, exception_handlers={FngwError: _problem})

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            sent = dict(scope.get("headers", [])).get(b"authorization", b"").decode()
            if self.token and scope["type"] == "http" and sent != f"Bearer {self.token}":
                await Response("no", 401)(scope, receive, send)
            else:
                await starlette(scope, receive, send)

        return guarded


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, FngwError)
    return Response(json.dumps(to_problem(error)), error.status, media_type=PROBLEM_TYPE)


@contextmanager
def serving(gateway: FakeGateway, folder: Path) -> Iterator[FakeGateway]:
    """Serve it on a TCP port and a Unix socket, from a thread."""
    gateway.socket = str(folder / "gateway.sock")
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    unix.bind(gateway.socket)
    gateway.url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
    config = uvicorn.Config(gateway.app(), log_level="warning", lifespan="off", timeout_keep_alive=30)
    server = uvicorn.Server(config)
    started = threading.Event()

    async def startup(sockets: Any = None) -> None:
        await original(sockets)
        started.set()

    original, server.startup = server.startup, startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [tcp, unix]})
    thread.start()
    assert started.wait(60)
    try:
        yield gateway
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
        tcp.close()
        unix.close()
