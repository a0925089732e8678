"""One replica process from start to exit: bind, load, serve, drain, leave.

Neighbours: ``lifecycle`` knows the states of the user's object, ``server`` adapts uvicorn, ``asgi`` answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Coroutine, Optional

from fngw import protocol
from fngw.listening import several
from fngw.protocol import ReplicaConfig
from fngw_runtime.asgi import App
from fngw_runtime.lifecycle import Replica
from fngw_runtime.reports import say
from fngw_runtime.server import Server, make_server

__all__ = ["main"]

BACKLOG = 2048
#: How long cancelled tasks may clean up, and uvicorn close its connections, however short the grace.
CLOSING_TIME = 2.0


def main() -> int:
    """Serve the replica until SIGTERM or SIGINT; return the exit status: 0 after a drain, 2 without a config."""
    directory = Path(os.environ.get(protocol.REPLICA_DIR_VARIABLE, ".")).absolute()
    try:
        config = read_config(directory)
    except (OSError, ValueError, TypeError) as error:
        say(
            f"cannot read {protocol.CONFIG_FILE} of the replica directory '{directory}': {error}; "
            f"set {protocol.REPLICA_DIR_VARIABLE} to a directory that the controller prepared"
        )
        return 2
    listener = bind(directory / protocol.SOCKET_FILE)
    prepare(config)
    status = run_loop(serve(config, directory, listener))
    if status is not None:
        return status
    # Threads still in user code would hold the interpreter's exit until they end, which may be never.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def read_config(directory: Path) -> ReplicaConfig:
    """Return the replica's configuration.

    Raises:
        OSError: the file cannot be read.
        ValueError, TypeError: it is not a configuration.
    """
    text = (directory / protocol.CONFIG_FILE).read_text(encoding="utf-8")
    return ReplicaConfig.from_dict(json.loads(text))


def bind(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, so that callers can connect (and wait) from now on.

    It is made beside and then renamed: whoever finds it can connect, and a stale one is replaced.
    """
    new = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(new))
    new.chmod(0o777)  # the gateway may run as another user; the directory above keeps strangers out
    listener.listen(BACKLOG)
    listener.setblocking(False)
    new.replace(path)
    return listener


def prepare(config: ReplicaConfig) -> None:
    """Make the process look to user code as if it had been started in its own folder."""
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # where `python -m` was started, which is nobody's code
    sys.path.insert(0, config.app_dir)
    with contextlib.suppress(OSError):  # a by-value pickle needs no folder of its own
        os.chdir(config.app_dir)
    gateway = Path(config.shared_dir, protocol.GATEWAY_SOCKET_FILE)
    os.environ[protocol.GATEWAY_SOCKET_VARIABLE] = str(gateway)


async def serve(config: ReplicaConfig, directory: Path, listener: socket.socket) -> Optional[int]:
    """Serve until a signal, then drain. Return the exit status, or None when threads are still in user code."""
    loop = asyncio.get_event_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    replica = Replica(config, directory)
    server = make_server(App(replica))
    serving = asyncio.ensure_future(server.serve(sockets=several(listener)))
    replica.start()
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()  # uvicorn ended unasked: its exception is the reason
        return 1
    await leave(replica, server, serving)
    with contextlib.suppress(FileNotFoundError):
        (directory / protocol.SOCKET_FILE).unlink()
    return None if replica.busy else 0


async def leave(replica: Replica, server: Server, serving: asyncio.Future[Any]) -> None:
    """Let requests finish and their answers be read, close connections, say goodbye to the user's object."""
    if await replica.drain(server.restart_websockets):
        await server.close_connections(max(CLOSING_TIME, replica.grace_left))
    else:
        await server.cut(CLOSING_TIME)
    server.should_exit = True
    await asyncio.wait({serving}, timeout=CLOSING_TIME)
    await replica.close()


def run_loop(main_coroutine: Coroutine[Any, Any, Optional[int]]) -> Optional[int]:
    """Run on uvloop where the user's environment has it. ``asyncio.run`` takes a loop only since 3.12."""
    try:
        import uvloop
    except ImportError:
        loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    status = loop.run_until_complete(main_coroutine)
    loop.run_until_complete(_end_tasks())
    loop.close()
    return status


async def _end_tasks() -> None:
    """Cancel what user code left running on the loop, as ``asyncio.run`` does, but wait only so long."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSING_TIME)
    await asyncio.get_event_loop().shutdown_asyncgens()
