"""Hears of new configuration while the replica runs, over Redis, on a thread of its own.

The key is the truth and the message only a nudge: the key is read at every subscription, at every message, and
every ``TICK_S`` besides, so that a lost message costs at most that. redis-py does not notice a peer that silently
stopped answering on a subscription: hence the ping on the subscription itself, and the limit on silence.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Callable, Dict, Optional

from fngw_runtime.reports import describe, say

__all__ = ["LiveConfig"]

#: How often to look, whatever was heard; also how often the other side is asked for a sign of life.
TICK_S = 1.0
#: After so much silence the connection is taken for dead.
SILENT_AFTER_S = 3.0
RETRY_S = 0.5

#: Takes a configuration, applies it, returns None or a problem document.
Apply = Callable[[Dict[str, Any]], Optional[Dict[str, Any]]]


class LiveConfig(threading.Thread):
    """Follows one replica's configuration for as long as the process lives.

    Args:
        where: ``ReplicaConfig.redis``.
        apply: called on this thread with each new configuration.
    """

    def __init__(self, where: Dict[str, str], apply: Apply) -> None:
        super().__init__(name="fngw-config", daemon=True)
        self._where = where
        self._apply = apply
        self._serial = 0
        self._complaint = ""

    def run(self) -> None:
        import redis

        while True:
            client = self._connect(redis)
            try:
                self._listen(client)
            except (redis.RedisError, OSError) as error:
                self._complain(describe(error))
            finally:
                client.connection_pool.disconnect()
            time.sleep(RETRY_S)

    def _connect(self, redis: Any) -> Any:
        where = self._where
        login = {"username": where["username"], "password": where["password"], "socket_timeout": SILENT_AFTER_S}
        if "socket" in where:
            return redis.Redis(unix_socket_path=where["socket"], **login)
        return redis.Redis(host=where["host"], port=int(where["port"]), **login)

    def _listen(self, client: Any) -> None:
        """Subscribe, and look at each sign of news, until the line is dead."""
        subscription = client.pubsub()
        subscription.subscribe(self._where["config"])
        heard = looked = 0.0
        while True:
            now = time.monotonic()
            heard = heard or now
            if now - looked >= TICK_S:
                looked = now
                self._look(client)
                subscription.ping()
            message = subscription.get_message(timeout=TICK_S)
            if message is not None:
                heard = time.monotonic()
                if message["type"] in ("message", "subscribe"):
                    looked = heard
                    self._look(client)
            elif time.monotonic() - heard > SILENT_AFTER_S:
                raise OSError("no answer on the subscription")
            self._complaint = ""

    def _look(self, client: Any) -> None:
        """Apply what the key holds, if it is new, and say how that went."""
        text = client.get(self._where["config"])
        config = json.loads(text) if text else None
        if config is None or config["serial"] <= self._serial:
            return
        problem = self._apply(config)
        self._serial = config["serial"]
        ack = {"serial": config["serial"], "number": config["number"], "error": problem}
        client.set(self._where["ack"], json.dumps(ack))
        client.publish(self._where["acked"], self._where["username"].rpartition("-")[2])

    def _complain(self, reason: str) -> None:
        """Say once why there is no line; what runs goes on as it is configured."""
        if reason != self._complaint:
            self._complaint = reason
            say(f"cannot hear of new configuration, trying again: {reason}")
