"""Starts parts as forks of the ``nursery``, and others, or where that cannot be, as programs of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fngw_supervisor import nursery
from fngw_supervisor.child import Child, adopting, spawn
from fngw_supervisor.parts import INTERPRETER, module_of
from fngw_supervisor.say import Say

#: What the nursery may take for its imports and a fork.
_PATIENCE_S = 30.0
#: The exit code where none is known, as asyncio has it.
_UNKNOWN = 255


class Forks:
    """The nursery, from its first part on, and what it forks. Without Linux' pidfd and subreapers: none of that.

    Args:
        inherit: file descriptors that it inherits, besides what is asked for.
        log: the file that its output is appended to.
        say: told when it fails.
        modules: whose imports it is to share; may be set until the first part is started.
    """

    def __init__(self, inherit: Sequence[int], log: Path, say: Say, modules: Sequence[str] = ()) -> None:
        self.modules = modules
        self._inherit = inherit
        self._log = log
        self._say = say
        self._turn = asyncio.Lock()
        self._usable = _has_pidfd()
        self._proven = False  # the present nursery has forked a part
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stranger = 0

    async def start(self, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int], log: Path) -> Child:
        """Start a child, as ``child.spawn`` does, whose promises hold for a fork, too."""
        if module_of(argv) is not None:
            async with self._turn:
                while self._usable:
                    if child := await self._fork(argv, env, fds, log):
                        return child
        return await spawn(argv, env, fds, log)

    async def _fork(
        self, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int], log: Path
    ) -> Child | None:
        request = nursery.Request(argv, dict(env), fds).encode()
        with log.open("ab") as output:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    control = self._control or await self._open(env)
                    with adopting():
                        child = await _ask(control, request, (output.fileno(), *fds))
            except OSError as error:  # it is gone, or hangs
                # Another one is worth a try only when this one ever was of use.
                self._usable = self._proven
                then = "starting another" if self._usable else "parts are started one by one"
                self._say("nursery", f"{_why(error)}; {then} (log: {self._log})")
                await self.close()
                return None
            except asyncio.CancelledError:
                await self.close()  # its answer would be taken for that to the next request
                raise
        self._proven = True
        return child

    async def _open(self, env: Mapping[str, str]) -> socket.socket:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._control.send(" ".join(self.modules).encode())
        with theirs:
            argv = (*INTERPRETER, nursery.__name__, str(theirs.fileno()))
            self._process = await spawn(argv, env, (*self._inherit, theirs.fileno()), self._log)
        return self._control

    async def close(self) -> None:
        """End the nursery. What it has forked lives on."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._control = self._process = None
        self._proven = False

    def bury(self) -> None:
        """See that no stranger stays a zombie: one whose parent ended in just the moment when orphans were adopted.

        Our own are waited for at once: what is a zombie at two looks is a stranger.
        """
        if self._process is None:  # nothing was adopted
            return
        with suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            pid = ended.si_pid if ended else 0
            if pid and pid == self._stranger:
                os.waitpid(pid, os.WNOHANG)
            self._stranger = pid


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionError):
        return "has ended"
    return "does not answer" if isinstance(error, TimeoutError) else f"cannot be used: {error.strerror}"


async def _ask(control: socket.socket, request: bytes, files: Sequence[int]) -> Child:
    """Have the nursery fork, adopt what it forked, and let it go."""
    going, go = os.pipe()
    try:
        socket.send_fds(control, [request], [files[0], going, *files[1:]])
        answer = await asyncio.get_running_loop().sock_recv(control, 32)
        if not answer:
            raise ConnectionResetError
        child = Forked(int(answer))
        os.write(go, nursery.GO)
        return child
    finally:
        os.close(going)
        os.close(go)  # a part that was not let go ends by that


class Forked:
    """A child that another process has forked for this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    async def wait(self) -> int:
        """Return its exit code, or less than 0 for a signal, once it has ended."""
        return await asyncio.shield(self._code)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if not self._code.done():
            os.kill(self.pid, signal.SIGTERM)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            self._code.set_result(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        except ChildProcessError:  # somebody else waited for it
            self._code.set_result(_UNKNOWN)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, an old kernel, a sandbox
        return False
    return True
