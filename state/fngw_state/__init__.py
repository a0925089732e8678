"""What the server processes agree on: records, and where they lie in Redis and on disk.

``keys``      every Redis key, channel and TTL, with its reason
``records``   the frozen dataclasses that are stored
``deploys``   pure: what a deploy means, given what was there (the redeploy table)
``resources`` pure: what a machine has, what replicas ask for and hold of it
``leases``    who holds what, taken atomically
``store``     reads and writes of records, atomic where it matters
``history``   versions, what replicas were made from, and what of it may be needed again
``writable``  tells a Redis that takes no writes from one that is lost
``watch``     pub/sub that notices a dead peer
``layout``    paths of the data and run directories
``settings``  what all server rooms share of the ``FNGW_*`` variables
``footprint`` gives back the memory that a start took, and no longer needs
``health``    asks a server on a Unix socket whether it is well, for containers' health checks
"""
