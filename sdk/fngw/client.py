"""The control API's client, on httpx. One method per route; problem documents become exceptions."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from fngw.endpoint import Endpoint, current
from fngw.errors import FngwError, Unauthorized, Unreachable, from_problem
from fngw.protocol import API_PREFIX, PROBLEM_TYPE
from fngw.sources import Blob
from fngw.spec import DeploymentSpec

__all__ = ["TERMINAL_EVENTS", "Accepted", "Client", "Event"]

TERMINAL_EVENTS = frozenset({"done", "failed", "superseded", "deleted"})
START_HINT = "start one with `fngw up`, or say where it is with FNGW_URL or fngw.connect(url)"

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0  # of silence; the server sends a comment every few seconds while there is nothing to tell
PRUNE_TIMEOUT_S = 630.0  # the gateway gives up after 600
LOST_AFTER_S = 60.0  # without a gateway while following a deploy
CHUNK = 2**20

Sent = Callable[[int], None]


@dataclass(frozen=True)
class Accepted:
    """What a deploy was taken as. ``outcome`` is ``new``, ``replace``, ``update`` or ``unchanged``."""

    revision: int
    outcome: str


@dataclass(frozen=True)
class Event:
    """One step of a deploy. ``fields`` are those of its kind, such as ``image`` or ``problem``."""

    id: str
    kind: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        return self.kind in TERMINAL_EVENTS


class Client:
    """A connection to one gateway's control API. Close it, or use it as a context.

    Args:
        endpoint: which gateway; None: the one that this process uses.

    Raises (every method):
        Unreachable: no gateway answers.
        Unauthorized: it wants a token, or another one.
        FngwError: what the gateway refused, as its own kind.

    Example:
        >>> with Client() as client:
        ...     client.deployment("Greeter")["status"]
        'HEALTHY'
    """

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint or current()
        socket, trusted = self.endpoint.socket, _trusted(self.endpoint)
        transport = httpx.HTTPTransport(uds=socket, verify=trusted) if socket else None
        token = self.endpoint.token
        self._http = httpx.Client(
            base_url=self.endpoint.url + API_PREFIX,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            verify=trusted,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- reading ------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return what the gateway says of itself."""
        return self._json("GET", "/info")

    def bundle_limit(self) -> int:
        """Return the size in bytes that a bundle of sources may have."""
        return int(self.info()["limits"]["bundle"])

    def gpus(self) -> dict[str, Any]:
        """Return what the machine has for replicas, who holds it, and what is free: see ``fngw gpus --help``."""
        return self._json("GET", "/gpus")

    def deployments(self) -> list[dict[str, Any]]:
        """Return the status of every deployment."""
        return list(self._json("GET", "/deployments")["deployments"])

    def deployment(self, name: str) -> dict[str, Any]:
        """Return the status of one deployment.

        Raises:
            DeploymentNotFound: there is none of this name.
        """
        return self._json("GET", _path(name))

    def spec(self, name: str) -> tuple[DeploymentSpec, int]:
        """Return what is deployed under a name, and the number of its revision.

        Raises:
            DeploymentNotFound: there is none of this name.
        """
        found = self._json("GET", _path(name, "/spec"))
        return DeploymentSpec.from_dict(found["spec"]), int(found["revision"])

    def serving(self, name: str) -> DeploymentSpec | None:
        """Return what a deploy under this name would be compared with, or None: then everything is new.

        Raises:
            DeploymentNotFound: there is none of this name.
        """
        found = self._json("GET", _path(name, "/spec"))
        return DeploymentSpec.from_dict(found["spec"]) if found["serves"] else None

    # -- writing ------------------------------------------------------------------------------------------

    def upload(self, blob: Blob, sent: Sent | None = None) -> bool:
        """Store a blob unless the gateway has it; tell whether it had to be sent.

        Args:
            sent: called with the size in bytes of each piece that went out.
        """
        path = f"/blobs/{quote(blob.digest, safe=':')}"
        if self._send("HEAD", path, accept=(404,)).status_code != 404:
            return False
        headers = {"content-type": "application/octet-stream", "content-length": str(blob.size)}
        self._send("PUT", path, content=_pieces(blob, sent), headers=headers)
        return True

    def deploy(self, spec: DeploymentSpec, prev_version: str | None = None) -> Accepted:
        """Ask for ``spec``, whose blobs were uploaded.

        Raises:
            ValidationError, RouteConflict, VersionConflict: it is refused.
        """
        body = {"spec": spec.to_dict(), "prev_version": prev_version}
        return _accepted(self._json("PUT", _path(spec.name), json=body))

    def adjust(self, name: str, changes: dict[str, Any]) -> Accepted:
        """Change live options of what runs, in place, whatever its version.

        Raises:
            DeploymentNotFound: there is none of this name.
            ValidationError: an option that needs a new version, or a value that cannot work.
        """
        return _accepted(self._json("PATCH", _path(name), json=changes))

    def cancel(self, name: str, revision: int, reason: str) -> None:
        """Give up a deploy that is under way; one that is over stays as it is."""
        self._json("POST", _path(name, "/cancel"), params={"revision": revision, "reason": reason})

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Return the versions that were rolled out, newest first: ``number``, ``version``, ``image``, ``lock``,
        ``deployed_at`` (Unix seconds) and ``serving``."""
        return list(self._json("GET", _path(name, "/versions"))["versions"])

    def rollback(self, name: str, to: str | None = None) -> Accepted:
        """Deploy an earlier version again.

        Args:
            to: a version or a revision's number; None: the one before.

        Raises:
            DeploymentNotFound: there is no such deployment, or no such version (``version_not_found``).
        """
        params = {} if to is None else {"to": to}
        return _accepted(self._json("POST", _path(name, "/rollback"), params=params))

    def delete(self, name: str) -> int:
        """Begin to delete a deployment; return the number of the revision whose events tell of it.

        Raises:
            DeploymentNotFound: there is none of this name.
        """
        return int(self._json("DELETE", _path(name))["revision"])

    # -- upkeep -------------------------------------------------------------------------------------------

    def lock(self, digest: str) -> str:
        """Return what dependencies were solved to, as JSON: every package with its hash.

        Raises:
            FngwError: there is no such lock (``lock_missing``).
        """
        return self._send("GET", f"/locks/{quote(digest, safe=':')}").text

    def doctor(self, python: str) -> dict[str, Any]:
        """Return how the gateway's installation is: ``version``, ``time`` (Unix seconds) and ``checks``.

        Args:
            python: the ``"X.Y"`` for which to look whether functions can be built.
        """
        return self._json("GET", "/doctor", params={"python": python})

    def prune(self) -> dict[str, Any]:
        """Empty the builder's caches; return ``freed`` (bytes) and ``left`` (bytes by kind).

        Raises:
            FngwError: no builder answers (``builder_silent``), or it could not (``errand_failed``).
        """
        return self._json("POST", "/prune", timeout=httpx.Timeout(PRUNE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))

    # -- following ----------------------------------------------------------------------------------------

    def events(self, name: str, revision: int, deadline: float | None = None) -> Iterator[Event]:
        """Yield the events of one revision, from its first to its terminal one, over lost connections.

        Args:
            deadline: ``time.monotonic()`` until when to follow.

        Raises:
            TimeoutError: the deadline has passed.
            Unreachable: the gateway is gone for longer than a minute.
        """
        after, lost_since = "", 0.0
        while True:
            try:
                for event in self._events_once(name, revision, after, deadline):
                    after, lost_since = event.id or after, 0.0
                    yield event
                    if event.terminal:
                        return
            except Unreachable:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > LOST_AFTER_S:
                    raise
            _check(deadline)
            time.sleep(0.2)  # between connections, not between events

    def _events_once(self, name: str, revision: int, after: str, deadline: float | None) -> Iterator[Event]:
        headers = {"accept": "text/event-stream"}
        if after:
            headers["last-event-id"] = after
        params = {"revision": str(revision)}
        with self._stream("GET", _path(name, "/events"), params=params, headers=headers) as response:
            yield from _told(response, deadline)

    def build(self, spec: DeploymentSpec) -> Iterator[Event]:
        """Build what ``spec``, whose blobs were uploaded, runs from, without deploying it. Yield its events, the
        last of which is ``done`` (field ``result``) or ``failed`` (field ``problem``).

        Whoever closes the iterator before that, or whose process ends, stops the build.

        Raises:
            ValidationError: it is refused.
        """
        with self._stream("POST", "/builds", json={"spec": spec.to_dict()}) as response:
            for event in _told(response):
                yield event
                if event.terminal:
                    return
        raise Unreachable(f"the gateway at {self.endpoint.where} left before the build was over", hint=START_HINT)

    def logs(
        self, name: str, *, tail: int | None = None, since: str = "", follow: bool = False, build: bool = False
    ) -> Iterator[str]:
        """Yield the log lines of a deployment's replicas, or of its build.

        Args:
            tail: only the last lines.
            since: only what is younger, as the gateway reads it: ``"10m"``, or a time.
            follow: go on with what comes.
            build: the build's log instead.
        """
        params = {"tail": tail, "since": since, "follow": follow or None, "build": build or None}
        given = {k: str(v).lower() for k, v in params.items() if v not in (None, "")}
        timeout = httpx.Timeout(
            ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=None if follow else ANSWER_TIMEOUT_S
        )
        with self._stream("GET", _path(name, "/logs"), params=given, timeout=timeout) as response:
            yield from response.iter_lines()

    # -- the edge -----------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._send(method, path, **options)
        try:
            return dict(response.json())
        except ValueError:
            raise self._strange(response) from None

    def _send(self, method: str, path: str, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        with self._translated():
            response = self._http.request(method, path, **options)
        if response.is_success or response.status_code in accept:
            return response
        raise self._refusal(response)

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        with self._translated(), self._http.stream(method, path, **options) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Within it, what httpx raises becomes ``Unreachable``."""
        try:
            yield
        except httpx.ConnectError as error:
            raise Unreachable(f"no gateway answers at {self.endpoint.where}: {error}", hint=START_HINT) from None
        except httpx.TransportError as error:
            what = str(error) or type(error).__name__
            raise Unreachable(f"lost the gateway at {self.endpoint.where}: {what}", hint=START_HINT) from error

    def _refusal(self, response: httpx.Response) -> FngwError:
        # The answer to a HEAD has no body, whatever its headers say of one.
        if response.headers.get("content-type", "").startswith(PROBLEM_TYPE) and response.content:
            return from_problem(dict(response.json()))
        if response.status_code in (401, 403):
            hint = "give the gateway's token in FNGW_TOKEN, or fngw.connect(token=…)"
            return Unauthorized(f"the gateway at {self.endpoint.where} refuses this token", hint=hint)
        return self._strange(response)

    def _strange(self, response: httpx.Response) -> FngwError:
        request = response.request
        return FngwError(
            f"{request.method} {request.url} was answered {response.status_code}: {response.text[:200]!r}",
            code="unexpected_answer",
            hint=f"is {self.endpoint.where} a fngw gateway?",
            status=response.status_code,
        )


