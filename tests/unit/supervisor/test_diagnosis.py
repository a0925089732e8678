"""What is said of a Redis that would not start. The log lines are those of Redis 7.0 and Valkey 9.1."""

from __future__ import annotations

from pathlib import Path

import pytest

from fngw_supervisor.diagnosis import diagnose

BAD_END = (
    "1:M 01 Jan 2026 # Bad file format reading the append only file appendonly.aof.2.incr.aof: "
    "make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest>"
)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (BAD_END, "redis_data_corrupt"),
        ("1:M 01 Jan 2026 # Invalid AOF manifest file format", "redis_data_corrupt"),
        ("1:M 01 Jan 2026 # Can't handle RDB format version 80", "redis_data_foreign"),
        ("1:M 01 Jan 2026 # Can't open the append-only file: No space left on device", "disk_full"),
        ("1:M 01 Jan 2026 # Can't open the append-only file: Permission denied", "data_dir_unusable"),
        ("1:M 01 Jan 2026 # something else", "redis_failed"),
    ],
)
def test_each_complaint_has_its_code_and_is_shown(line: str, code: str) -> None:
    error = diagnose(["1:M * Server initialized", line], Path("/bin/redis"), Path("/d/redis"), "exited with code 1")
    assert error.code == code
    assert error.detail == line
    assert error.hint


def test_a_damaged_end_can_be_cut_off_and_the_base_file_cannot() -> None:
    tool = "exec -a redis-check-aof /bin/redis --fix /d/redis/appendonlydir/appendonly.aof.2.incr.aof"
    assert tool in diagnose([BAD_END], Path("/bin/redis"), Path("/d/redis"), "x").hint
    base = BAD_END.replace("incr.aof", "base.rdb")
    assert "--fix" not in diagnose([base], Path("/bin/redis"), Path("/d/redis"), "x").hint


def test_paths_are_quoted_for_the_shell() -> None:
    hint = diagnose(["# Invalid AOF manifest"], Path("/bin/redis"), Path("/my data/redis"), "x").hint
    assert "mv '/my data/redis' '/my data/redis.old'" in hint
