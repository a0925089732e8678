"""User code for the runtime's tests: functions and classes as people write them."""

import asyncio
import gc
import os
import pathlib
import sys
import threading
import time
import weakref


def hello():
    return "hello"


async def echo(request):
    return {
        "path": request.url.path,
        "root_path": request.scope["root_path"],
        "query": dict(request.query_params),
        "body": (await request.body()).decode(),
        "request_id": request.headers.get("x-request-id"),
        "private": [name for name in request.headers if name.startswith("fngw-")],
        "gateway": os.environ["FNGW_GATEWAY_SOCKET"],
        "cwd": str(pathlib.Path.cwd()),
        "main_path": sys.path[0],
    }


def fails(request):
    raise ValueError("no luck")


def leaves():
    sys.exit(3)


async def cancels():
    raise asyncio.CancelledError


def odd_result():
    return {1, 2}


def large():
    return b"x" * 50_000_000


class Letter:
    """What ``fngw.deployment`` makes of a function: known by its shape."""

    def __init__(self, func_or_class):
        self.func_or_class = func_or_class

    def __call__(self):
        raise RuntimeError("call .deploy() first")


wrapped = Letter(hello)


class Greeter:
    """Methods of every kind."""

    def __init__(self, message="hi", *, loud=False):
        self.lock = asyncio.Lock()  # wants an event loop before Python 3.10
        self.message = message.upper() if loud else message
        self.config = None

    def reconfigure(self, config):
        if config.get("fail"):
            raise KeyError("fail")
        self.config = config

    def __call__(self, request):
        return {"message": self.message, "config": self.config}

    def greet(self, name, *, end="!"):
        return self.message + " " + name + end

    async def double(self, array):
        array *= 2
        return array

    def crash(self):
        raise LookupError("nothing here")

    def generate(self):
        yield 1

    def thread(self):
        return threading.Lock()

    def _secret(self):
        return "secret"


class AsyncStart:
    async def __init__(self, value):
        await asyncio.sleep(0)
        self.value = value

    async def reconfigure(self, config):
        self.value += config

    async def __call__(self):
        return self.value


class BadStart:
    def __init__(self):
        self.prepare()

    def prepare(self):
        raise ValueError("no weights at /nowhere")


class ExitingStart:
    def __init__(self):
        sys.exit("no licence")


class SlowStart:
    """Waits for a file before it is constructed."""

    def __init__(self, path):
        wait_for(path)

    def __call__(self):
        return "at last"


class Sick:
    def __init__(self, path):
        self.path = pathlib.Path(path)

    def check_health(self):
        if self.path.exists():
            raise RuntimeError("the model forgot everything")

    def __call__(self):
        return "still here"


class Worker:
    """Tells by files in ``folder`` what happens to it, and waits for the file ``go`` there."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def mark(self, name):
        (self.folder / name).touch()

    def check_health(self):
        self.mark("checked")

    async def __call__(self, request):
        self.mark("begun-" + request.query_params.get("n", ""))
        try:
            while not (self.folder / "go").exists():  # noqa: ASYNC110  told from another process
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.mark("cancelled")
            await asyncio.sleep(0.05)  # cleaning up takes a moment, and is not cancelled again
            self.mark("cleaned-up")
            raise
        return "finished"

    def blocking(self):
        self.mark("begun-blocking")
        wait_for(self.folder / "go")
        self.mark("ended-blocking")
        return "finished"

    async def waiting(self):
        return await self(Query())

    def __del__(self):
        print("goodbye from", os.getpid(), flush=True)
        self.mark("deleted")
        if (self.folder / "fail-to-delete").exists():
            raise OSError("cannot let go")


class Query:
    def __init__(self):
        self.query_params = {}


class SyncStream:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def __call__(self, request):
        if "fail" in request.query_params:
            yield "first"
            raise ValueError("broke off")
        if "number" in request.query_params:
            yield 5
        try:
            for number in range(3):
                yield "line %d\n" % number
            if "endless" in request.query_params:
                while True:
                    yield b"x" * 1000
        finally:
            (self.folder / "closed").touch()


class AsyncStream:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    async def __call__(self, request):
        try:
            async for chunk in request.stream():
                yield chunk
            while "endless" in request.query_params:
                yield b"x"
                await asyncio.sleep(0.01)
        finally:
            (self.folder / "closed").touch()


def response(request):
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("made by hand", status_code=418, headers={"x-mine": "1"})


def arrays():
    import numpy

    return {"scalar": numpy.float32(0.5), "array": numpy.arange(4).reshape(2, 2)}


class NotCallable:
    def method(self):
        return 1


def wait_for(path):
    deadline = time.monotonic() + 60
    while not pathlib.Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(str(path))
        time.sleep(0.01)


class Garbage:
    """What is imported is set apart from the collector; what the constructor makes is not."""

    def __init__(self):
        self.collecting, self.set_apart = gc.isenabled(), gc.get_freeze_count()
        made = Cycle()
        made.itself = made
        self.made = weakref.ref(made)

    def __call__(self):
        gc.collect()
        return {"collecting": self.collecting, "set_apart": self.set_apart, "left": self.made() is not None}


class Cycle:
    pass
