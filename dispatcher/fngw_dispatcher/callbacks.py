"""Tells callers how their calls ended: a signed POST to the URL that each gave.

The signature is as others do it (``Fngw-Signature: t=<Unix seconds>,v1=<hex>``): HMAC-SHA256 of
``"<seconds>.<body>"`` under ``FNGW_CALLBACK_SECRET``. The time in it lets a receiver refuse what is old.

The host is resolved anew for each attempt, its addresses are checked, and the connection goes to one of those.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import random
import secrets
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from fngw.errors import FngwError
from fngw_dispatcher import outcomes
from fngw_dispatcher.http import Answer, Client, Lost, TooLarge, Unreached, tcp
from fngw_dispatcher.outcomes import Clock
from fngw_state import callback_urls
from fngw_state.call_records import Call, Claimed, Headers
from fngw_state.call_work import Ending
from fngw_state.callback_urls import Callback, Network
from fngw_state.calls import Calls

__all__ = ["CallbackSender", "load_secret", "signature"]

TIMEOUT_S = 10.0
LARGEST_ANSWER = 2**20
SECRET_FILE = "callback-secret"


def signature(secret: str, body: bytes, now: float) -> str:
    """Return the value of ``Fngw-Signature``.

    Args:
        secret: what both sides know.
        body: of the request.
        now: Unix seconds.

    Example:
        >>> signature("secret", b"{}", 1700000000)
        't=1700000000,v1=…'
    """
    signed = b"%d.%s" % (int(now), body)
    return f"t={int(now)},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def load_secret(given: str | None, data: Path) -> str:
    """Return the secret: the one that was given, else the data directory's, which is made when there is none."""
    if given:
        return given
    path = data / SECRET_FILE
    data.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{SECRET_FILE}-{os.getpid()}")
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32) + "\n")
        with contextlib.suppress(FileExistsError):  # another dispatcher's, made at the same time
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()


def told(call: Call) -> bytes:
    """Return the body: how the call ended, and where its result lies."""
    told = {
        "id": call.id,
        "status": call.status,
        "deployment": call.deployment,
        "attempts": call.attempt,
        "created": call.created,
        "started": call.started,
        "ended": call.ended,
        "result_status": call.result_status,
        "error": call.error.to_dict() if call.error else None,
        "result": f"/-/calls/{call.id}/result",
    }
    return json.dumps(told, separators=(",", ":")).encode()


class CallbackSender:
    """Sends callbacks.

    Args:
        calls: where the calls are that they tell of.
        secret: to sign with.
        allowed: networks besides the public ones.
    """

    def __init__(self, calls: Calls, secret: str, allowed: Sequence[Network]) -> None:
        self._calls = calls
        self._secret = secret
        self._allowed = allowed

    async def send(self, callback: Claimed) -> Ending:
        """Send one callback once; return how it goes on."""
        parent = await self._calls.get(callback.parent or "")
        if not isinstance(parent, Call):
            return outcomes.failed(callback, "call_expired", "the call that it tells of has expired", _clock())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                where = await callback_urls.resolve(callback.url, self._allowed)
                answer = await self._post(where, told(parent))
        except FngwError as error:
            if error.code == "callback_unresolved":
                return outcomes.again(callback, error.code, error.message, _clock())
            return outcomes.failed(callback, error.code, error.message, _clock())
        except (Unreached, Lost, TooLarge, TimeoutError) as error:
            return outcomes.again(callback, "callback_failed", _why(error), _clock())
        return _judge(callback, answer)

    async def _post(self, where: Callback, body: bytes) -> Answer:
        url = where.url
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        tls_name = url.hostname if url.scheme == "https" else None
        client = Client(tcp(where.addresses, where.port, tls_name), LARGEST_ANSWER)
        try:
            return await client.send("POST", path, self._headers(url.netloc, body), body)
        finally:
            await client.close()

    def _headers(self, host: str, body: bytes) -> Headers:
        return (
            ("host", host),
            ("content-type", "application/json"),
            ("user-agent", "fngw"),
            ("fngw-signature", signature(self._secret, body, time.time())),
        )


def _why(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "where the dispatcher runs, SSL_CERT_FILE or SSL_CERT_DIR may name its authority"
        return f"its certificate is not trusted: {cause.verify_message}; {hint}"
    return str(error) or "no answer in time"


def _judge(callback: Claimed, answer: Answer) -> Ending:
    """A redirect is not followed: it might lead to where callbacks must not go."""
    if 200 <= answer.status < 300:
        return Ending(callback.id, callback.token, "finished", status=answer.status)
    asked = outcomes.retry_after(answer.header("retry-after"), time.time())
    return outcomes.again(callback, "callback_failed", f"answered {answer.status}", _clock(), asked, answer.status)


def _clock() -> Clock:
    return Clock(time.time(), random.random)
