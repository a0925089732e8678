"""Live configuration: how a running replica learns of a new ``user_config``, and answers.

The key is the truth, the message on the channel of the same name a nudge, the acknowledgement again a key. Each
replica logs in as its own ACL user, which can read its own configuration, write its own acknowledgement, and
nothing else; deleting the user closes its connections. ACL users do not survive a restart of Redis: ``grant`` is
repeated then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from fngw_state import keys
from fngw_state.records import Ack, LiveConfig
from fngw_state.store import Store


def new_secret() -> str:
    """Return a password for one replica."""
    return secrets.token_urlsafe(24)


def user_of(replica_id: str) -> str:
    return keys.REPLICA_USER + replica_id


def acl_rules(replica_id: str, secret: str) -> list[str]:
    """Return what one replica may do, as arguments of ``ACL SETUSER`` (Redis 7: selectors in parentheses)."""
    config, ack = keys.CONFIG + replica_id, keys.ACK + replica_id
    return [
        "reset",
        "on",
        f">{secret}",
        "-@all",
        *("+auth", "+hello", "+ping", "+quit", "+unsubscribe", "+client|setname", "+client|id"),
        f"(+get %R~{config})",
        f"(+set %W~{ack})",
        f"(+subscribe &{config})",
        f"(+publish &{keys.ACKED_CHANNEL})",
    ]


class Configs:
    """The live configuration of all replicas.

    Args:
        store: the shared state; its Redis user must be allowed to manage ACL users.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def grant(self, secrets_by_replica: Mapping[str, str]) -> None:
        """Let replicas log in; those that already may go on undisturbed."""
        async with self._store.redis.pipeline(transaction=False) as pipe:
            for replica_id, secret in secrets_by_replica.items():
                pipe.execute_command("ACL", "SETUSER", user_of(replica_id), *acl_rules(replica_id, secret))
            await pipe.execute()

    async def revoke(self, replica_id: str) -> None:
        """Shut a replica out, at once, and forget its configuration."""
        async with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ACL", "DELUSER", user_of(replica_id))
            pipe.delete(keys.CONFIG + replica_id, keys.ACK + replica_id)
            await pipe.execute()

    async def send(self, token: int, configs: Mapping[str, LiveConfig]) -> None:
        """Tell replicas to apply a configuration.

        Raises:
            Fenced: another controller leads.
        """
        commands: list[Iterable[str]] = []
        for replica_id, config in configs.items():
            key = keys.CONFIG + replica_id
            commands += [["SET", key, config.to_json()], ["PUBLISH", key, str(config.serial)]]
        await self._store.fenced(token, *commands)

    async def acks(self, replica_ids: Iterable[str]) -> dict[str, Ack]:
        """Return the newest acknowledgement of each replica that has given one."""
        ids = list(replica_ids)
        if not ids:
            return {}
        texts: list[Any] = await self._store.redis.mget([keys.ACK + i for i in ids])
        return {i: Ack.from_json(text) for i, text in zip(ids, texts, strict=True) if text}
