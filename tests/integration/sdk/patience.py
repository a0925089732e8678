"""Deploys whose time is up once they have got so far, however slow the machine is."""

from __future__ import annotations

import pytest

from fngw import client
from fngw.client import Event
from fngw.rollout import Rollout

__all__ = ["ends_after"]


def ends_after(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an hour pass for whoever follows a deploy as soon as it has heard of this event."""
    heard: list[Event] = []
    hear, check = Rollout.hear, client._check

    def note(rollout: Rollout, event: Event) -> None:
        hear(rollout, event)
        if event.message == message:
            heard.append(event)

    def look(deadline: float | None) -> None:
        check(deadline - 3600 if heard and deadline is not None else deadline)

    monkeypatch.setattr(Rollout, "hear", note)
    monkeypatch.setattr(client, "_check", look)
