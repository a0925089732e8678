"""Parts as forks of the nursery: each is what a program of its own would be, whatever happens to the nursery."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.supervisor.conftest import alive, eventually

from fngw_state.layout import Layout
from fngw_supervisor.child import Child, Start, kill_group, spawn
from fngw_supervisor.forks import Forks
from fngw_supervisor.lock import Lock, holders
from fngw_supervisor.parts import INTERPRETER, Site, plan_parts

HERE = Path(__file__).parent


class Bench:
    """A nursery, and modules in a folder of their own for it to run."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.folder = folder
        self.log = folder / "part.log"
        self.nursery_log = folder / "nursery.log"
        self.env = {**os.environ, "PYTHONPATH": f"{HERE}:{folder}", "PYTHONUNBUFFERED": "1"}
        self.forks = Forks((), self.nursery_log, lambda part, text: self.said.append(f"{part} {text}"))

    def module(self, name: str, text: str) -> str:
        """Make a module that the nursery imports."""
        self.forks.modules = [*self.forks.modules, name]
        path = self.folder / name / "__main__.py"
        path.parent.mkdir()
        path.write_text(text)
        return name

    async def begin(self, module: str, *words: str, fds: tuple[int, ...] = (), start: Start | None = None) -> Child:
        self.log.unlink(missing_ok=True)
        return await (start or self.forks.start)((*INTERPRETER, module, *words), self.env, fds, self.log)

    async def probe(self, start: Start | None = None, fds: tuple[int, ...] = ()) -> dict[str, Any]:
        child = await self.begin("fork_probe", "a word", fds=fds, start=start)
        assert await child.wait() == 0, self.log.read_text()
        told: dict[str, Any] = json.loads(self.log.read_text())
        assert told["pid"] == child.pid
        return told

    async def code(self, text: str) -> int:
        return await (await self.begin(self.module("ends", text))).wait()

    @property
    def nursery(self) -> int:
        return next(int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_nursery(int(path.name)))

    def _is_nursery(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return b"fngw_supervisor.nursery" in words and os.getpid() == _parent(pid) and alive(pid)
        except (FileNotFoundError, ProcessLookupError):  # it ended before, or while, it was looked at
            return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.forks.close()


async def test_a_fork_is_what_a_program_of_its_own_is(bench: Bench) -> None:
    with socket.socket() as one, socket.socket() as two:
        # Their numbers here are others in the nursery, and taken by other files there.
        fds = (two.fileno(), one.fileno())
        bench.forks.modules = ["fork_probe"]
        spawned = await bench.probe(spawn, fds)
        forked = await bench.probe(fds=fds)
        again = await bench.probe(fds=fds)
    assert forked["found"] == spawned["found"]
    assert again["found"] == spawned["found"]
    assert len({told["random"] for told in (spawned, forked, again)}) == 3
    assert not bench.said
    assert not bench.nursery_log.read_text()
    # Whoever looks for a part by its module's name does not find the nursery.
    assert b"fork_probe" not in Path(f"/proc/{bench.nursery}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why"),
        ("raise LookupError('not caught')", 1, "LookupError: not caught"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import atexit; atexit.register(print, 'the end')", 0, "the end"),
        ("import threading; threading.Thread(target=print, args=['a thread']).start()", 0, "a thread"),
    ],
)
async def test_how_it_ends_is_told(bench: Bench, text: str, code: int, said: str) -> None:
    assert await bench.code(f"if __name__ == '__main__':\n    {text or 'pass'}") == code
    assert said in bench.log.read_text()


async def test_it_ends_when_told_to(bench: Bench) -> None:
    child = await bench.begin(bench.module("stays", "import signal\nif __name__ == '__main__': signal.pause()"))
    child.terminate()
    assert await child.wait() == -signal.SIGTERM
    child.terminate()  # nobody is there any more
    kill_group(child.pid)


async def test_what_cannot_be_imported_is_told_by_the_part_itself(bench: Bench) -> None:
    assert await bench.code("import no_such_module") == 1
    assert "No module named 'no_such_module'" in bench.log.read_text()
    assert (await bench.probe())["found"]
    assert not bench.said


async def test_what_was_imported_before_is_not_imported_again(bench: Bench) -> None:
    bench.folder.joinpath("shared.py").write_text("import os; print('imported', flush=True)")
    module = bench.module("user", "import shared")
    for _ in range(2):
        assert await (await bench.begin(module)).wait() == 0
        assert not bench.log.read_text()
    assert bench.nursery_log.read_text() == "imported\n"


