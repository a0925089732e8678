"""Reads and writes of the records, atomic where two writers can meet.

Gateways write desired state by compare-and-set on the revision's number. Only the leading controller writes what
it observes, and every such write carries its fencing token: a controller that lost its lease while it was
paused cannot overwrite what its successor wrote.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from redis.asyncio import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from fngw.errors import RouteConflict
from fngw_state import keys
from fngw_state.cancellable import make_cancellable
from fngw_state.records import BuildProgress, BuildResult, Desired, RoutingTable, Status
from fngw_state.writable import Client

#: What a lost or silent Redis raises; or one that takes no writes for now (``writable.WritesRefused``).
LOST = (RedisConnectionError, RedisTimeoutError, OSError)

# KEYS desired, claims, versions, events; ARGV name, expected serial ("0": none), new JSON ("": remove), channel,
# routes as JSON list, seconds for which events outlive their deployment. The versions go with it.
# Returns 1, 0 when somebody else wrote meanwhile, or {holder, route} when another name holds one of the routes.
_PUT_DESIRED = """
local current = redis.call('HGET', KEYS[1], ARGV[1])
local serial = '0'
if current then serial = string.format('%d', cjson.decode(current).serial) end
if serial ~= ARGV[2] then return 0 end
local wanted = {}
for _, route in ipairs(cjson.decode(ARGV[5])) do
  local holder = redis.call('HGET', KEYS[2], route)
  if holder and holder ~= ARGV[1] then return {holder, route} end
  wanted[route] = true
end
local claims = redis.call('HGETALL', KEYS[2])
for i = 1, #claims, 2 do
  if claims[i + 1] == ARGV[1] and not wanted[claims[i]] then redis.call('HDEL', KEYS[2], claims[i]) end
end
for route in pairs(wanted) do redis.call('HSET', KEYS[2], route, ARGV[1]) end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
  redis.call('EXPIRE', KEYS[4], ARGV[6])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('PERSIST', KEYS[4])
end
redis.call('PUBLISH', ARGV[4], ARGV[1])
return 1
"""

# KEYS leader, fence; ARGV controller id, TTL ms, the newest token that the caller has seen (an emptied Redis must
# not count from 1 again). Returns the token, or 0 while another one leads.
_LEAD = """
local value = redis.call('GET', KEYS[1])
if value then
  local holder, token = value:match('^(.-)|(%d+)$')
  if holder ~= ARGV[1] then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(token)
end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[3]) then redis.call('SET', KEYS[2], ARGV[3]) end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. token, 'PX', ARGV[2])
return token
"""

# KEYS generation; ARGV the least that it may be.
_RAISE = """
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""

# KEYS leader; ARGV controller id
_RESIGN = """
local value = redis.call('GET', KEYS[1])
if value and value:match('^(.-)|%d+$') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

# KEYS fence, then those of the commands; ARGV token, then a JSON list of commands. Returns 0 when fenced off.
_FENCED = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 0 end
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return 1
"""


class Fenced(RuntimeError):
    """Another controller leads by now; this one must stop writing."""


def connect(url: str) -> Redis:
    """Return a client that tries again on a lost connection and never waits for ever.

    Args:
        url: ``redis://[:password@]host:port/db`` or ``unix://[:password@]/path``.
    """
    # A Unix socket's connection refuses this argument.
    over_tcp: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    client = Client.from_url(
        url,
        decode_responses=True,
        socket_timeout=10,
        socket_connect_timeout=5,
        max_connections=10_000,  # one per deploy that is followed; the default of 100 is soon used up
        driver_info=None,  # which redis-py looks up anew for each connection, among all installed packages
        **over_tcp,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), retries=4),
        retry_on_error=[RedisConnectionError],
    )
    return make_cancellable(client)


