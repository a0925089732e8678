"""A Redis of a test's own, that it may kill, with what a controller writes for the replica ``r1``."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import redis

from fngw_state import keys
from fngw_state.configs import acl_rules, user_of

from .replica_process import eventually


class RedisServer:
    """A process on a free port, its data in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = redis.Redis(port=self.port, decode_responses=True)

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes"]
        self.process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        eventually(self._answers, "redis to answer")
        self.client.execute_command("ACL", "SETUSER", user_of("r1"), *acl_rules("r1", "secret"))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def where(self, port: int | None = None) -> dict[str, str]:
        """How the replica gets to it, over another port if one is given (``ReplicaConfig.redis``)."""
        return {
            "host": "127.0.0.1",
            "port": str(port or self.port),
            "username": user_of("r1"),
            "password": "secret",
            "config": keys.CONFIG + "r1",
            "ack": keys.ACK + "r1",
            "acked": keys.ACKED_CHANNEL,
        }

    def put(self, serial: int, *, nudge: bool = True) -> None:
        config = {
            "serial": serial,
            "number": serial,
            "user_config": {"n": serial, "fail": serial == 13},
            "max_concurrent_queries": 1,
            "graceful_shutdown_wait_loop_s": 0.1,
            "graceful_shutdown_timeout_s": 60,
        }
        self.client.set(keys.CONFIG + "r1", json.dumps(config))
        if nudge:
            self.client.publish(keys.CONFIG + "r1", str(serial))

    def applied(self, serial: int, seconds: float = 60) -> dict[str, Any]:
        """Wait until the replica has acknowledged ``serial``; return the acknowledgement."""

        def ack() -> dict[str, Any]:
            return json.loads(self.client.get(keys.ACK + "r1") or "{}")

        return eventually(lambda: ack() if ack().get("serial") == serial else None, f"config {serial}", seconds)
