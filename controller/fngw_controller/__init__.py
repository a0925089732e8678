"""Decides and keeps replicas; the only room that starts containers.

``plan``        pure: desired + observed + now → what to do next
``reconciler``  one deployment: carries plans out, serially
``controller``  all deployments: leadership, adoption, events, shutdown
``lifecycle``   one replica: start, wait until ready, check its health, drain, stop
``images``      asks the builder for what a replica runs from
``routes``      publishes the routing table and waits for the gateways
``engines``     the only place that touches Docker or local processes
"""
