"""The Lua of calls that wait, first part: what every script shares, and the scripts of who makes calls.

Each script moves a call from one state to the next in one step: fngw's record, RQ's job and registries, and the
counts all change together or not at all. The clock is Redis' own.

RQ's started registry holds calls with the score "+inf": RQ's tools clean up behind jobs whose score has passed, and
would so decide that a dispatcher is dead. That is decided by ``calls-leases`` alone.

The scripts make up the names of keys: fngw needs one Redis, not a cluster.
"""

from __future__ import annotations

from fngw_state import keys
from fngw_state.call_records import PRIORITIES, STATUSES, queue_of, rank_of

__all__ = ["ACCEPT", "AWAIT", "CANCEL", "COUNT", "PIN", "RETRY", "SHARED"]

_NAMES = {
    name: value
    for name, value in vars(keys).items()
    if isinstance(value, str) and name.startswith(("CALL", "DESIRED", "PAYLOAD", "RQ_"))
}

#: How RQ calls the states of a call.
_LOCALS = "".join(f"local {name} = '{value}'\n" for name, value in sorted(_NAMES.items()))

#: The two parts of ``rank_of``.
_RANKS = "local RANK, URGENCY = {}, {}\n" + "".join(
    [f"RANK['{status}'] = {rank_of(status, PRIORITIES[0])}\n" for status in STATUSES]
    + [f"URGENCY['{queue_of(priority)}'] = {n}\n" for n, priority in enumerate(PRIORITIES)]
)

