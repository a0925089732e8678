"""What a process gives back once it has started."""

from __future__ import annotations

import gc

from fngw_state.footprint import settle


def test_what_is_there_is_left_alone_from_then_on():
    before = gc.get_freeze_count()
    try:
        settle()
        assert gc.get_freeze_count() > before + 1000
    finally:
        gc.unfreeze()
