"""Whose a process is: real processes, and tables that cannot be had from the kernel at will."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fngw_controller.processes import Process, owner, table

#: Starts a grandchild whose parent has ended when it tells its number.
ORPHANS = """
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(read, 1)
        print(os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
os.wait()
os.write(write, b"x")
time.sleep(60)
"""


def test_children_and_orphans_belong_to_the_replica_that_started_them():
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as main:
        assert main.stdout is not None
        orphan = int(main.stdout.readline())
        found, mains = table(), {main.pid: "r1"}
        try:
            assert found[orphan].parent != main.pid
            assert [owner(pid, found, mains) for pid in (main.pid, orphan)] == ["r1", "r1"]
            assert owner(os.getpid(), found, mains) is None
            assert found[main.pid].memory > 1 << 20
        finally:
            os.kill(orphan, 9)
            main.kill()


def test_a_process_in_a_container_belongs_to_its_first_process():
    found = {1: Process(0, 1, 0), 50: Process(1, 50, 0), 51: Process(50, 51, 0), 52: Process(51, 52, 0)}
    assert owner(52, found, {50: "r1"}) == "r1"
    assert owner(53, found, {50: "r1"}) is None


def test_a_table_that_leads_in_a_circle_ends():
    found = {7: Process(8, 7, 0), 8: Process(7, 7, 0)}
    assert owner(7, found, {50: "r1"}) is None


def test_names_may_hold_anything_and_processes_may_end_meanwhile(tmp_path: Path):
    for pid, text in {"5": "5 (a) R b) S 4 3 2 " + "0 " * 17 + "9 0\n"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(text)
    (tmp_path / "6").mkdir()  # ended
    (tmp_path / "self").mkdir()
    assert table(tmp_path) == {5: Process(4, 2, 9 * os.sysconf("SC_PAGE_SIZE"))}