SHARED = (
    _LOCALS
    + _RANKS
    + """
local call = redis.call

local function now()
  local t = call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function num(x) return string.format('%.6f', x) end

-- RQ's way to write a time: 2026-01-02T03:04:05.000006Z. Days to dates: Howard Hinnant, chrono-compatible
-- low-level date algorithms, civil_from_days.
local function stamp(t)
  local s = math.floor(t)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local d = doy - math.floor((153 * mp + 2) / 5) + 1
  local m = mp < 10 and mp + 3 or mp - 9
  local y = yoe + era * 400 + (m <= 2 and 1 or 0)
  local r = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', y, m, d, math.floor(r / 3600),
    math.floor(r % 3600 / 60), r % 60, math.floor((t - s) * 1000000))
end

local function hold(digest, size)
  if digest == '' then return end
  if call('HINCRBY', PAYLOADS, digest, 1) == 1 then
    call('ZREM', PAYLOADS_IDLE, digest)
    if call('HSETNX', PAYLOAD_SIZES, digest, size) == 1 then call('HINCRBY', PAYLOAD_SIZES, '', size) end
  end
end

local function let_go(digest, t)
  if not digest or digest == '' then return end
  if call('HINCRBY', PAYLOADS, digest, -1) <= 0 then
    call('HDEL', PAYLOADS, digest)
    call('ZADD', PAYLOADS_IDLE, 'GT', num(t), digest)
  end
end

local function add(hash, name, n)
  if call('HINCRBY', hash, name, n) <= 0 then call('HDEL', hash, name) end
end

-- Callbacks and calls are worked on apart.
local function family(queue) return queue == CALLBACKS_QUEUE and 'callbacks' or 'calls' end

local function wake(queue)
  local key = CALLS_WAKE .. family(queue)
  if call('LLEN', key) == 0 then call('RPUSH', key, '1') end
end

-- Write a call's status, and where it is in the indexes. A callback, which has no deployment, is in none.
local function set_status(id, deployment, queue, status)
  call('HSET', CALL .. id, 'status', status)
  if deployment == '' then return end
  local rank = RANK[status] + URGENCY[queue]
  call('ZADD', CALLS, rank, id)
  call('ZADD', CALLS_OF .. deployment, rank, id)
end

-- Put a call into its queue, or, when it shall not start before a time, among the scheduled ones.
local function enqueue(id, deployment, queue, t, not_before, at_front)
  if not_before and not_before > t then
    set_status(id, deployment, queue, 'delayed')
    call('HSET', CALL .. id, 'not_before', num(not_before))
    call('HSET', RQ_JOB .. id, 'status', 'scheduled')
    call('ZADD', RQ_SCHEDULED .. queue, num(not_before), id)
  else
    set_status(id, deployment, queue, 'queued')
    call('HSET', RQ_JOB .. id, 'status', 'queued', 'enqueued_at', stamp(t))
    call(at_front and 'LPUSH' or 'RPUSH', RQ_QUEUE .. queue, id)
  end
  call('SADD', RQ_QUEUES, RQ_QUEUE .. queue)
  wake(queue)
end

-- The RQ side of a new job. `data` is its function and arguments as JSON, uncompressed, which RQ reads as well.
local function make_job(id, queue, t, description, retries)
  call('HSET', RQ_JOB .. id, 'created_at', stamp(t), 'origin', queue, 'description', description,
    'data', '["fngw_dispatcher.calls.send",null,["' .. id .. '"],{}]', 'timeout', '-1',
    'number_of_retries', '0', 'retries_left', retries, 'success_callback_name', '', 'failure_callback_name', '',
    'stopped_callback_name', '', 'started_at', '', 'ended_at', '', 'last_heartbeat', '', 'worker_name', '',
    'group_id', '')
end

-- A callback is a call of another queue: it has leases, attempts and an end as any other.
local function make_callback(id, url, attempt, t)
  local new = id .. '-cb' .. attempt
  call('HSET', CALL .. new, 'kind', 'callback', 'deployment', '', 'method', 'POST', 'target', url, 'headers', '[]',
    'body', '', 'queue', CALLBACKS_QUEUE, 'priority', 'default', 'attempt', '0', 'retries', CALLBACK_RETRIES,
    'allowed', CALLBACK_RETRIES + 1, 'created', num(t), 'parent', id)
  call('HSET', CALL .. id, 'callback_id', new)
  call('HINCRBY', CALLS_OPEN, '', 1)
  make_job(new, CALLBACKS_QUEUE, t, 'callback of ' .. id, CALLBACK_RETRIES)
  enqueue(new, '', CALLBACKS_QUEUE, t)
end

-- End a call that is in no queue and no longer under way. `how` has error, and of a result: status, headers, body,
-- digest, size, and exc: the error as RQ stores it. `f` is the record.
local function close(id, f, status, how, t, ttl, worker)
  local record, queue = CALL .. id, f.queue
  local gone = num(t + ttl)
  set_status(id, f.deployment, queue, status)
  call('HSET', record, 'ended', num(t), 'error', how.error or '')
  if how.status then
    hold(how.digest, how.size)
    call('HSET', record, 'result_status', how.status, 'result_headers', how.headers, 'result_body', how.body,
      'result_digest', how.digest)
  end
  if status ~= 'failed' then  -- a dead letter may be sent again
    let_go(f.body_digest, t)
    call('HDEL', record, 'body', 'body_digest', 'headers')
  end
  add(CALLS_OPEN, f.deployment, -1)
  call('HINCRBY', CALLS_ENDED, status .. ':' .. f.deployment, 1)
  call('ZADD', CALLS_EXPIRY, gone, id)
  local rq = {finished = {'finished', RQ_FINISHED}, failed = {'failed', RQ_FAILED},
    cancelled = {'canceled', RQ_CANCELED}}
  local name, registry = unpack(rq[status])
  call('HSET', RQ_JOB .. id, 'status', name, 'ended_at', stamp(t), 'result', how.status or '')
  call('ZADD', registry .. queue, gone, id)
  if how.exc then  -- a stream takes 4 KiB, whatever is in it: only failures are worth one
    call('XADD', RQ_RESULTS .. id, '*', 'type', '2', 'worker_name', worker or '', 'exc_string', how.exc)
  end
  if f.awaited == '1' then call('PUBLISH', CALL_ENDED_CHANNEL, id) end
  if f.callback and f.callback ~= '' then make_callback(id, f.callback, f.attempt, t) end
end

local FIELDS = {'status', 'queue', 'deployment', 'attempt', 'allowed', 'retries', 'token', 'lease', 'cancel',
  'awaited', 'callback', 'body_digest', 'result_digest', 'key', 'kind', 'started'}

local function read(id)
  local values = call('HMGET', CALL .. id, unpack(FIELDS))
  if not values[1] then return nil end
  local f = {}
  for i, name in ipairs(FIELDS) do f[name] = values[i] or nil end
  return f
end

-- Take a failed call back to the beginning: it gets as many attempts as a new one.
local function reopen(id, f, t)
  let_go(f.result_digest, t)
  call('ZREM', RQ_FAILED .. f.queue, id)
  call('ZREM', CALLS_EXPIRY, id)
  call('HDEL', CALL .. id, 'ended', 'error', 'cancel', 'callback_id', 'result_status', 'result_headers',
    'result_body', 'result_digest')
  call('HSET', CALL .. id, 'allowed', f.attempt + f.retries + 1)
  call('HSET', RQ_JOB .. id, 'ended_at', '', 'result', '', 'retries_left', f.retries)
  call('HINCRBY', CALLS_OPEN, f.deployment, 1)
end
"""
).replace("CALLBACK_RETRIES", "8")