class Store:
    """All records of one fngw installation.

    Args:
        redis: a client from ``connect``.

    Example:
        >>> store = Store(connect("redis://127.0.0.1:6379"))
        >>> await store.desired("Greeter")
    """

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis  # its stubs mix the answers of decoded and raw connections
        self._put_desired = redis.register_script(_PUT_DESIRED)
        self._lead = redis.register_script(_LEAD)
        self._raise = redis.register_script(_RAISE)
        self._resign = redis.register_script(_RESIGN)
        self._fenced = redis.register_script(_FENCED)

    async def close(self) -> None:
        await self.redis.aclose()

    # -- desired ------------------------------------------------------------------------------------------

    async def next_number(self) -> int:
        """Return a number that no revision or routing table has."""
        return int(await self.redis.incr(keys.GENERATION))

    async def last_number(self) -> int:
        """Return the last number given out; 0 in an empty Redis."""
        return int(await self.redis.get(keys.GENERATION) or 0)

    async def raise_numbers(self, least: int) -> None:
        """See to it that no number up to ``least`` is given out again, after Redis was emptied."""
        await self._raise(keys=[keys.GENERATION], args=[str(least)])

    async def desired(self, name: str) -> Desired | None:
        text = await self.redis.hget(keys.DESIRED, name)
        return Desired.from_json(text) if text else None

    async def all_desired(self) -> dict[str, Desired]:
        found = await self.redis.hgetall(keys.DESIRED)
        return {name: Desired.from_json(text) for name, text in found.items()}

    async def put_desired(self, before: Desired | None, after: Desired) -> Desired | None:
        """Store ``after`` if ``before`` is still what stands there; return it with its new serial, else None.

        Raises:
            RouteConflict: another deployment holds its route prefix.
        """
        stored = dataclasses.replace(after, serial=(before.serial if before else 0) + 1)
        return stored if await self._swap(before, stored.name, stored.to_json(), stored.routes) else None

    async def remove_desired(self, before: Desired) -> bool:
        """Forget a deployment that is gone, and its versions; False when it was deployed again meanwhile."""
        return await self._swap(before, before.name, "", frozenset())

    async def _swap(self, before: Desired | None, name: str, text: str, routes: frozenset[str]) -> bool:
        expected = before.serial if before else 0
        claims = json.dumps(sorted(routes)) if routes else "[]"
        args = [name, str(expected), text, keys.DESIRED_CHANNEL, claims, str(keys.EVENTS_GONE_TTL_S)]
        touched = [keys.DESIRED, keys.CLAIMS, keys.VERSIONS + name, keys.EVENTS + name]
        answer = await self._put_desired(keys=touched, args=args)
        if isinstance(answer, list):
            holder, route = answer
            raise RouteConflict(
                f"{name}: route_prefix {route!r} is taken by deployment {holder!r}",
                hint=f"choose another route_prefix, or run `fngw delete {holder}`",
            )
        return bool(answer)

    async def installed(self, now: float) -> bool:
        """Mark Redis as in use since ``now`` (Unix seconds); False when it was empty, so that desired state has to
        be restored."""
        return not await self.redis.set(keys.INSTALLED, repr(now), nx=True)

    async def in_use(self) -> bool:
        """Whether Redis was marked as in use, and has not been emptied since."""
        return bool(await self.redis.exists(keys.INSTALLED))

    # -- leadership ---------------------------------------------------------------------------------------

    async def lead(self, controller: str, held: int = 0) -> int:
        """Take or renew the leader's lease; return its fencing token, or 0 while another one leads.

        Args:
            controller: who wants to lead.
            held: the token it has. A new one is greater, even if Redis has forgotten all it knew.
        """
        args = [controller, str(keys.LEADER_TTL_MS), str(held)]
        return int(await self._lead(keys=[keys.LEADER, keys.FENCE], args=args))

    async def resign(self, controller: str) -> None:
        """Give the lease back, so that a successor need not wait for its end."""
        await self._resign(keys=[keys.LEADER], args=[controller])

    async def fenced(self, token: int, *commands: Iterable[str]) -> None:
        """Run write commands in one step, unless another controller leads.

        Raises:
            Fenced: a newer token was given out.
        """
        text = json.dumps([list(c) for c in commands])
        if not await self._fenced(keys=[keys.FENCE], args=[str(token), text]):
            raise Fenced(f"token {token} is no longer the leader's")

    async def put_engine(self, token: int, name: str, version: str, detail: str) -> None:
        text = json.dumps({"name": name, "version": version, "detail": detail})
        await self.fenced(token, ["SET", keys.ENGINE, text])

    async def engine(self) -> dict[str, str] | None:
        """What runs replicas: ``name``, ``version`` and ``detail``; None while no controller has led."""
        text = await self.redis.get(keys.ENGINE)
        return json.loads(text) if text else None

    # -- status and routes --------------------------------------------------------------------------------

    async def put_status(self, token: int, status: Status) -> None:
        await self.fenced(token, ["HSET", keys.STATUS, status.name, status.to_json()])

    async def remove_status(self, token: int, name: str) -> None:
        await self.fenced(token, ["HDEL", keys.STATUS, name])

    async def status(self, name: str) -> Status | None:
        text = await self.redis.hget(keys.STATUS, name)
        return Status.from_json(text) if text else None

    async def all_status(self) -> dict[str, Status]:
        found = await self.redis.hgetall(keys.STATUS)
        return {name: Status.from_json(text) for name, text in found.items()}

    async def put_routes(self, token: int, table: RoutingTable) -> None:
        await self.fenced(
            token,
            ["SET", keys.ROUTES, table.to_json()],
            ["PUBLISH", keys.ROUTES_CHANNEL, str(table.generation)],
        )

    async def routes(self) -> RoutingTable | None:
        text = await self.routes_text()
        return RoutingTable.from_json(text) if text else None

    async def routes_text(self) -> str | None:
        """Return the routing table as it is stored: cheap to compare with the one read before."""
        text: str | None = await self.redis.get(keys.ROUTES)
        return text or None

    # -- gateways -----------------------------------------------------------------------------------------

    async def applied(self, gateway: str, generation: int) -> None:
        """A gateway tells that it routes by this table (and that it is alive)."""
        async with self.redis.pipeline() as pipe:
            pipe.set(keys.GATEWAY + gateway, str(generation), px=keys.GATEWAY_TTL_MS)
            pipe.sadd(keys.GATEWAYS, gateway)
            await pipe.execute()

    async def gateway_gone(self, gateway: str) -> None:
        """A gateway tells that it routes no more."""
        async with self.redis.pipeline() as pipe:
            pipe.delete(keys.GATEWAY + gateway)
            pipe.srem(keys.GATEWAYS, gateway)
            await pipe.execute()

    async def gateways(self) -> dict[str, int]:
        """Return the generation by which each living gateway routes; forget the dead ones."""
        ids = sorted(await self.redis.smembers(keys.GATEWAYS))
        if not ids:
            return {}
        values = await self.redis.mget([keys.GATEWAY + i for i in ids])
        dead = [i for i, v in zip(ids, values, strict=True) if v is None]
        if dead:
            await self.redis.srem(keys.GATEWAYS, *dead)
        return {i: int(v) for i, v in zip(ids, values, strict=True) if v is not None}

    # -- progress -----------------------------------------------------------------------------------------

    async def emit(self, name: str, number: int, kind: str, message: str, **more: Any) -> None:
        """Append a progress event of one deploy. ``docs/architecture/state.md`` lists the kinds."""
        event = {"number": number, "kind": kind, "message": message, **more}
        await self.redis.xadd(keys.EVENTS + name, {"e": json.dumps(event)}, maxlen=keys.EVENTS_MAXLEN)

    async def follow(
        self, name: str, number: int, after: str = "0"
    ) -> AsyncIterator[tuple[str, dict[str, Any] | None]]:
        """Yield ``(id, event)`` of one deploy, old ones first, then as they come; ``(id, None)`` every few seconds
        without one, so that the reader can tell that the line is alive."""
        while True:
            found = await self.redis.xread({keys.EVENTS + name: after}, count=200, block=2000)
            if not found:
                yield after, None
            for _, entries in found or ():
                for entry, fields in entries:
                    after = entry
                    event = json.loads(fields["e"])
                    if event["number"] == number:
                        yield entry, event

    # -- builds -------------------------------------------------------------------------------------------

    async def build_news(self, key: str, seen: int) -> tuple[BuildResult | None, list[str], list[BuildProgress]]:
        """Return how a build ended, if it did, its log from line ``seen`` on, and how far each of its steps is."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.get(keys.BUILD + key)  # before the log, so that no line comes after the result
            pipe.lrange(keys.BUILD_LOG + key, seen, -1)
            pipe.get(keys.BUILD_PROGRESS + key)
            result, lines, progress = await pipe.execute()
        return (
            BuildResult.from_json(result) if result else None,
            lines,
            [BuildProgress.from_dict(step) for step in json.loads(progress or "[]")],
        )

    async def forget_build(self, key: str) -> None:
        await self.redis.delete(keys.BUILD + key)

    async def building(self, key: str) -> bool:
        """Whether a builder works on this key right now."""
        return bool(await self.redis.exists(keys.BUILD_BEAT + key))
