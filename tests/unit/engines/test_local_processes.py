"""The pieces of the process engine that need no replica."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw_controller.engines import _local, _log_file
from fngw_controller.engines._local_env import environment, is_own, link_runtime
from fngw_controller.engines.base import ReplicaSpec
from fngw_state.records import Artifact


@given(st.lists(st.text("ab\r", max_size=5)), st.booleans(), st.integers(0, 8), st.integers(1, 7))
def test_the_last_lines_are_found_whatever_the_blocks(
    lines: list[str], ended: bool, count: int, block: int
) -> None:
    text = ("\n".join(lines) + ("\n" if ended and lines else "")).encode()
    file = io.BytesIO(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_log_file, "BLOCK", block)
        _log_file.seek_lines(file, count)
    whole = text.split(b"\n")
    expected = [line + b"\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    assert file.read() == b"".join(expected[max(0, len(expected) - count) :])


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert _log_file.open_at(tmp_path / "none", None, None).read() == b""


def test_a_process_is_who_it_was_at_its_start() -> None:
    me = _local.identify(os.getpid())
    assert me is not None and _local.alive(me)
    assert not _local.alive(_local.Identity(me.pid, me.started - 1, me.boot))
    assert not _local.alive(_local.Identity(me.pid, me.started, "another boot"))


def test_a_zombie_is_known_but_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        identity = _local.identify(process.pid)
        assert identity is not None
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert _local.identify(process.pid) == identity
        assert not _local.alive(identity)
        assert _local.reap(process.pid) == 0
        assert _local.identify(process.pid) is None
        assert _local.reap(process.pid) is None
        process.wait()


def spec(python: str, **env: str) -> ReplicaSpec:
    return ReplicaSpec(
        id="r1",
        deployment="Model",
        generation=1,
        version=None,
        number=1,
        artifact=Artifact(image="", python=python, app_dir="/app"),
        directory=Path("/run/f/r/r1"),
        shared=Path("/run/f/shared"),
        log_file=Path("/logs/r1.log"),
        env=env,
        cpus=1,
        memory=None,
    )


def test_the_own_interpreter_needs_no_path_to_the_runtime() -> None:
    env = environment(spec(sys.executable), {"PATH": "/bin", "VIRTUAL_ENV": "/venv"}, Path("/links"))
    assert "PYTHONPATH" not in env
    assert env["VIRTUAL_ENV"] == "/venv"
    assert env["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_another_interpreter_gets_the_links_after_the_users_own_path() -> None:
    env = environment(spec("/env/bin/python", PYTHONPATH="/mine"), {"VIRTUAL_ENV": "/venv"}, Path("/links"))
    assert env["PYTHONPATH"] == "/mine:/links"
    assert "VIRTUAL_ENV" not in env


def test_an_environment_is_not_its_base_interpreter(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert is_own(sys.executable)
    assert not is_own(str(link))


def test_links_are_mended(tmp_path: Path) -> None:
    (tmp_path / "fngw").symlink_to("/an/older/place")
    link_runtime(tmp_path)
    link_runtime(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fngw", "fngw_runtime"]
    assert (tmp_path / "fngw" / "protocol.py").is_file()