# ARGV id, deployment, queue, key of the idempotency record or "", hash of the request, bound, delay in seconds,
# digest or "", size, description, retries, then the record's fields and values.
# Returns {"created", id}, {"same", id}, {"reused", id} or {"full", how many there are}.
ACCEPT = (
    SHARED
    + """
local id, deployment, queue, key, hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if key ~= '' then
  local before = call('GET', key)
  if before then
    local other, same = before:match('^(.-)|(.*)$')
    if other == id then return {'created', id} end
    return {same == hash and 'same' or 'reused', other}
  end
end
-- The client sends again what was not answered before the connection was lost.
if call('EXISTS', CALL .. id) == 1 then return {'created', id} end
local open = tonumber(call('HGET', CALLS_OPEN, deployment) or '0')
if open >= tonumber(ARGV[6]) then return {'full', tostring(open)} end
local t = now()
if key ~= '' then call('SET', key, id .. '|' .. hash) end
hold(ARGV[8], ARGV[9])
call('HSET', CALL .. id, 'kind', 'call', 'deployment', deployment, 'queue', queue, 'key', key, 'attempt', '0',
  'created', num(t), 'body_digest', ARGV[8], unpack(ARGV, 12))
call('HINCRBY', CALLS_OPEN, deployment, 1)
make_job(id, queue, t, ARGV[10], ARGV[11])
enqueue(id, deployment, queue, t, t + tonumber(ARGV[7]))
return {'created', id}
"""
)

# ARGV id, seconds for which an ended call is kept. Returns the status that it has now, or nil; of a call under way
# it is still "running": its dispatcher is told.
CANCEL = (
    SHARED
    + """
local id, t = ARGV[1], now()
local f = read(id)
if not f then return false end
if f.status == 'running' then
  call('HSET', CALL .. id, 'cancel', '1')
  call('PUBLISH', CALL_CANCEL_CHANNEL, id)
  return 'running'
end
if f.status ~= 'queued' and f.status ~= 'delayed' then return f.status end
call('LREM', RQ_QUEUE .. f.queue, 1, id)
call('LREM', CALL_PARKED .. f.queue .. ':' .. f.deployment, 1, id)
call('ZREM', RQ_DEFERRED .. f.queue, id)
call('ZREM', RQ_SCHEDULED .. f.queue, id)
close(id, f, 'cancelled', {}, t, tonumber(ARGV[2]))
return 'cancelled'
"""
)

# ARGV id. Returns the status that it had, or nil; only a failed call is queued again.
RETRY = (
    SHARED
    + """
local id, t = ARGV[1], now()
local f = read(id)
if not f then return false end
if f.status == 'failed' then
  reopen(id, f, t)
  enqueue(id, f.deployment, f.queue, t)
end
return f.status
"""
)

# ARGV id. Have the end of a call published; of one that is known, so that none comes into being by this.
AWAIT = (
    SHARED
    + """
if call('EXISTS', CALL .. ARGV[1]) == 1 then call('HSET', CALL .. ARGV[1], 'awaited', '1') end
return 1
"""
)

# ARGV digest, size, bound, seconds. Returns 1, or 0 when the files would be too large together.
PIN = (
    SHARED
    + """
local digest, size = ARGV[1], tonumber(ARGV[2])
if call('HEXISTS', PAYLOAD_SIZES, digest) == 0 then
  if tonumber(call('HGET', PAYLOAD_SIZES, '') or '0') + size > tonumber(ARGV[3]) then return 0 end
  call('HSET', PAYLOAD_SIZES, digest, size)
  call('HINCRBY', PAYLOAD_SIZES, '', size)
end
call('ZADD', PAYLOADS_IDLE, 'GT', num(now() + tonumber(ARGV[4])), digest)
return 1
"""
)

# ARGV deployments. Returns the time as RQ writes it, then for each: how many are queued of each priority, delayed,
# running, and failed; and since when the oldest of those queued has been so, or "".
COUNT = (
    SHARED
    + """
local counts = {stamp(now())}
for _, deployment in ipairs(ARGV) do
  local key = CALLS_OF .. deployment
  local function many(first, last) return call('ZCOUNT', key, first, last) end
  local since = ''
  for rank = RANK.queued, RANK.queued + 2 do
    counts[#counts + 1] = many(rank, rank)
    local id = call('ZRANGEBYSCORE', key, rank, rank, 'LIMIT', 0, 1)[1]
    local at = id and call('HGET', RQ_JOB .. id, 'enqueued_at')
    if at and (since == '' or at < since) then since = at end
  end
  for _, status in ipairs({'delayed', 'running', 'failed'}) do
    counts[#counts + 1] = many(RANK[status], RANK[status] + 2)
  end
  counts[#counts + 1] = since
end
return counts
"""
)
