"""The Lua of calls that wait, second part: the scripts of dispatchers.

A call under way belongs to whoever holds its token. Every script that ends or renews it brings the token, and
leaves alone a call that has another: a dispatcher that was paused past its lease cannot overwrite what came after.
"""

from __future__ import annotations

from fngw_state.call_scripts import SHARED

__all__ = ["ADOPT", "CLAIM", "END", "FORGET", "LAPSE", "RENEW", "UNPIN"]

_UNDER_WAY = (
    SHARED
    + """
local function execution(id, f) return id .. ':' .. f.token end

-- Take a call out of all that says that it is under way.
local function leave(id, f)
  local e = execution(id, f)
  call('ZREM', CALLS_LEASES, id)
  add(CALLS_RUNNING, f.deployment, -1)
  call('ZREM', RQ_STARTED .. f.queue, e)
  call('DEL', RQ_EXECUTION .. e, RQ_EXECUTIONS .. id)
  call('SREM', RQ_WORKER .. f.lease .. ':executions', e)
  if call('SISMEMBER', CALLS_PARKED .. family(f.queue), f.deployment) == 1 then wake(f.queue) end
end

local function note(id, f, error)
  if error ~= '' then call('HSET', CALL .. id, 'error', error, 'error:' .. f.attempt, error) end
end
"""
)

# ARGV dispatcher, how many at most, lease in seconds, limit of deployments that are not named, limits as JSON
# {deployment: calls under way}, then queues, the more urgent first.
# Returns {seconds until the next scheduled call or "", whether more can start now, then a list for each call}.
CLAIM = (
    _UNDER_WAY
    + """
local worker, free, lease, default = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local limits, t = cjson.decode(ARGV[5]), now()
local queues = {unpack(ARGV, 6)}
local turn = call('INCRBY', CALLS_TURN, free)
local next_due

-- What is due goes to the end of its queue.
for _, queue in ipairs(queues) do
  local key = RQ_SCHEDULED .. queue
  for _, id in ipairs(call('ZRANGEBYSCORE', key, '-inf', num(t), 'LIMIT', 0, 500)) do
    call('ZREM', key, id)
    local status, deployment = unpack(call('HMGET', CALL .. id, 'status', 'deployment'))
    if status == 'delayed' then enqueue(id, deployment, queue, t) end
  end
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if first and (not next_due or tonumber(first) < next_due) then next_due = tonumber(first) end
end

local running = {}
local function room(deployment)
  running[deployment] = running[deployment] or tonumber(call('HGET', CALLS_RUNNING, deployment) or '0')
  return running[deployment] < (limits[deployment] or default)
end

-- The queues in the order of this turn: of twelve, eight begin with the first, three with the second, one with the
-- third, so that none starves.
local function order()
  turn = turn + 1
  local first = turn % 12 == 11 and 3 or (turn % 4 == 3 and 2 or 1)
  if first > #queues then return queues end
  local sorted = {queues[first]}
  for i, queue in ipairs(queues) do
    if i ~= first then sorted[#sorted + 1] = queue end
  end
  return sorted
end

local function pop(key, suffix)
  for _, queue in ipairs(order()) do
    local id = call('LPOP', key .. queue .. suffix)
    if id then return id, queue end
  end
end

local claimed = {}
local SENT = {'kind', 'deployment', 'method', 'target', 'headers', 'body', 'body_digest', 'allowed', 'timeout',
  'parent'}

local function start(id, queue, deployment)
  local record = CALL .. id
  local attempt = call('HINCRBY', record, 'attempt', 1)
  local token = call('HINCRBY', record, 'token', 1)
  running[deployment] = running[deployment] + 1
  call('HINCRBY', CALLS_RUNNING, deployment, 1)
  set_status(id, deployment, queue, 'running')
  call('HSET', record, 'started', num(t), 'lease', worker)
  call('ZADD', CALLS_LEASES, num(t + lease), id)
  local at, e = stamp(t), id .. ':' .. token
  call('HSET', RQ_JOB .. id, 'status', 'started', 'started_at', at, 'last_heartbeat', at, 'worker_name', worker)
  call('ZADD', RQ_STARTED .. queue, '+inf', e)
  call('HSET', RQ_EXECUTION .. e, 'id', token, 'job_id', id, 'created_at', num(t), 'last_heartbeat', num(t),
    'worker_name', worker)
  call('ZADD', RQ_EXECUTIONS .. id, '+inf', token)
  call('SADD', RQ_WORKER .. worker .. ':executions', e)
  claimed[#claimed + 1] = {id, token, attempt, unpack(call('HMGET', record, unpack(SENT)))}
end

local function park(id, queue, deployment)
  call('SADD', CALLS_PARKED .. family(queue), deployment)
  call('RPUSH', CALL_PARKED .. queue .. ':' .. deployment, id)
  call('ZADD', RQ_DEFERRED .. queue, num(t), id)
  call('HSET', RQ_JOB .. id, 'status', 'deferred')
end

-- First those that wait for their deployment's share, beginning with another deployment each time.
local parked = call('SMEMBERS', CALLS_PARKED .. family(queues[1]))
table.sort(parked)
local waiting = {}
for i = 1, #parked do
  local deployment = parked[(turn + i) % #parked + 1]
  waiting[deployment] = true
  while #claimed < free and room(deployment) do
    local id, queue = pop(CALL_PARKED, ':' .. deployment)
    if not id then
      call('SREM', CALLS_PARKED .. family(queues[1]), deployment)
      waiting[deployment] = nil
      break
    end
    call('ZREM', RQ_DEFERRED .. queue, id)
    start(id, queue, deployment)
  end
end

local looked = 0
while #claimed < free and looked < 1000 do
  local id, queue = pop(RQ_QUEUE, '')
  if not id then break end
  looked = looked + 1
  local f = read(id)
  if f and f.status == 'failed' then  -- somebody used RQ's own requeue
    reopen(id, f, t)
    f.status = 'queued'
  end
  if f and (f.status == 'queued' or f.status == 'delayed') then
    if waiting[f.deployment] or not room(f.deployment) then
      park(id, queue, f.deployment)
      waiting[f.deployment] = true
    else
      start(id, queue, f.deployment)
    end
  end
end

-- What this dispatcher has no place for, another one may have.
local more = #claimed == free or looked == 1000
if more then
  more = false
  for _, queue in ipairs(queues) do more = more or call('LLEN', RQ_QUEUE .. queue) > 0 end
  if more then wake(queues[1]) end
end
return {next_due and num(math.max(0, next_due - t)) or '', more and 1 or 0, unpack(claimed)}
"""
)

