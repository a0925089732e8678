"""Which engine is used."""

from __future__ import annotations

import sys

import pytest

from fngw.errors import FngwError
from fngw_supervisor.engine import Docker, choose_engine
from fngw_supervisor.settings import EngineChoice

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COMPLETE = Docker("27.1", frozenset({f"fngw/base:py{PYTHON}", f"fngw/runtime:py{PYTHON}"}))


def never() -> str:
    raise AssertionError("nobody should ask Docker")


def test_docker_when_it_answers() -> None:
    engine = choose_engine(EngineChoice.AUTO, lambda: COMPLETE)
    assert (engine.name, engine.notes) == ("docker", ("docker 27.1",))


def test_processes_when_it_does_not_and_what_that_means() -> None:
    engine = choose_engine(EngineChoice.AUTO, lambda: "Connection refused")
    assert engine.name == "process"
    assert "Connection refused" in engine.notes[0]
    assert "without isolation" in engine.notes[0]


def test_processes_as_asked_for() -> None:
    assert choose_engine(EngineChoice.PROCESS, never).name == "process"


def test_docker_asked_for_and_not_there() -> None:
    with pytest.raises(FngwError) as caught:
        choose_engine(EngineChoice.DOCKER, lambda: "Connection refused")
    assert caught.value.code == "engine_unavailable"
    assert "--engine process" in caught.value.hint


def test_missing_images_are_named_with_the_way_to_get_them() -> None:
    engine = choose_engine(EngineChoice.DOCKER, lambda: Docker("27.1", frozenset({f"fngw/base:py{PYTHON}"})))
    assert f"missing: fngw/runtime:py{PYTHON}:" in engine.notes[1]
    assert f"make images PYTHON={PYTHON}" in engine.notes[1]