@pytest.mark.parametrize(
    "text",
    [
        "import os; __name__ == '__main__' or os._exit(1)",
        "import threading as t; __name__ == '__main__' or t.Thread(target=t.Event().wait, daemon=True).start()",
    ],
)
async def test_without_a_nursery_a_part_is_a_program_of_its_own(bench: Bench, text: str) -> None:
    assert await bench.code(text) == 0
    assert len(bench.said) == 1
    assert "nursery has ended; parts are started one by one" in bench.said[0]
    assert (await bench.probe())["found"]
    assert len(bench.said) == 1


async def test_an_environment_too_large_for_a_message(bench: Bench) -> None:
    bench.env |= {f"LARGE{n}": "x" * 2**16 for n in range(8)}
    assert (await bench.probe())["found"]["environ"]["LARGE7"]
    assert "too long; parts are started one by one" in bench.said[0]


async def test_parts_outlive_the_nursery_and_another_one_is_started(bench: Bench) -> None:
    child = await bench.begin(bench.module("stays", "import signal\nif __name__ == '__main__': signal.pause()"))
    first = bench.nursery
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not alive(first))
    assert (await bench.probe())["found"]["parent"] == os.getpid()
    assert bench.nursery != first
    assert "starting another" in bench.said[0]
    assert alive(child.pid)
    child.terminate()
    assert await child.wait() == -signal.SIGTERM


async def test_nothing_is_left_of_a_part_that_nobody_waits_for_any_more(bench: Bench) -> None:
    fifo = bench.folder / "fifo"
    os.mkfifo(fifo)
    (bench.folder / "lock").touch()
    lock = Lock.take(bench.folder / "lock")
    assert lock is not None
    slow = bench.module("slow", f"open({str(fifo)!r}).read()")
    starting = asyncio.create_task(bench.begin(slow, fds=(lock.fd,)))
    with await asyncio.to_thread(fifo.open, "w"):  # the nursery is importing
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert holders(lock.path) == []
    lock.release()
    bench.forks.modules = []
    assert (await bench.probe())["found"]
    assert not bench.said


async def test_strangers_are_buried(bench: Bench) -> None:
    """Who is orphaned in just the moment when orphans are adopted is waited for, and what is ours is not."""
    await bench.probe()
    stranger = os.fork()
    if stranger == 0:
        os._exit(0)
    eventually(lambda: not alive(stranger))

    def buried() -> bool:
        bench.forks.bury()
        return not Path(f"/proc/{stranger}").exists()

    eventually(buried)


async def test_several_at_once(bench: Bench) -> None:
    stays = bench.module("stays", "import signal\nif __name__ == '__main__': signal.pause()")
    start: Callable[[], Any] = lambda: bench.forks.start((*INTERPRETER, stays), bench.env, (), bench.log)  # noqa: E731
    children = await asyncio.gather(*(start() for _ in range(5)))
    assert len({child.pid for child in children}) == 5
    assert {_parent(child.pid) for child in children} == {os.getpid()}
    for child in children:
        child.terminate()
    assert {await child.wait() for child in children} == {-signal.SIGTERM}


IMPORT = """
import importlib, json, os, signal, sys
readers = []
_get = os._Environ.__getitem__

def get(self, key):  # through Mapping.get, or dict()
    callers = {sys._getframe(n).f_globals["__name__"].partition("_")[0] for n in (1, 2, 3)}
    if callers & {"fngw", "pydantic"}:
        readers.append([key, *callers])
    return _get(self, key)

os._Environ.__getitem__ = get
before = os.listdir("/proc/self/fd"), [signal.getsignal(n) for n in signal.valid_signals()]
for module in sys.argv[1:]:
    importlib.import_module(f"{module}.__main__")
after = os.listdir("/proc/self/fd"), [signal.getsignal(n) for n in signal.valid_signals()]
print(json.dumps([before == after, len(os.listdir("/proc/self/task")), readers]))
"""


def test_importing_the_parts_does_nothing_that_their_forks_would_share() -> None:
    """No file, no thread, no signal handler; and no setting is read, as these are each part's own."""
    site = Site(Layout(Path("/d"), Path("/r")), "redis://", "process", "localhost", 8000, 3, 4, 1)
    modules = {part.argv[-1] for part in plan_parts(site)}
    command = [sys.executable, "-P", "-c", IMPORT, *sorted(modules)]
    env = {**os.environ, "FNGW_DATA_DIR": "/d"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=True)
    assert json.loads(done.stdout) == [True, 1, []]
