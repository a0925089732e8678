"""``fngw.batch``: many calls of an async function become few calls with lists.

Works on its own, too, without a server: all it needs is a running event loop.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, List, Optional, Tuple, TypeVar, Union, overload

__all__ = ["batch"]

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

#: Where an instance keeps the batches of its methods, or a function its own.
BATCHES_ATTRIBUTE = "__fngw_batches__"


@overload
def batch(handler: Handler) -> Handler: ...
@overload
def batch(
    *, max_batch_size: int = 10, batch_wait_timeout_s: float = 0.0
) -> Callable[[Handler], Callable[..., Awaitable[Any]]]: ...


def batch(
    handler: Optional[Callable[..., Any]] = None, *, max_batch_size: int = 10, batch_wait_timeout_s: float = 0.0
) -> Any:
    """Collect concurrent calls and hand them on together, as lists, one batch after the other.

    The decorated async function or method takes a list per argument and returns a list of the same length; its
    callers pass one value per argument, and get one back. What it raises, all callers of the batch get. Methods
    are told by their first parameter's name, ``self``; each instance has its own batches.

    Args:
        max_batch_size: the most calls in a batch, ≥ 1.
        batch_wait_timeout_s: seconds to wait for a batch to fill; 0: take what is there.

    Raises:
        TypeError: not an async function, or an argument of the wrong type.
        ValueError: an argument out of range.

    Example:
        >>> @fngw.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
        ... async def double(numbers):
        ...     return [2 * n for n in numbers]
        >>> await double(2)
        4
    """
    _check(max_batch_size, batch_wait_timeout_s)

    def decorate(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"fngw.batch decorates an async function or method, not {function!r}")
        signature = inspect.signature(function)
        is_method = next(iter(signature.parameters), None) == "self"

        @functools.wraps(function)
        async def batched(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)  # a wrong call fails alone, not its whole batch
            owner, rest = (args[0], args[1:]) if is_method else (batched, args)
            batches = vars(owner).setdefault(BATCHES_ATTRIBUTE, _Batches())
            queue = batches.of(function, max_batch_size, batch_wait_timeout_s)
            return await queue.add(args[:1] if is_method else (), rest, kwargs)

        return batched

    return decorate if handler is None else decorate(handler)


def _check(size: Any, wait: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"max_batch_size must be an integer, not {size!r}")
    if size < 1:
        raise ValueError(f"max_batch_size must be ≥ 1, not {size}")
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(f"batch_wait_timeout_s must be a number of seconds, not {wait!r}")
    if not wait >= 0:
        raise ValueError(f"batch_wait_timeout_s must be ≥ 0, not {wait}")


class _Batches:
    """The queues of one owner. Copies and pickles of the owner begin without any."""

    def __init__(self) -> None:
        self._queues: Dict[Tuple[str, int], _Queue] = {}

    def of(self, function: Callable[..., Any], size: int, wait: float) -> _Queue:
        """Return the queue of ``function`` on the running loop."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get((function.__qualname__, id(loop)))
        if queue is None or queue.loop is not loop:
            self._queues = {k: q for k, q in self._queues.items() if not q.loop.is_closed()}
            queue = self._queues[function.__qualname__, id(loop)] = _Queue(function, loop, size, wait)
        return queue

    def __reduce__(self) -> Any:
        return (_Batches, ())


class _Call:
    """One caller's arguments, and the future that it waits for."""

    def __init__(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], future: asyncio.Future[Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.future = future

    @property
    def shape(self) -> Tuple[Any, ...]:
        """Calls of one shape can share a batch."""
        return (len(self.args), *sorted(self.kwargs))


class _Queue:
    """Calls that wait for the next batch. A task runs only while there are some."""

    def __init__(
        self, function: Callable[..., Any], loop: asyncio.AbstractEventLoop, size: int, wait: float
    ) -> None:
        self.loop = loop
        self._function = function
        self._size = size
        self._wait = wait
        self._waiting: Deque[_Call] = deque()
        self._full: Optional[asyncio.Event] = None
        self._task: Optional[asyncio.Task[None]] = None

    async def add(self, owner: Tuple[Any, ...], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        call = _Call(args, kwargs, self.loop.create_future())
        self._waiting.append(call)
        if self._full is not None and len(self._waiting) >= self._size:
            self._full.set()
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._drain(owner))
        return await call.future

    async def _drain(self, owner: Tuple[Any, ...]) -> None:
        while self._waiting:
            await self._fill()
            calls = self._take()
            if calls:
                await self._run(owner, calls)

    async def _fill(self) -> None:
        """Wait until the batch is full, or the time for that is over."""
        if self._wait and len(self._waiting) < self._size:
            self._full = asyncio.Event()
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the event (bpo-37658).
            timer = self.loop.call_later(self._wait, self._full.set)
            try:
                await self._full.wait()
            finally:
                timer.cancel()
                self._full = None

    def _take(self) -> List[_Call]:
        """Take a batch, leaving out callers that are gone."""
        calls: List[_Call] = []
        while self._waiting and len(calls) < self._size:
            if calls and self._waiting[0].shape != calls[0].shape:
                break
            call = self._waiting.popleft()
            if not call.future.done():
                calls.append(call)
        return calls

    async def _run(self, owner: Tuple[Any, ...], calls: List[_Call]) -> None:
        args = [list(column) for column in zip(*(c.args for c in calls))]
        kwargs = {key: [c.kwargs[key] for c in calls] for key in calls[0].kwargs}
        try:
            results = _checked(await self._function(*owner, *args, **kwargs), len(calls), self._function)
        except BaseException as error:
            for call in calls:
                if not call.future.done():
                    _fail(call.future, error)
            if not isinstance(error, Exception):
                raise
            return
        for call, result in zip(calls, results):
            if not call.future.done():
                call.future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)


def _checked(results: Any, size: int, function: Callable[..., Any]) -> Union[List[Any], Tuple[Any, ...]]:
    name = function.__qualname__
    try:
        count = len(results)
    except TypeError:
        raise TypeError(f"{name} is batched and must return a list, not {results!r}") from None
    if count != size:
        raise ValueError(f"{name} is batched: it was given {size} values and returned {count}")
    return list(results)
