"""``python -m fngw_controller``: build the rooms from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from fngw.errors import FngwError
from fngw_controller import inventory
from fngw_controller.controller import Controller
from fngw_controller.engines import choose, find_host_paths
from fngw_controller.engines.base import Engine
from fngw_controller.garbage import Collector
from fngw_controller.images import Images
from fngw_controller.leader import Leader
from fngw_controller.lifecycle import Lifecycle
from fngw_controller.logs import LogServer
from fngw_controller.machine import Machine
from fngw_controller.reconciler import Rooms
from fngw_controller.routes import Routes
from fngw_controller.settings import ControllerSettings
from fngw_controller.snapshots import Snapshots
from fngw_state import footprint, keys
from fngw_state.configs import Configs
from fngw_state.history import History
from fngw_state.layout import Layout
from fngw_state.leases import Leases
from fngw_state.store import LOST, Fenced, Store, connect
from fngw_state.usage import Measured

log = logging.getLogger("fngw_controller")


def installation_id(data: Path) -> str:
    """Return what tells this installation's replicas from others' on the same engine.

    Args:
        data: its data directory as the engine's host sees it: in containers it has the same name everywhere.
    """
    return hashlib.sha256(str(data).encode()).hexdigest()[:8]


async def choose_engine(settings: ControllerSettings, layout: Layout) -> Engine:
    """Return the engine that the settings ask for."""
    paths = await _host_paths(settings, layout)
    return await choose(
        settings.engine,
        installation=installation_id(paths.get(layout.data, layout.data)),
        host_paths=paths,
        run_dir=layout.run,
    )


async def _host_paths(settings: ControllerSettings, layout: Layout) -> dict[Path, Path]:
    """Return what the settings say of the host's directories, and ask the engine for the rest."""
    given = {layout.data: settings.host_data_dir, layout.run: settings.host_run_dir}
    told = {directory: host for directory, host in given.items() if host}
    unknown = [directory for directory in given if directory not in told]
    if layout.run in unknown:
        unknown.append(layout.shared)  # may be a volume of its own
    return {**(await find_host_paths(settings.engine, unknown) if unknown else {}), **told}


async def serve(settings: ControllerSettings) -> None:
    """Run a controller until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    layout = settings.layout
    layout.create()
    engine = await choose_engine(settings, layout)
    log.info("engine: %s", await engine.check())
    store = Store(connect(settings.redis_url))
    try:
        await _work(settings, engine, store, layout, stop)
    finally:
        await store.close()
        await engine.close()


async def _work(
    settings: ControllerSettings, engine: Engine, store: Store, layout: Layout, stop: asyncio.Event
) -> None:
    leader = Leader(store, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
    images = Images(store, settings.redis_url, engine)
    stock = inventory.choose(settings, await engine.check())
    await stock.read()  # what is declared wrongly is told at once, not only to the one that leads
    rooms = Rooms(
        store=store,
        engine=engine,
        lifecycle=Lifecycle(engine, layout, settings.redis_url, settings.debug),
        images=images,
        routes=Routes(store, lambda: leader.token),
        snapshots=Snapshots(layout.data / "desired"),
        configs=Configs(store),
        history=History(store),
        machine=Machine(Leases(store), Measured(store), stock, lambda: leader.token),
        token=lambda: leader.token,
        confirm=leader.confirm,
        new_id=lambda: secrets.token_hex(4),
    )
    controller = Controller(rooms, leader, Collector(rooms, settings.keep_versions))
    work = asyncio.create_task(_lead(controller, leader, LogServer(engine, layout, store)))
    told = asyncio.create_task(stop.wait())
    await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if work.done():
        work.result()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    if settings.stop_replicas_on_exit and await _leads_after_all(leader):
        await controller.stop_replicas()
    await controller.resign()
    images.close()


async def _leads_after_all(leader: Leader) -> bool:
    """Whether the replicas are this controller's to stop: so are those of a leader that died, once its lease ends.

    Told to stop while it waits for that lease, a controller that simply went would leave them running for ever.
    """
    if not leader.token:
        with suppress(TimeoutError, *LOST):
            async with asyncio.timeout(keys.LEADER_TTL_MS / 1000 + 1):
                await leader.acquire()
    return bool(leader.token)


async def _lead(controller: Controller, leader: Leader, logs: LogServer) -> None:
    """Wait to lead, then work. Whoever only waits stays away from the leader's socket."""
    await leader.acquire()
    await logs.start()
    footprint.settle()
    try:
        await controller.run()
    finally:
        await logs.stop()


def main() -> int:
    settings = ControllerSettings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    code = 0
    try:
        asyncio.run(serve(settings))
    except* FngwError as group:
        print(f"fngw controller: {group.exceptions[0]}", file=sys.stderr)
        code = 1
    except* Fenced as group:
        print(f"fngw controller: stopping: {group.exceptions[0]}", file=sys.stderr)
        code = 3
    return code


if __name__ == "__main__":
    sys.exit(main())
