"""Help pages, and what is imported for them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from fngw.cli import main
from fngw.cli.catalog import COMMANDS, Command

NAMES = [c.name for c in COMMANDS]
HEAVY = ("typer", "rich", "httpx", "pydantic", "cloudpickle", "asyncio", "click", "importlib.metadata")


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_stay_light(flag: str) -> None:
    code = f"import sys; from fngw.cli import main; main([{flag!r}]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & set(HEAVY)
    assert "fngw.cli.run" not in loaded


def test_a_help_page_needs_no_client() -> None:
    code = "import sys; from fngw.cli import main; main(['deploy', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"httpx", "rich", "pydantic", "asyncio"}


def test_the_top_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    assert all(f"\n  {name} " in page for name in NAMES)
    assert "Exit codes" in page
    assert max(map(len, page.splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_help_page_has_examples(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command.name, "--help"]) == 0
    page = capsys.readouterr().out
    examples = importlib.import_module(f"fngw.cli.{command.module}").EXAMPLES[command.name]
    assert examples
    assert all(f"    {line}\n" in page for line in examples)
    assert "--json" in page


def test_help_of_a_command_in_either_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "scale"]) == 0
    first = capsys.readouterr().out
    assert main(["scale", "-h"]) == 0
    assert capsys.readouterr().out == first


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import fngw

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fngw {fngw.__version__}\n"
