"""Pure: how long to wait before a part that died is started again."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds before each try; the last one repeats.
STEPS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
#: A part that lived this long was well: its next death starts at the first step again.
WELL_AFTER_S = 30.0
#: This many deaths in a row, none of them after a time of being well: it does not start at all.
HOPELESS_AFTER = 5


@dataclass(frozen=True)
class Ladder:
    """How often a part has died in a row, and whether it was ever well.

    Example:
        >>> ladder = Ladder().died(lived_s=0.2)
        >>> ladder.delay_s, ladder.died(lived_s=0.2).delay_s, ladder.died(lived_s=60).delay_s
        (0.1, 0.2, 0.1)
    """

    deaths: int = 0
    was_well: bool = False

    def died(self, lived_s: float) -> Ladder:
        """Return the ladder after a death that came ``lived_s`` seconds after the start."""
        well = lived_s >= WELL_AFTER_S
        return Ladder(deaths=1 if well else self.deaths + 1, was_well=self.was_well or well)

    @property
    def delay_s(self) -> float:
        """Seconds until the next try."""
        return STEPS_S[min(max(self.deaths, 1), len(STEPS_S)) - 1]

    @property
    def never_started(self) -> bool:
        """Whether this is the death at which a person must be told that it does not start at all."""
        return not self.was_well and self.deaths == HOPELESS_AFTER
