"""Callbacks, by a real dispatcher to a real server on loopback; and where they must not go."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fngw_state import keys
from fngw_state.call_records import Call, NewCall

from .conftest import Site, eventually


@dataclass
class Receiver:
    """Takes callbacks; answers what ``statuses`` says, the last one for ever."""

    statuses: list[bytes]
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        self.bodies.append(await reader.readexactly(int(headers["content-length"])))
        self.heads.append(headers)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(b"HTTP/1.1 %s\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n" % status)
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def receiving(base: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver([b"204 No Content"])
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0, ssl=tls)
    receiver.url = f"{base}:{server.sockets[0].getsockname()[1]}/hook?x=1"
    yield receiver
    server.close()
    await server.wait_closed()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving("http://127.0.0.1") as receiver:
        yield receiver


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of its own, ``ca.pem``, and what it signed for ``localhost``: ``server.pem``."""
    folder = tmp_path_factory.mktemp("authority")
    make = "openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split()
    ca = ("-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=keyCertSign")
    own = ("-subj", "/CN=A receiver", "-keyout", "server.key", "-out", "server.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    for words in (ca, (*own, *signed, "-addext", "subjectAltName=DNS:localhost")):
        subprocess.run((*make, *words), cwd=folder, check=True, capture_output=True)
    return folder


def tls_of(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return context


def new(url: str, **more: object) -> NewCall:
    return NewCall("G", "POST", "/G", callback=url, **more)  # type: ignore[arg-type]


async def callback_of(site: Site, call_id: str, done: Callable[[Call], bool]) -> Call:
    async def look() -> Call | None:
        call = await site.calls.find(call_id)
        if not call.callback_id:
            return None
        callback = await site.calls.find(call.callback_id)
        return callback if done(callback) else None

    pending: Awaitable[Call] = eventually(look, "the callback")
    return await pending


async def test_it_is_signed_and_tells_how_the_call_ended(site: Site, receiver: Receiver) -> None:
    await site.dispatcher(callback_allow="127.0.0.0/8", callback_secret="s3cret")
    accepted = await site.calls.accept(new(receiver.url))
    callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
    assert (callback.status, callback.attempt) == ("finished", 1)
    (body,), (head,) = receiver.bodies, receiver.heads
    told = json.loads(body)
    assert (told["id"], told["status"], told["result_status"]) == (accepted.id, "finished", 200)
    at, _, seal = head["fngw-signature"].partition(",v1=")
    seconds = int(at.removeprefix("t="))
    assert abs(seconds - time.time()) < 60
    assert seal == hmac.new(b"s3cret", b"%d.%s" % (seconds, body), hashlib.sha256).hexdigest()


async def test_it_is_tried_again_and_follows_no_redirect(site: Site, receiver: Receiver) -> None:
    receiver.statuses = [b"500 No", b"302 Found", b"200 OK"]
    await site.dispatcher(callback_allow="127.0.0.1")
    accepted = await site.calls.accept(new(receiver.url))
    callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
    assert (callback.status, callback.attempt) == ("finished", 3)
    assert [failure.message for failure in callback.tries] == ["answered 500", "answered 302"]
    secret = site.layout.data / "callback-secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_text().strip()) == 64


async def test_a_private_address_is_refused(site: Site, receiver: Receiver) -> None:
    await site.dispatcher()
    accepted = await site.calls.accept(new(receiver.url))
    callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
    assert (callback.status, callback.attempt) == ("failed", 1)
    assert callback.error is not None
    assert callback.error.code == "callback_refused"
    assert receiver.bodies == []


async def test_one_that_was_given_up_can_be_sent_again(site: Site, receiver: Receiver) -> None:
    first = await site.dispatcher()
    accepted = await site.calls.accept(new(receiver.url))
    callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
    assert (callback.status, receiver.bodies) == ("failed", [])
    first.terminate()
    await asyncio.to_thread(first.wait)
    await site.dispatcher(callback_allow="127.0.0.1")
    again = await site.calls.retry(callback.id)
    assert (again.allowed, again.callback_id) == (10, None)
    callback = await callback_of(site, accepted.id, lambda c: c.status == "finished")
    assert (callback.id, callback.attempt) == (again.id, 2)
    assert json.loads(receiver.bodies[0])["id"] == accepted.id


async def test_a_cancelled_call_is_told_of_too(site: Site, receiver: Receiver) -> None:
    accepted = await site.calls.accept(new(receiver.url, delay_s=60))
    await site.calls.cancel(accepted.id)
    await site.dispatcher(callback_allow="127.0.0.1")
    await callback_of(site, accepted.id, lambda c: c.has_ended)
    assert json.loads(receiver.bodies[0])["status"] == "cancelled"


async def test_over_tls_by_an_authority_that_is_named(
    site: Site, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    await site.dispatcher(callback_allow="127.0.0.1 ::1")
    async with receiving("https://localhost", tls_of(authority)) as receiver:
        accepted = await site.calls.accept(new(receiver.url))
        callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
        assert (callback.status, callback.attempt) == ("finished", 1), callback
        assert json.loads(receiver.bodies[0])["id"] == accepted.id
        assert receiver.heads[0]["host"] == receiver.url.split("/")[2]


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [
        ("localhost", False, "unable to get local issuer certificate"),
        ("127.0.0.1", True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_over_tls_to_whom_nobody_vouches_for(
    site: Site, authority: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, why: str
) -> None:
    """Nothing is sent; it is tried again, then given up. The call itself has ended long before."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    async with receiving(f"https://{host}", tls_of(authority)) as receiver:
        accepted = await site.calls.accept(new(receiver.url, delay_s=60))
        await site.calls.cancel(accepted.id)
        callback_id = (await site.calls.find(accepted.id)).callback_id
        await site.store.redis.hset(f"{keys.CALL}{callback_id}", "allowed", 2)  # of nine; else it takes minutes
        await site.dispatcher(callback_allow="127.0.0.1 ::1")
        callback = await callback_of(site, accepted.id, lambda c: c.has_ended)
        assert (callback.status, callback.attempt) == ("failed", 2)
        assert [failure.code for failure in callback.tries] == ["callback_failed"] * 2
        assert callback.error is not None
        assert callback.error.message.startswith(f"its certificate is not trusted: {why}")
        assert "SSL_CERT_FILE" in callback.error.message
        assert receiver.bodies == []
    counts = await site.calls.count()
    assert (counts.callbacks, counts.ended[""]["failed"]) == (0, 1)
