"""One call by a handle: its arguments become a frame, as soon as they all have values, and go to the gateway.

Arguments are pickled in the caller's thread, so that what cannot be sent is told where it was written. Only when
one has no value yet (a ``Ref`` under way, a request whose body was not read) is that done later, elsewhere.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from fngw import endpoint, requests, transport
from fngw.endpoint import Endpoint
from fngw.errors import Unreachable
from fngw.http1 import Reply
from fngw.protocol import BEST_PICKLE, CALL_PREFIX, CALL_TYPE, DEFAULT_METHOD, RESULT_TYPE, encode_frame
from fngw.refs import Pending, Ref

__all__ = ["begin", "send"]

RETRY_S = 0.2
HEADERS = {"content-type": CALL_TYPE, "accept": RESULT_TYPE}


def begin(
    deployment: str, method: str, args: Tuple[Any, ...], kwargs: Dict[str, Any], protocol: Optional[int]
) -> Ref:
    """Begin a call; see ``DeploymentHandle.remote``."""
    return Ref(*send(deployment, method, args, kwargs, protocol, {}))


def send(
    deployment: str,
    method: str,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
    protocol: Optional[int],
    headers: Dict[str, str],
    tries: int = 1,
) -> Tuple[Future[Reply], str]:
    """Send a call; return its answer, once it is there, and what it is for messages.

    Args:
        deployment, method, args, kwargs, protocol: as of a handle.
        headers: to add.
        tries: how often it is sent when its connection is lost. More than once only what can be repeated.
    """
    where = endpoint.current()
    path = f"{CALL_PREFIX}{quote(deployment, safe='')}/{quote(method, safe='')}"
    what = deployment if method == DEFAULT_METHOD else f"{deployment}.{method}"
    post = _Post(where, path, {**HEADERS, **headers}, tries)
    waits = _waits([*args, *kwargs.values()])
    if not waits:
        try:
            return transport.submit(post.send(_encode((args, kwargs), protocol))), what
        except Pending as inside:  # of a list, say
            waits = [inside.future]
    return transport.submit(_send_later(post, (args, kwargs), protocol, waits)), what


class _Post:
    """Where a call goes, and how often it is tried."""

    def __init__(self, where: Endpoint, path: str, headers: Dict[str, str], tries: int) -> None:
        self._where = where
        self._path = path
        self._headers = headers
        self._tries = tries

    async def send(self, body: List[bytes]) -> Reply:
        for _ in range(self._tries - 1):
            try:
                return await transport.request(self._where, "POST", self._path, self._headers, body)
            except Unreachable as error:
                if error.code != "connection_lost":
                    raise
            await asyncio.sleep(RETRY_S)
        return await transport.request(self._where, "POST", self._path, self._headers, body)


def _encode(value: Any, protocol: Optional[int]) -> List[bytes]:
    """Return the frame's parts, all of them copies: the caller may change its arrays after the call began."""
    frame = encode_frame(value, by_value=True, protocol=min(protocol or BEST_PICKLE, BEST_PICKLE))
    return [part if isinstance(part, bytes) else bytes(part) for part in frame]


def _waits(values: List[Any]) -> List[Future[Any]]:
    """Return what has to be done before ``values`` can be pickled."""
    refs = [value._future for value in values if isinstance(value, Ref)]
    bodies = [requests.reading(value) for value in values if requests.is_unread(value)]
    return refs + bodies


async def _send_later(post: _Post, value: Any, protocol: Optional[int], waits: List[Future[Any]]) -> Reply:
    loop = asyncio.get_running_loop()
    while True:
        for future in waits:
            await _finished(future)
        try:  # in a thread: pickling may take long, or wait for a lock of the caller's
            body = await loop.run_in_executor(None, _encode, value, protocol)
            break
        except Pending as another:
            waits = [another.future]
    return await post.send(body)


async def _finished(future: Future[Any]) -> None:
    """Wait until ``future`` is done, however it ends, and without cancelling it when we are cancelled."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    await done.wait()
