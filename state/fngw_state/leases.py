"""Leases: which replica holds how much of the machine. Taken in one script, so that nothing is given twice.

A deployment keeps what it once held until it is complete again (``settle``): the place of a replica that died, or
that left to make room for its successor, goes to nobody else in between, and an old version can always come back.
That is the ``reserved`` hash; what counts for the others is, by resource, the greater of it and of what is held.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from fngw_state import keys
from fngw_state.resources import Capacity, Lease, Ledger, Request
from fngw_state.store import Fenced, Store

__all__ = ["Blocker", "Leases", "LedgerLost"]

# -- Lua that the scripts share. Amounts are tables resource -> number; sums are tables deployment -> amounts.
_SHARED = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 'fenced' end

local function add(into, amounts)
  for k, n in pairs(amounts) do into[k] = (into[k] or 0) + n end
end

local function raise(into, amounts)
  for k, n in pairs(amounts) do into[k] = math.max(into[k] or 0, n) end
end

local function decoded(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do found[flat[i]] = cjson.decode(flat[i + 1]) end
  return found
end

local function sums(leases, without)
  local found = {}
  for replica, lease in pairs(leases) do
    if not without[replica] then
      found[lease.deployment] = found[lease.deployment] or {}
      add(found[lease.deployment], lease.amounts)
    end
  end
  return found
end
"""

# KEYS fence, leases, reserved, capacity; ARGV token, replica, deployment, Request, {leaving = [..], old = [..]}
# (replicas of this deployment), and the devices of a replica that runs already (JSON list; "" for a new one).
# Returns 'fenced', 'unknown' (no capacity), or JSON: {lease} or {blocker}.
_TAKE = (
    _SHARED
    + """
local replica, mine, request, going = ARGV[2], ARGV[3], cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local held = redis.call('HGET', KEYS[2], replica)
if held then return '{"lease":' .. held .. '}' end
local text = redis.call('GET', KEYS[4])
if not text then return 'unknown' end
local capacity, leases, reserved = cjson.decode(text), decoded(KEYS[2]), decoded(KEYS[3])

local function charge(device)
  local milli = request.gpu_milli
  if milli == 0 then milli = math.ceil(request.gpu_mib * 1000 / math.max(1, device.memory_mib)) end
  local mib = request.gpu_mib
  if milli == 1000 then
    mib = math.max(mib, device.memory_mib)
  elseif mib == 0 then
    mib = math.floor(device.memory_mib * milli / 1000)
  end
  return milli, mib
end

local function put(amounts, device, milli, mib)
  amounts['gpu:' .. device.uuid], amounts['gpu_mib:' .. device.uuid] = milli, mib
end

-- What everybody uses but the replicas in `without`; of this deployment's reserve its own replicas may use all.
local function usage(without)
  local by_name, used = sums(leases, without), {}
  for name, amounts in pairs(reserved) do
    if name ~= mine then
      by_name[name] = by_name[name] or {}
      raise(by_name[name], amounts)
    end
  end
  for _, amounts in pairs(by_name) do add(used, amounts) end
  return used
end

-- The devices to take, the fullest that have room first; nil when there are not enough.
local function devices(used)
  local found = {}
  for order, device in ipairs(capacity.devices) do
    local milli, mib = charge(device)
    local free = 1000 - (used['gpu:' .. device.uuid] or 0)
    local free_mib = device.memory_mib - (used['gpu_mib:' .. device.uuid] or 0)
    -- CUDA shows a process one MIG slice at most.
    if device.fault == '' and milli <= free and mib <= free_mib and not (request.gpus > 1 and device.mig) then
      found[#found + 1] = {device = device, free = free, milli = milli, mib = mib, order = order}
    end
  end
  if #found < request.gpus then return nil end
  table.sort(found, function(a, b)
    if a.free ~= b.free then return a.free < b.free end
    if a.device.memory_mib ~= b.device.memory_mib then return a.device.memory_mib < b.device.memory_mib end
    return a.order < b.order
  end)
  return found
end

local function place(without)
  local used, take = usage(without), {}
  for _, resource in ipairs({'memory_mib', 'milli_cpus'}) do
    local total, wanted = capacity[resource], request[resource]
    if total ~= cjson.null and wanted > 0 then
      if (used[resource] or 0) + wanted > total then return nil end
      take[resource] = wanted
    end
  end
  if request.gpus == 0 then return take end
  local found = devices(used)
  if not found then return nil end
  for i = 1, request.gpus do put(take, found[i].device, found[i].milli, found[i].mib) end
  return take
end

-- What a replica that runs holds already, whether or not there is room for it.
local function adopt(uuids)
  local take, mine_too = {}, {}
  for _, uuid in ipairs(uuids) do mine_too[uuid] = true end
  for _, resource in ipairs({'memory_mib', 'milli_cpus'}) do
    if capacity[resource] ~= cjson.null and request[resource] > 0 then take[resource] = request[resource] end
  end
  for _, device in ipairs(capacity.devices) do
    if mine_too[device.uuid] then put(take, device, charge(device)) end
  end
  return take
end

local function reserve(without, take)
  local wanted = sums(leases, without)[mine] or {}
  add(wanted, take)
  raise(wanted, reserved[mine] or {})
  if next(wanted) then redis.call('HSET', KEYS[3], mine, cjson.encode(wanted)) end
end

local take
if ARGV[6] == '' then take = place({}) else take = adopt(cjson.decode(ARGV[6])) end
if take then
  local lease = cjson.encode({deployment = mine, amounts = take})
  redis.call('HSET', KEYS[2], replica, lease)
  reserve({}, take)
  return '{"lease":' .. lease .. '}'
end
local without = {}
for _, blocker in ipairs({'leaving', 'old'}) do
  for _, id in ipairs(going[blocker]) do without[id] = true end
  local later = place(without)
  if later then
    reserve(without, later)
    return cjson.encode({blocker = blocker})
  end
end
return '{"blocker":"others"}'
"""
)

