"""A function called in a child process."""

from __future__ import annotations

import os
import sys

import pytest

from fngw_supervisor.aside import aside


def test_the_answer_comes_from_another_process():
    assert aside(os.getpid) != os.getpid()


def test_a_large_answer_comes_whole():
    assert aside(lambda: b"x" * 2**20) == b"x" * 2**20


def test_what_it_imports_is_gone_with_it():
    def work() -> bool:
        import this  # noqa: F401

        return "this" in sys.modules

    sys.modules.pop("this", None)
    assert aside(work)
    assert "this" not in sys.modules


def test_what_it_raises_is_raised_here():
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        aside(work)
