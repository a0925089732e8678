"""Whether the kernel has just killed for want of memory."""

from __future__ import annotations

from pathlib import Path

from fngw_controller.engines._local_oom import WINDOW_S, OomKills, count


class Kernel:
    """A count, and a clock."""

    kills = 3
    now = 0.0

    def watch(self) -> OomKills:
        return OomKills(lambda: self.kills, lambda: self.now)


def test_the_kernel_counts(tmp_path: Path):
    vmstat = tmp_path / "vmstat"
    assert count(vmstat) == 0
    vmstat.write_text("nr_free_pages 1\noom_kill 13\nnuma_hit 5\n")
    assert count(vmstat) == 13
    vmstat.write_text("nr_free_pages 1\n")
    assert count(vmstat) == 0
    assert count() >= 0


def test_a_count_that_has_moved_is_recent_for_a_while():
    kernel = Kernel()
    kills = kernel.watch()
    assert not kills.just_now()
    kernel.kills += 1
    assert kills.just_now()
    kernel.now = 1.0
    kills.look()
    assert kills.just_now()  # the end of whom it killed may be seen a little later
    kernel.now = 1.0 + WINDOW_S
    kills.look()
    assert not kills.just_now()


def test_old_looks_are_forgotten():
    kernel = Kernel()
    kills = kernel.watch()
    for second in range(100):
        kernel.now = float(second)
        kills.look()
    assert len(kills._seen) <= WINDOW_S + 2