# KEYS fence, leases, reserved; ARGV token, deployment. Returns 'fenced', or how many resources became free.
_SETTLE = (
    _SHARED
    + """
local held = sums(decoded(KEYS[2]), {})[ARGV[2]] or {}
local before, freed = cjson.decode(redis.call('HGET', KEYS[3], ARGV[2]) or '{}'), 0
for k, n in pairs(before) do if n > (held[k] or 0) then freed = freed + 1 end end
if next(held) then
  redis.call('HSET', KEYS[3], ARGV[2], cjson.encode(held))
else
  redis.call('HDEL', KEYS[3], ARGV[2])
end
return freed
"""
)

# KEYS fence, leases, reserved; ARGV token, replicas, deployments (JSON lists). Returns 'fenced' or what it dropped.
_KEEP = (
    _SHARED
    + """
local dropped = {}
for key, list in pairs({[KEYS[2]] = cjson.decode(ARGV[2]), [KEYS[3]] = cjson.decode(ARGV[3])}) do
  local kept = {}
  for _, name in ipairs(list) do kept[name] = true end
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if not kept[name] then
      redis.call('HDEL', key, name)
      dropped[#dropped + 1] = name
    end
  end
end
return dropped
"""
)


class LedgerLost(RedisConnectionError):
    """Redis was emptied, and does not know yet what the machine has: wait, as for a lost Redis."""


class Blocker(StrEnum):
    """Whose leaving would make room."""

    LEAVING = "leaving"  # replicas of the same deployment that are about to be gone
    OLD = "old"  # replicas of the same deployment that are to be replaced
    OTHERS = "others"


