"""What the events of one revision mean to a person who waits for it.

Standard library only, Python >= 3.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Set

from fngw.progress import Progress
from fngw.protocol import REUSED_LINE, WARNING_LINE

if TYPE_CHECKING:
    from fngw.client import Event

__all__ = ["Rollout", "short"]

#: What the steps of a build are called. Others, of newer builders, go by their own names.
STEPS = {
    "solve": "solving the environment",
    "download": "downloading packages",
    "link": "linking packages",
    "install": "installing packages",
    "compile": "compiling",
    "layer": "writing the image",
    "load": "loading the image",
    "push": "pushing the image",
}
STARTING = "starting replicas"


class Rollout:
    """Tells a ``Progress`` of one revision, event by event.

    Args:
        progress: who is told.
        replicas: how many new ones there shall be; None where that depends on what runs already.
    """

    def __init__(self, progress: Progress, replicas: Optional[int] = None) -> None:
        self.last = "nothing was heard of it yet"  # for whoever gives up
        self._progress = progress
        self._replicas = replicas
        self._healthy: Set[str] = set()

    def hear(self, event: Event) -> None:
        """Tell of an event."""
        if event.kind == "build":
            self._log_line(event.message)
        elif event.kind == "progress":
            self._building(event)
        elif event.kind == "image":
            self._image(event)
        elif event.kind == "replica":
            self._replica(event)
        elif event.kind == "done":
            self._done()
        elif event.kind != "accepted" and not event.terminal:  # the step before said that it is accepted
            self._say(event.message)

    def _log_line(self, line: str) -> None:
        if line.startswith(REUSED_LINE):
            self._progress.step(line)
        elif line.startswith(WARNING_LINE):
            self._progress.trouble(line)
        else:
            self._progress.detail(line)

    def _building(self, event: Event) -> None:
        fields = event.fields
        text = STEPS.get(str(fields.get("step")), event.message or str(fields.get("step")))
        self.last = text
        self._progress.working(text, fields.get("done"), fields.get("total"), str(fields.get("unit") or ""))

    def _image(self, event: Event) -> None:
        what = "reused" if event.fields.get("reused") else "built"
        self._say(f"{what} image {short(str(event.fields.get('image')))}")

    def _replica(self, event: Event) -> None:
        self.last = event.message
        replica, state = str(event.fields.get("replica")), event.fields.get("state")
        if state == "failed":
            self._progress.trouble(event.message)
        if state == "healthy":
            self._healthy.add(replica)
        else:
            self._healthy.discard(replica)
        self._progress.working(STARTING, len(self._healthy), self._replicas, "healthy")

    def _done(self) -> None:
        if self._healthy:
            count, total = len(self._healthy), self._replicas
            new = f"{count} new" if total is None else f"{count} of {total}"
            self._say(f"{new} {'replica is' if (total or count) == 1 else 'replicas are'} healthy")

    def _say(self, text: str) -> None:
        self.last = text
        self._progress.step(text)


def short(digest: str) -> str:
    """Return the first digits of a digest or id."""
    return digest.rpartition(":")[2][:12] + "…"
