"""The data plane: every request for a function passes here, and nothing of it touches Redis.

``plane``       the routing table in use, its backends, and the two ways in: by route and by call
``routing``     pure: request paths (dots, percent-encoding, what is the gateway's own), longest prefix
``headers``     pure: heads to replicas, headers of answers
``balancer``    per deployment: which replica, or which place in the queue
``pool``        the connections to one replica
``connection``  one of them: HTTP/1.1, back-pressure, where an answer ends
``inbound``     one request's client side: its body, and whether it is still there
``forward``     one request's way from arrival to answer
``steps``       requests without a task, until they need one
``splicing``    large bodies from socket to socket, within the kernel
``tunnel``      WebSockets: two connections joined
``tally``       what is counted
``problems``    what the gateway answers itself
"""

from fngw_gateway.proxy.plane import DataPlane

__all__ = ["DataPlane"]