def _accepted(answer: dict[str, Any]) -> Accepted:
    return Accepted(int(answer["revision"]), str(answer.get("outcome", "replace")))


def _trusted(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """Return whose certificates to accept; nobody's where there are none to see, as loading those of the known
    authorities takes 20 ms, more than all else that a short command does."""
    encrypted = endpoint.socket is None and endpoint.url.startswith("https:")
    return True if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _path(name: str, rest: str = "") -> str:
    return f"/deployments/{quote(name, safe='')}{rest}"


def _pieces(blob: Blob, sent: Sent | None) -> Iterator[bytes]:
    blob.file.seek(0)
    for piece in iter(lambda: blob.file.read(CHUNK), b""):
        yield piece
        if sent:
            sent(len(piece))


def _told(response: httpx.Response, deadline: float | None = None) -> Iterator[Event]:
    """Yield the server-sent events of an answer, each of one line of data."""
    ident = ""
    for line in response.iter_lines():
        _check(deadline)
        key, _, value = line.partition(":")
        if key == "id":
            ident = value.strip()
        elif key == "data":
            yield _event(ident, value.strip())


def _event(ident: str, data: str) -> Event:
    fields = dict(json.loads(data))
    return Event(ident, str(fields.pop("kind")), str(fields.pop("message", "")), fields)


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise TimeoutError("the deadline has passed")