# ARGV dispatcher, seconds for which a result is kept, and a dead letter, then eleven for each call: id, token, what
# ("finished", "failed", "cancelled", "retry": later, "release": later, and not counted, "handover": at once, and
# not charged), seconds until it is tried again, error as JSON or "", HTTP status or "", headers, body, digest,
# size, the error as RQ stores it or "".
# Returns for each 1, or 0 where the call was no longer the caller's.
END = (
    _UNDER_WAY
    + """
local worker, keep = ARGV[1], {finished = ARGV[2], failed = ARGV[3], cancelled = ARGV[2]}
local t, done = now(), {}
local good, bad, worked = 0, 0, 0

local function again(id, f, what, delay)
  local record = CALL .. id
  if what == 'release' then
    call('HINCRBY', record, 'attempt', -1)
  elseif what == 'handover' then
    call('HINCRBY', record, 'allowed', 1)
  end
  local left = math.max(0, f.allowed - f.attempt)
  call('HSET', RQ_JOB .. id, 'retries_left', left, 'worker_name', '')
  enqueue(id, f.deployment, f.queue, t, t + delay, true)
end

for i = 4, #ARGV, 11 do
  local id, token, what, delay, error, status, headers, body, digest, size, exc = unpack(ARGV, i, i + 10)
  local f = read(id)
  if not f or f.status ~= 'running' or f.token ~= token then
    done[#done + 1] = 0
  else
    done[#done + 1] = 1
    leave(id, f)
    worked = worked + math.max(0, t - f.started)
    if exc == '' then exc = nil end
    if not keep[what] and f.cancel == '1' then what = 'cancelled' end
    if keep[what] then
      if what == 'finished' then good = good + 1 elseif what == 'failed' then bad = bad + 1 end
      note(id, f, error)
      local how = {error = error, exc = exc}
      if status ~= '' then
        how.status, how.headers, how.body, how.digest, how.size = status, headers, body, digest, size
      end
      close(id, f, what, how, t, tonumber(keep[what]), worker)
    else
      note(id, f, error)
      again(id, f, what, tonumber(delay))
    end
  end
end
if call('EXISTS', RQ_WORKER .. worker) == 1 then
  call('HINCRBY', RQ_WORKER .. worker, 'successful_job_count', good)
  call('HINCRBY', RQ_WORKER .. worker, 'failed_job_count', bad)
  call('HINCRBYFLOAT', RQ_WORKER .. worker, 'total_working_time', num(worked))
end
return done
"""
)