class Leases:
    """All leases of one installation.

    Args:
        store: the shared state.

    Example:
        >>> leases = Leases(store)
        >>> await leases.declare(token, Capacity(memory_mib=16384))
        >>> await leases.take(token, "a1b2", "Greeter", Request(memory_mib=512))
        Lease(deployment='Greeter', amounts={'memory_mib': 512})
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._take = store.redis.register_script(_TAKE)
        self._settle = store.redis.register_script(_SETTLE)
        self._keep = store.redis.register_script(_KEEP)

    async def declare(self, token: int, capacity: Capacity, leases: Mapping[str, Lease] | None = None) -> None:
        """Say what the machine has; and, after Redis was emptied, what replicas hold.

        Raises:
            Fenced: another controller leads.
        """
        restored = [["HSET", keys.LEASES, replica, lease.to_json()] for replica, lease in (leases or {}).items()]
        await self._store.fenced(token, ["SET", keys.CAPACITY, capacity.to_json()], *restored)

    async def take(
        self,
        token: int,
        replica: str,
        deployment: str,
        request: Request,
        *,
        leaving: Collection[str] = (),
        old: Collection[str] = (),
    ) -> Lease | Blocker:
        """Take what one replica asks for, or tell why there is no room. Taken again, it is the same lease.

        When room appears as soon as replicas of the deployment itself have left, that room is reserved for it.

        Args:
            token: the leader's.
            replica: who is to hold it.
            deployment: whose replica that is.
            request: how much.
            leaving: replicas of this deployment that will be gone soon.
            old: those that could be stopped to make room.

        Raises:
            Fenced: another controller leads.
            LedgerLost: Redis does not know what the machine has.
        """
        going = {"leaving": sorted(leaving), "old": sorted(old)}
        found = await self._taken(token, replica, deployment, request, going, "")
        return Blocker(found["blocker"]) if "blocker" in found else Lease.from_dict(found["lease"])

    async def adopt(
        self, token: int, replica: str, deployment: str, request: Request, gpus: Collection[str]
    ) -> Lease:
        """Write down what a running replica holds, if it is not; whether or not there is room for it.

        Args:
            token: the leader's.
            replica: who holds it.
            deployment: whose replica that is.
            request: how much.
            gpus: the devices that it was started with.

        Raises:
            Fenced: another controller leads.
            LedgerLost: Redis does not know what the machine has.
        """
        going: dict[str, list[str]] = {"leaving": [], "old": []}
        found = await self._taken(token, replica, deployment, request, going, json.dumps(list(gpus)))
        return Lease.from_dict(found["lease"])

    async def _taken(
        self, token: int, replica: str, deployment: str, request: Request, going: Mapping[str, Any], gpus: str
    ) -> dict[str, Any]:
        args = [str(token), replica, deployment, request.to_json(), json.dumps(going), gpus]
        answer = await self._take(keys=[keys.FENCE, keys.LEASES, keys.RESERVED, keys.CAPACITY], args=args)
        _check_fence(answer, token)
        if answer == "unknown":
            raise LedgerLost("redis does not know what this machine has")
        found: dict[str, Any] = json.loads(answer)
        return found

    async def release(self, token: int, replica: str) -> None:
        """Give back what a replica held; nothing happens when it held nothing.

        Raises:
            Fenced: another controller leads.
        """
        await self._store.fenced(token, ["HDEL", keys.LEASES, replica])

    async def settle(self, token: int, deployment: str) -> bool:
        """Reserve for a deployment no more than its replicas hold now; tell whether that freed anything.

        Raises:
            Fenced: another controller leads.
        """
        answer = await self._settle(keys=[keys.FENCE, keys.LEASES, keys.RESERVED], args=[str(token), deployment])
        _check_fence(answer, token)
        return bool(answer)

    async def keep(self, token: int, replicas: Collection[str], deployments: Collection[str]) -> list[str]:
        """Drop the leases of all replicas but these, and what is reserved for all deployments but these.

        Returns:
            The names that were dropped.

        Raises:
            Fenced: another controller leads.
        """
        args = [str(token), json.dumps(sorted(replicas)), json.dumps(sorted(deployments))]
        answer = await self._keep(keys=[keys.FENCE, keys.LEASES, keys.RESERVED], args=args)
        _check_fence(answer, token)
        return sorted(answer)

    async def ledger(self) -> Ledger:
        """Return all that is there now."""
        async with self._store.redis.pipeline() as pipe:
            pipe.get(keys.CAPACITY)
            pipe.hgetall(keys.LEASES)
            pipe.hgetall(keys.RESERVED)
            capacity, leases, reserved = await pipe.execute()
        return Ledger(
            Capacity.from_json(capacity) if capacity else None,
            {replica: Lease.from_json(text) for replica, text in leases.items()},
            {deployment: json.loads(text) for deployment, text in reserved.items()},
        )


def _check_fence(answer: Any, token: int) -> None:
    if answer == "fenced":
        raise Fenced(f"token {token} is no longer the leader's")
