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

# -- gateways ---------------------------------------------------------------------------------------------
GATEWAY = PREFIX + "gateway:"  # + gateway id; string: generation of the table it routes by; GATEWAY_TTL_MS
GATEWAYS = PREFIX + "gateways"  # set of gateway ids, so that none needs a SCAN

# -- progress and builds ----------------------------------------------------------------------------------
EVENTS = PREFIX + "events:"  # + deployment; stream of progress events, capped at EVENTS_MAXLEN
BUILD = PREFIX + "build:"  # + build key; string: BuildResult as JSON, BUILD_TTL_S
BUILD_BEAT = PREFIX + "build-beat:"  # + build key; string, BUILD_BEAT_TTL_MS: somebody is building it right now
BUILD_LOG = PREFIX + "build-log:"  # + build key; list of log lines, BUILD_TTL_S, capped at BUILD_LOG_LINES
BUILD_PROGRESS = PREFIX + "build-progress:"  # + build key; string: newest BuildProgress as JSON, BUILD_TTL_S
BUILD_CANCEL = PREFIX + "build-cancel:"  # + build key; list: an element stops what is under way; BUILD_BEAT_TTL_MS
IMAGES = PREFIX + "images"  # sorted set: images that builders made or found, by the last Unix time that they did
BUILDS_QUEUE = "builds"  # the RQ queue

# -- live configuration of replicas: each may read and write its own keys only (see configs) ---------------
CONFIG = PREFIX + "config:"  # + replica; string: newest LiveConfig as JSON; also the channel that nudges
ACK = PREFIX + "ack:"  # + replica; string: Ack as JSON, written by the replica
REPLICA_USER = "fngw-replica-"  # + replica; its ACL user, deleted with it

# -- channels: a message is a nudge, the key is the truth -------------------------------------------------
DESIRED_CHANNEL = PREFIX + "desired-changed"  # payload: deployment
ROUTES_CHANNEL = PREFIX + "routes-changed"  # payload: generation
ACKED_CHANNEL = PREFIX + "acked"  # payload: replica
BUILT_CHANNEL = PREFIX + "built"  # payload: build key

#: A dead leader is replaced within this; renewed at a third of it.
LEADER_TTL_MS = 6000
#: A gateway that died stops holding up deploys within this; refreshed at a third of it.
GATEWAY_TTL_MS = 6000
#: Enough for the deploys a person still scrolls back to; about 200 bytes each.
EVENTS_MAXLEN = 2000
#: Those of a deleted deployment, for who follows its end, or looks a little later why it went.
EVENTS_GONE_TTL_S = 3600
#: A result names an image that may have been pruned since: it is checked before use, so it may live long.
BUILD_TTL_S = 30 * 24 * 3600
#: A builder that died loses its build within this; refreshed at a third of it.
BUILD_BEAT_TTL_MS = 9000
BUILD_LOG_LINES = 2000
