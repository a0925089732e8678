"""What solvers raise when there is no answer: not an error yet, as it may have one without what fngw adds."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: The solvers' trees can be pages long; their beginnings say what matters.
HEAD_LINES = 6


class NoSolution(Exception):
    """The requirements do not fit together.

    Args:
        tree: the solver's reason, for people.
        notes: what else the solver says, for its own users.
    """

    def __init__(self, tree: str, notes: str = "") -> None:
        super().__init__(tree)
        self.tree = tree.strip()
        self.notes = notes

    @property
    def head(self) -> str:
        """The first lines of the tree; all of it where ``rest`` is nothing."""
        lines = self.tree.splitlines()
        return "\n".join([*lines[:HEAD_LINES], "…"] if len(lines) > HEAD_LINES else lines)

    @property
    def rest(self) -> str:
        """The whole tree, where its head is not all of it."""
        return self.tree if len(self.tree.splitlines()) > HEAD_LINES else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean a or b?"`` with the names that are most like ``name``, or nothing."""
    near = get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""
