"""Decides and keeps replicas; the only room that starts containers.

``plan``        pure: desired + observed + now → what to do next
``reconciler``  one deployment: carries plans out, serially
``controller``  all deployments: leadership, adoption, events, shutdown
``replicas``    the replicas of one deployment: each one's life as a task
``live``        one replica in the controller's memory
``lifecycle``   one replica on engine and disk: prepare, start, stop, clean up
``patience``    goes on trying while Redis or the engine is away
``probes``      asks a replica whether it is ready, and healthy
``images``      asks the builder for what a replica runs from
``routes``      publishes the routing table and waits for the gateways
``engines``     the only place that touches Docker or local processes
"""
