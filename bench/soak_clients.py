"""The soak's clients: most ask and check; some leave at any byte, read slowly, write slowly, or wait too long."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

import soak_requests as requests
from soak_app import answer
from soak_book import Book
from soak_link import Link, WebSocket
from soak_requests import Request, Wrong

__all__ = ["Act", "Crowd"]

#: Requests that go out at once, at most.
PIPELINE = 8
#: A slow reader's answer: more than the kernel and the gateway hold together.
LARGE_PARTS = 256
SMALL_BUFFER = 4096


class Crowd:
    """Clients on one port that ask until ``enough`` says so.

    Args:
        port: the gateway's.
        book: keeps accounts.
        seed: of all that is random.
        rate: requests per second, at most; 0 for no limit.
    """

    def __init__(self, port: int, book: Book, seed: int, rate: float = 0.0) -> None:
        self.port = port
        self.book = book
        self._seed = seed
        self._rate = rate
        self._numbers = 0
        self._first: deque[Act] = deque()

    async def ask(self, clients: int, enough: Callable[[], bool]) -> None:
        """Have so many clients ask.

        Raises:
            Wrong: one got an answer that was not to its request.
        """
        self._first = deque(ACTS)  # each at least once
        begun, done = time.monotonic(), self.book.done

        async def one(client: Client) -> None:
            while not enough():
                await client.act(self._first.popleft() if self._first else client.choose())
                if self._rate:
                    due = begun + (self.book.done - done) / self._rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
            client.close()

        async with asyncio.TaskGroup() as group:
            for n in range(clients):
                group.create_task(one(Client(self, random.Random(f"{self._seed}/{n}"))))

    def number(self) -> str:
        """Return a number that no other request has."""
        self._numbers += 1
        return f"{self._seed}-{self._numbers}"


class Client:
    """One client, with one connection that it keeps for as long as that is good."""

    def __init__(self, crowd: Crowd, rng: random.Random) -> None:
        self._crowd = crowd
        self._rng = rng
        self._link: Link | None = None

    def choose(self) -> Act:
        (act,) = self._rng.choices(list(ACTS), weights=_WEIGHTS)
        return act

    async def act(self, act: Act) -> None:
        """Do one thing."""
        if act.fault:
            self._crowd.book.fault(act.name)
        await act.run(self)

    def close(self) -> None:
        if self._link is not None:
            self._link.leave()
            self._link = None

    # -- what clients do ----------------------------------------------------------------------------------

    async def ordinary(self) -> None:
        await self._ask(requests.make(self._rng, self._somewhere(), self._crowd.number()))

    async def pipelined(self) -> None:
        """Several requests in one write; their answers have to come in this order."""
        many = [
            requests.small(self._rng, self._somewhere(), self._crowd.number())
            for _ in range(self._rng.randint(2, PIPELINE))
        ]
        link, began = await self._kept(), time.perf_counter()
        futures = [link.expect() for _ in many]
        link.write(b"".join(request.data for request in many))
        for request, future in zip(many, futures, strict=True):
            self._crowd.book.enter(request, await link.wait(future), began)

    async def fresh(self) -> None:
        self.close()
        await self.ordinary()

    async def websocket(self) -> None:
        """A few echoes; some leave without a word."""
        number = self._crowd.number()
        socket = await WebSocket.open(self._crowd.port, f"/steady/echo/{number}", number)
        for n in range(self._rng.randint(1, 4)):
            text = b"%d of %b" % (n, number.encode())
            socket.send(text)
            if self._rng.random() < 0.1:
                socket.leave()
                self._crowd.book.count("WebSocket", "left")
                return
            told = await socket.receive()
            if told != answer(number, text):
                raise Wrong(f"WebSocket {number}: {text!r} was answered {told!r}")
        await socket.close()
        self._crowd.book.count("WebSocket", "right")

    # -- what clients do to others ------------------------------------------------------------------------

    async def leave(self) -> None:
        """Be gone at any byte of the request, or of the answer."""
        request = requests.make(self._rng, self._somewhere(), self._crowd.number())
        link = await Link.open(self._crowd.port)
        if self._rng.random() < 0.5:
            link.write(request.data[: self._rng.randrange(len(request.data))])
            await asyncio.sleep(self._rng.random() * 0.01)
        else:
            link.expect(head_only=request.head_only)
            link.write(request.data)
            await link.received(self._rng.randint(0, len(request.body)))
        link.leave(reset=self._rng.random() < 0.5)
        self._crowd.book.count(request.kind, "left")

    async def read_slowly(self) -> None:
        """Ask for more than anybody holds, and do not read for a while, again and again."""
        request = requests.stream(self._rng, self._somewhere(), self._crowd.number(), parts=LARGE_PARTS)
        link, began = await Link.open(self._crowd.port, SMALL_BUFFER), time.perf_counter()
        future = link.expect()
        link.write(request.data)
        for _ in range(3):
            link.pause()
            await asyncio.sleep(self._rng.random() * 0.2)
            link.resume()
            await asyncio.sleep(self._rng.random() * 0.02)
        self._crowd.book.enter(request, await link.wait(future), began)
        link.leave()

    async def write_slowly(self) -> None:
        """Send a request in pieces."""
        request = requests.make(self._rng, self._somewhere(), self._crowd.number())
        size = len(request.data)
        cuts = sorted({0, size, *(self._rng.randrange(size) for _ in range(4))})
        link, began = await self._kept(), time.perf_counter()
        future = link.expect(head_only=request.head_only)
        for start, end in pairwise(cuts):
            link.write(request.data[start:end])
            await asyncio.sleep(self._rng.random() * 0.02)
        self._crowd.book.enter(request, await link.wait(future), began)

    async def too_late(self) -> None:
        await self._ask(requests.never_ending(self._rng, self._crowd.number()))

    async def broken(self) -> None:
        """Have a replica break its answer off."""
        query = f"&break={self._rng.randint(1, 3)}"
        where, number = self._somewhere(), self._crowd.number()
        await self._ask(requests.stream(self._rng, where, number, query=query, outcome="cut"))

    # -- asking -------------------------------------------------------------------------------------------

    async def _ask(self, request: Request) -> None:
        link, began = await self._kept(), time.perf_counter()
        future = link.expect(head_only=request.head_only)
        link.write(request.data)
        self._crowd.book.enter(request, await link.wait(future), began)

    async def _kept(self) -> Link:
        if self._link is None or self._link.over:
            self._link = await Link.open(self._crowd.port)
        return self._link

    def _somewhere(self) -> str:
        return "steady" if self._rng.random() < 0.6 else "frail"


class Act(NamedTuple):
    """Something that a client does, and how many of 1000 times; ``fault``: others are to bear it."""

    name: str
    run: Callable[[Client], Awaitable[None]]
    weight: float
    fault: bool = False


ACTS = (
    Act("ordinary", Client.ordinary, 930),
    Act("pipelined", Client.pipelined, 40),
    Act("fresh connection", Client.fresh, 5),
    Act("WebSocket", Client.websocket, 4),
    Act("client gone at any byte", Client.leave, 14, fault=True),
    Act("slow reader", Client.read_slowly, 0.5, fault=True),
    Act("slow writer", Client.write_slowly, 3, fault=True),
    Act("request over its time limit", Client.too_late, 1.5, fault=True),
    Act("answer broken off by the replica", Client.broken, 2, fault=True),
)
_WEIGHTS = [act.weight for act in ACTS]
