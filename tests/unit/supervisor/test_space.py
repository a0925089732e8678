"""What is said of a disk that gets full, and that it is said once."""

from __future__ import annotations

from pathlib import Path

from fngw_supervisor.space import LOW, Space


def test_it_is_said_once_each_time():
    said, free = [], [LOW, LOW - 1, 5, LOW + 1, LOW, 0]
    space = Space(Path("d"), lambda subject, text: said.append((subject, text)), lambda path: free.pop(0))
    heard = []
    while free:
        space.check()
        heard.append(len(said))
    assert heard == [0, 1, 1, 2, 2, 3]
    assert {subject for subject, _ in said} == {"disk"}
    assert "15 MiB are left for d: free some space" in said[0][1] and "again" in said[1][1]