# ARGV lease in seconds, then id and token of each call. Returns {ids that are no longer the caller's}, {ids that
# are to be cancelled}.
RENEW = (
    SHARED
    + """
local t, lost, cancelled = now(), {}, {}
local at = stamp(t)
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local status, token, cancel = unpack(call('HMGET', CALL .. id, 'status', 'token', 'cancel'))
  if status ~= 'running' or token ~= ARGV[i + 1] then
    lost[#lost + 1] = id
  else
    call('ZADD', CALLS_LEASES, num(t + tonumber(ARGV[1])), id)
    call('HSET', RQ_JOB .. id, 'last_heartbeat', at)
    call('HSET', RQ_EXECUTION .. id .. ':' .. token, 'last_heartbeat', num(t))
    if cancel == '1' then cancelled[#cancelled + 1] = id end
  end
end
return {lost, cancelled}
"""
)

# ARGV seconds for which a result is kept, and a dead letter; the error of a call whose dispatcher was lost, as JSON
# up to its attempt and time. Returns how many calls were taken from dead dispatchers.
LAPSE = (
    _UNDER_WAY
    + """
local t = now()
local ids = call('ZRANGEBYSCORE', CALLS_LEASES, '-inf', num(t), 'LIMIT', 0, 200)
for _, id in ipairs(ids) do
  local f = read(id)
  if not f or f.status ~= 'running' then
    call('ZREM', CALLS_LEASES, id)
  else
    leave(id, f)
    local error = ARGV[3] .. ',"attempt":' .. f.attempt .. ',"at":' .. num(t) .. '}'
    note(id, f, error)
    if f.cancel == '1' then
      close(id, f, 'cancelled', {}, t, tonumber(ARGV[1]))
    elseif tonumber(f.attempt) < tonumber(f.allowed) then
      call('HSET', RQ_JOB .. id, 'retries_left', f.allowed - f.attempt, 'worker_name', '')
      enqueue(id, f.deployment, f.queue, t, nil, true)
    else
      close(id, f, 'failed', {error = error}, t, tonumber(ARGV[2]))
    end
  end
end
return #ids
"""
)

# ARGV seconds for which the id of a forgotten call is remembered. Returns how many were forgotten.
FORGET = (
    SHARED
    + """
-- With the last call of a deployment that is no more, its counts go, too.
local function leave_indexes(id, deployment)
  call('ZREM', CALLS, id)
  call('ZREM', CALLS_OF .. deployment, id)
  if call('EXISTS', CALLS_OF .. deployment) == 0 and call('HEXISTS', DESIRED, deployment) == 0 then
    for status in pairs(RANK) do call('HDEL', CALLS_ENDED, status .. ':' .. deployment) end
  end
end

local t = now()
local ids = call('ZRANGEBYSCORE', CALLS_EXPIRY, '-inf', num(t), 'LIMIT', 0, 200)
for _, id in ipairs(ids) do
  local f = read(id)
  call('ZREM', CALLS_EXPIRY, id)
  if f then
    let_go(f.body_digest, t)
    let_go(f.result_digest, t)
    if f.key and f.key ~= '' then call('DEL', f.key) end
    for _, registry in ipairs({RQ_FINISHED, RQ_FAILED, RQ_CANCELED}) do call('ZREM', registry .. f.queue, id) end
    call('DEL', CALL .. id, RQ_JOB .. id, RQ_RESULTS .. id)
    if f.kind == 'call' then
      call('SET', CALL_GONE .. id, f.status, 'EX', ARGV[1])
      leave_indexes(id, f.deployment)
    end
  end
end
return #ids
"""
)

# ARGV digest. Returns whether its file may go now; then nothing is known of it any more.
UNPIN = (
    SHARED
    + """
local score = call('ZSCORE', PAYLOADS_IDLE, ARGV[1])
if not score or tonumber(score) > now() then return 0 end
call('ZREM', PAYLOADS_IDLE, ARGV[1])
if call('HEXISTS', PAYLOADS, ARGV[1]) == 1 then return 0 end
local size = tonumber(call('HGET', PAYLOAD_SIZES, ARGV[1]) or '0')
call('HDEL', PAYLOAD_SIZES, ARGV[1])
call('HINCRBY', PAYLOAD_SIZES, '', -size)
return 1
"""
)

# ARGV seconds, then digest and size of files that lie on the disk. Those of which nothing is known may go after the
# seconds, as those that are let go of. Returns how many that were.
ADOPT = (
    SHARED
    + """
local t, adopted = now(), 0
for i = 2, #ARGV, 2 do
  local digest = ARGV[i]
  if call('HEXISTS', PAYLOADS, digest) == 0 and not call('ZSCORE', PAYLOADS_IDLE, digest) then
    call('ZADD', PAYLOADS_IDLE, num(t + tonumber(ARGV[1])), digest)
    if call('HSETNX', PAYLOAD_SIZES, digest, ARGV[i + 1]) == 1 then
      call('HINCRBY', PAYLOAD_SIZES, '', ARGV[i + 1])
    end
    adopted = adopted + 1
  end
end
return adopted
"""
)
