"""`fngw up` with stand-ins for the parts: `stand_in.py up [--ready-fd N]`, which starts `stand_in.py part NAME`.

Each part appends what happens to it to `$EVENTS`: a JSON line {"part", "what", "pid", "redis"}, where `redis` tells
whether Redis' socket was still there. `$BEHAVIOUR` is JSON: a part's name to "dies" (at its start, with code 3) or
"stubborn" (ignores SIGTERM). With `$FORKED`, the parts are forks of the nursery.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fngw_supervisor.parts import Part, Site


def plan(site: Site) -> Iterator[Part]:
    from fngw_supervisor.parts import INTERPRETER, plan_parts

    program = (*INTERPRETER, "stand_in_part") if os.environ.get("FORKED") else (sys.executable, __file__)
    for part in plan_parts(site):
        env = {**part.env, "REDIS_SOCKET": str(site.layout.redis_socket), "PYTHONPATH": str(Path(__file__).parent)}
        yield dataclasses.replace(part, argv=(*program, "part", part.name), env=env)


def tell(part: str, what: str) -> None:
    redis = Path(os.environ["REDIS_SOCKET"]).exists()
    with Path(os.environ["EVENTS"]).open("a") as events:
        events.write(json.dumps({"part": part, "what": what, "pid": os.getpid(), "redis": redis}) + "\n")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (await reader.readline()).strip():
        pass
    body = str(os.getpid()).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def serve() -> None:
    for name in ("FNGW_FD", "FNGW_UNIX_FD"):
        listener = socket.socket(fileno=int(os.environ[name]))
        if listener.family == socket.AF_UNIX:
            await asyncio.start_unix_server(answer, sock=listener)
        else:
            await asyncio.start_server(answer, sock=listener)


async def live(name: str) -> None:
    behaviour = json.loads(os.environ.get("BEHAVIOUR", "{}")).get(name, "")
    tell(name, "start")
    if behaviour == "dies":
        print("a last word", flush=True)
        sys.exit(3)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: tell(name, "deaf")) if behaviour == "stubborn" else ended.set)
    if name.startswith("gateway"):
        await serve()
    tell(name, "lives")
    await ended.wait()
    tell(name, "end")


def supervise(arguments: argparse.Namespace) -> int:
    from fngw_supervisor.__main__ import up_with
    from fngw_supervisor.up import up

    up_with(lambda settings, ready: up(settings, ready, plan), arguments.ready_fd)
    return 0


def main() -> int:
    if sys.argv[1] == "part":  # these import nothing of fngw: many of them start in these tests
        asyncio.run(live(sys.argv[2]))
        return 0
    from fngw_supervisor.__main__ import reporting

    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--ready-fd", type=int)
    arguments = parser.parse_args()
    return reporting(lambda: supervise(arguments))


if __name__ == "__main__":
    sys.exit(main())
