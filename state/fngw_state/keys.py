"""Every Redis key, channel and TTL of fngw, with its reason. No other module spells one out.

``{fngw}`` is a hash tag: should this ever run on a cluster, all keys that one script touches stay together.
"""

from __future__ import annotations

PREFIX = "{fngw}:"

# -- desired state (written by gateways, by compare-and-set) ----------------------------------------------
DESIRED = PREFIX + "desired"  # hash: deployment -> Desired as JSON
CLAIMS = PREFIX + "claims"  # hash: route prefix -> deployment that holds it, kept in step with DESIRED
INSTALLED = PREFIX + "installed"  # Unix time, set once; missing: Redis was emptied, and desired state is restored
GENERATION = PREFIX + "gen"  # counter: numbers for revisions and routing tables, never reused
VERSIONS = PREFIX + "versions:"  # + deployment; list of Version as JSON, newest first; goes with the deployment

# -- observed state (written by the leading controller only, fenced) --------------------------------------
STATUS = PREFIX + "status"  # hash: deployment -> Status as JSON
ARTIFACTS = PREFIX + "artifacts"  # hash: "<deployment>/<generation>" -> Artifact as JSON, until it is cleared away
ROUTES = PREFIX + "routes"  # string: RoutingTable as JSON; the truth behind ROUTES_CHANNEL
ENGINE = PREFIX + "engine"  # string: what runs replicas, as JSON, for people
LEADER = PREFIX + "leader"  # string "<controller>|<token>", expires after LEADER_TTL_MS
FENCE = PREFIX + "leader:fence"  # counter: the newest leader's token; older ones may not write

# -- what replicas hold of the machine (written by the leading controller only, fenced; see leases) ---------
CAPACITY = PREFIX + "capacity"  # string: Capacity as JSON; missing means that Redis was emptied: nothing is leased
LEASES = PREFIX + "leases"  # hash: replica -> Lease as JSON
RESERVED = PREFIX + "reserved"  # hash: deployment -> amounts that no other may take while replicas are replaced
USAGE = PREFIX + "usage"  # string: Usage as JSON, what they really use; USAGE_TTL_MS; missing: nobody measures

# -- gateways ---------------------------------------------------------------------------------------------
GATEWAY = PREFIX + "gateway:"  # + gateway id; string: generation of the table it routes by; GATEWAY_TTL_MS
GATEWAYS = PREFIX + "gateways"  # set of gateway ids, so that none needs a SCAN

# -- progress and builds ----------------------------------------------------------------------------------
EVENTS = PREFIX + "events:"  # + deployment; stream of progress events, capped at EVENTS_MAXLEN
BUILD = PREFIX + "build:"  # + build key; string: BuildResult as JSON, BUILD_TTL_S
BUILD_BEAT = PREFIX + "build-beat:"  # + build key; string, BUILD_BEAT_TTL_MS: somebody is building it right now
BUILD_LOG = PREFIX + "build-log:"  # + build key; list of log lines, BUILD_TTL_S, capped at BUILD_LOG_LINES
BUILD_PROGRESS = PREFIX + "build-progress:"  # + build key; string: JSON list, a BuildProgress per step, BUILD_TTL_S
BUILD_CANCEL = PREFIX + "build-cancel:"  # + build key; list: an element stops what is under way; BUILD_BEAT_TTL_MS
IMAGES = PREFIX + "images"  # sorted set: images that builders made or found, by the last Unix time that they did
BUILDS_QUEUE = "builds"  # the RQ queue

# -- calls that wait (see calls, call_work and their Lua) ---------------------------------------------------
CALL = PREFIX + "call:"  # + id; hash: the record, from acceptance until its result expires
CALL_GONE = PREFIX + "call-gone:"  # + id; string: how it ended, for CALL_KNOWN_S after its result expired
CALL_KEY = (
    PREFIX + "call-key:"
)  # + deployment + hash of an Idempotency-Key; "<id>|<hash of the request>"; goes with it
CALLS = PREFIX + "calls"  # sorted set of all ids, by status and priority (``rank_of``), then by their text: by age
CALLS_OF = PREFIX + "calls-of:"  # + deployment; the same of its calls
CALLS_ENDED = PREFIX + "calls-ended"  # hash: "<status>:<deployment>" -> how many ended so; callbacks': "<status>:"
CALLS_OPEN = PREFIX + "calls-open"  # hash: deployment -> calls that have not ended
CALLS_RUNNING = PREFIX + "calls-running"  # hash: deployment -> calls under way
CALLS_LEASES = PREFIX + "calls-leases"  # sorted set: id of a call under way, by the Unix time its lease ends
CALLS_EXPIRY = PREFIX + "calls-expiry"  # sorted set: id of an ended call, by the Unix time it is forgotten
CALLS_PARKED = PREFIX + "parked:"  # + "calls" or "callbacks"; set of deployments with calls that wait for room
CALL_PARKED = PREFIX + "call-parked:"  # + queue + ":" + deployment; list of those ids, in the order of the queue
CALLS_TURN = PREFIX + "calls-turn"  # counter: whose turn it is among priorities and deployments
CALLS_WAKE = PREFIX + "wake:"  # + the same; list: at most one element, wakes one idle dispatcher
PAYLOADS = PREFIX + "payloads"  # hash: digest -> how many records name the file
PAYLOAD_SIZES = PREFIX + "payload-sizes"  # hash: digest -> bytes; "" -> their sum
PAYLOADS_IDLE = PREFIX + "payloads-idle"  # sorted set: digest of a file that no record may name, by when it may go
PAYLOADS_SWEPT = PREFIX + "payloads-swept"  # string: who looked last for files that are not known, PAYLOADS_SWEEP_S
SCHEDULES = PREFIX + "schedules"  # hash: name -> Schedule as JSON
SCHEDULE_TICKS = PREFIX + "schedule-ticks"  # hash: name -> Unix time of the last tick that was dealt with

