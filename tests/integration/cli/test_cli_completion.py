"""Completion, in a real bash; the scripts of other shells are read by those that are there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fngw.cli.catalog import COMMANDS
from fngw.cli.shapes import Value, shapes
from fngw.cli.shells import Shell, script

from .conftest import Run, StatusGateway

Complete = Callable[..., set[str]]
ASK = """
source "$1"; shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_fngw
for word in "${COMPREPLY[@]}"; do echo "$word"; done
"""


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Press Tab after these words, the last of which may be unfinished, in a bash in a folder with a few files."""
    (tmp_path / "script").write_text(script(Shell.bash, shapes()))
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("app.py", "with space.py", "fngw.toml"):
        (folder / name).touch()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def complete(*words: str) -> set[str]:
        command = ["bash", "--norc", "-c", ASK, "ask", str(tmp_path / "script"), "fngw", *words]
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
        assert done.stderr == "" and done.returncode == 0, done.stderr
        return set(done.stdout.splitlines())

    return complete


def test_commands_options_words_and_files(complete: Complete) -> None:
    assert complete("") == {*(c.name for c in COMMANDS), "help", "--help", "--version"}
    assert complete("de") == {"deploy", "delete"}
    assert complete("help", "com") == {"completion"}
    assert complete("logs", "--t") == {"--tail", "--token"}
    assert complete("logs", "-") >= {"-f", "--follow", "-h", "--help", "--json"}
    assert complete("up", "--engine", "") == {"auto", "docker", "process"}
    assert complete("up", "--engine", "p") == {"process"}
    assert complete("up", "--port", "8") == set()
    assert complete("up", "--data-dir", "") == {"sub"}
    assert complete("deploy", "") == {"app.py", "with space.py", "sub"}
    assert complete("deploy", "app.py", "wi") == {"with space.py"}
    assert complete("apply", "-f", "fn") == {"fngw.toml"}
    assert complete("completion", "") == {"bash", "zsh", "fish"}
    assert complete("nonsense", "") == set()


def test_names_of_deployments(complete: Complete, gateway: StatusGateway, run: Run, app: str) -> None:
    run("deploy", app + ":Greeter", "--arg", "hi")
    run("deploy", app + ":hidden")
    assert complete("status", "") == {"Greeter", "hidden"}
    assert complete("delete", "hidden", "G") == {"Greeter"}
    assert complete("logs", "--tail", "5", "-f", "") == {"Greeter", "hidden"}
    assert complete("scale", "Greeter", "") == set()  # a number
    assert complete("logs", "--since", "") == set()


def test_without_an_answer_there_are_no_names(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_URL", "http://localhost:9")
    assert complete("status", "") == set()
    monkeypatch.setenv("FNGW_URL", "nonsense")
    assert complete("status", "") == set()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("FNGW_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert complete("status", "") == set()
        assert time.monotonic() - begun > 0.4  # it was waited for; `complete` itself waits no longer than a minute


def test_the_command(run: Run) -> None:
    assert run("completion", "bash").out == script(Shell.bash, shapes())
    assert run("completion", "fish", "--json").json == {"shell": "fish", "script": script(Shell.fish, shapes())}
    without = run("completion")
    assert without.code == 2 and "bash, zsh, fish" in without.err
    assert run("completion", "csh").code == 2


@pytest.mark.parametrize("shell", [s for s in Shell if shutil.which(s)])
def test_scripts_are_well_formed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script(shell, shapes()))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_and_option_is_in_every_script() -> None:
    found = shapes()
    for shell in Shell:
        text = script(shell, found)
        for shape in found:
            assert shape.name in text
            flags = [flag for option in shape.options for flag in option.flags]
            assert all(flag.lstrip("-") in text for flag in flags)
    by_name = {shape.name: shape for shape in found}
    assert by_name["deploy"].first == Value.PYTHON and by_name["deploy"].many
    assert by_name["call"].first == Value.NAMES and not by_name["call"].many
    assert not any("--names" in option.flags for option in by_name["completion"].options)