# -- RQ's own, as RQ 3.0 forms them, so that its tools show calls as they are; tests hold these to RQ ---------
RQ_JOB = "rq:job:"  # + id; hash
RQ_QUEUES = "rq:queues"  # set of the queues' keys
RQ_QUEUE = "rq:queue:"  # + queue; list of ids
RQ_STARTED = "rq:wip:"  # + queue; sorted set of "<id>:<execution>"
RQ_DEFERRED = "rq:deferred:"  # + queue; sorted set, as are the next four
RQ_SCHEDULED = "rq:scheduled:"
RQ_FINISHED = "rq:finished:"
RQ_FAILED = "rq:failed:"
RQ_CANCELED = "rq:canceled:"
RQ_RESULTS = "rq:results:"  # + id; stream, one entry for each attempt
RQ_EXECUTION = "rq:execution:"  # + id + ":" + execution; hash
RQ_EXECUTIONS = "rq:executions:"  # + id; sorted set
RQ_WORKER = "rq:worker:"  # + dispatcher; hash; + ":executions": set
RQ_COMMANDS = "rq:pubsub:"  # + dispatcher; channel of RQ's commands
CALL_QUEUES = ("calls-high", "calls", "calls-low")  # RQ queues, the more urgent first
CALLBACKS_QUEUE = "callbacks"  # the RQ queue of callbacks

# -- live configuration of replicas: each may read and write its own keys only (see configs) ---------------
CONFIG = PREFIX + "config:"  # + replica; string: newest LiveConfig as JSON; also the channel that nudges
ACK = PREFIX + "ack:"  # + replica; string: Ack as JSON, written by the replica
REPLICA_USER = "fngw-replica-"  # + replica; its ACL user, deleted with it

# -- channels: a message is a nudge, the key is the truth -------------------------------------------------
DESIRED_CHANNEL = PREFIX + "desired-changed"  # payload: deployment
ROUTES_CHANNEL = PREFIX + "routes-changed"  # payload: generation
ACKED_CHANNEL = PREFIX + "acked"  # payload: replica
BUILT_CHANNEL = PREFIX + "built"  # payload: build key
CALL_ENDED_CHANNEL = PREFIX + "call-ended"  # payload: id of a call that somebody waits for
CALL_CANCEL_CHANNEL = PREFIX + "call-cancel"  # payload: id of a call under way

#: A dead leader is replaced within this; renewed at a third of it.
LEADER_TTL_MS = 6000
#: A gateway that died stops holding up deploys within this; refreshed at a third of it.
GATEWAY_TTL_MS = 6000
#: Three measurements; older ones are told to nobody.
USAGE_TTL_MS = 30_000
#: Enough for the deploys a person still scrolls back to; about 200 bytes each.
EVENTS_MAXLEN = 2000
#: Those of a deleted deployment, for who follows its end, or looks a little later why it went.
EVENTS_GONE_TTL_S = 3600
#: A result names an image that may have been pruned since: it is checked before use, so it may live long.
BUILD_TTL_S = 30 * 24 * 3600
#: A builder that died loses its build within this; refreshed at a third of it.
BUILD_BEAT_TTL_MS = 9000
BUILD_LOG_LINES = 2000
#: For how long after its result expired a call's id is answered with "expired" instead of "unknown".
CALL_KNOWN_S = 7 * 24 * 3600
#: A payload that no record names is kept this long: whoever has just written it may be about to name it.
PAYLOAD_IDLE_S = 3600
#: How often all files of payloads are looked at: orphans are rare, and take space only.
PAYLOADS_SWEEP_S = 3600
