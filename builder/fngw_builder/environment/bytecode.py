"""Byte-code for an environment, made while it is built: its files are read-only where it runs.

It is made by the environment's own interpreter, never by the builder's, and is marked to be used unchecked: layers
have no times to compare. Neighbours: `bytecode_script` is what the interpreter runs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol

from fngw.errors import BuildFailed
from fngw_builder.environment import bytecode_script, child, disk
from fngw_builder.report import Report

#: For the interpreter: with any other seed, sets in byte-code would change their order from run to run.
VARIABLES = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
#: The folder for byte-code, beside the modules that it is of (PEP 3147).
CACHE = "__pycache__"


class Compiler(Protocol):
    """Runs the script, with the right interpreter in the right place."""

    def compile(self, stage: Path, prefix: str) -> None:
        """Put byte-code beside every module of ``stage`` that has none.

        Args:
            stage: the environment; of each package, all modules have byte-code or none.
            prefix: the absolute path where it will lie.

        Raises:
            BuildFailed: ``compile_failed`` or ``disk_full``.
        """


class LocalCompiler:
    """Compiles with an interpreter that runs on this machine.

    Args:
        python: its path; None: the environment's own ``bin/python``.
        report: gets the progress of the step ``compile``, in files.
        jobs: how many processes compile at once; None: as many as there are processors. The result is the same.
    """

    def __init__(self, python: Path | None, report: Report, jobs: int | None = None) -> None:
        self._python = python
        self._report = report
        self._jobs = jobs or os.cpu_count() or 1

    def compile(self, stage: Path, prefix: str) -> None:
        interpreter = self._python or stage / "bin" / "python"
        line = command(str(interpreter), str(stage), prefix, self._jobs)
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            try:
                with child.running(line, environment=VARIABLES, cwd=Path("/"), stderr=errors) as script:
                    for said in child.lines(script.stdout):
                        relay(said, self._report)
            except OSError as error:
                raise failure(f"{interpreter}: {error.strerror}") from error
            errors.seek(0)
            if script.returncode:
                raise failure(errors.read() or f"{interpreter} ended with the status {script.returncode}")


def command(python: str, stage: str, prefix: str, jobs: int, made: str = "") -> list[str]:
    """Return the command line that compiles; it wants `VARIABLES` as its only environment variables.

    Args:
        python: the interpreter's path where it runs.
        stage: the environment's path there.
        prefix: the environment's final path.
        jobs: how many processes compile at once.
        made: the folder for the byte-code, likewise; empty: it goes beside the modules.
    """
    script = Path(bytecode_script.__file__).read_text("utf-8")
    # Without site: no package of the environment runs. With -c, no folder of the builder's is on the module path.
    return [python, "-s", "-S", "-W", "ignore", "-c", script, stage, prefix, str(jobs), made or stage]


def relay(line: str, report: Report) -> bool:
    """Tell a report what a line of the script's output says; return whether it is such a line."""
    done, _, total = line.partition(" ")
    if done.isdigit() and total.isdigit():
        report.progress("compile", int(done), int(total), "files")
        return True
    return False


def failure(output: str) -> BuildFailed:
    """Return the error for a script that failed with this on its standard error."""
    if disk.is_full(output):
        return disk.full(output)
    return BuildFailed(
        "the environment's Python could not compile its modules",
        code="compile_failed",
        hint="use another build of Python, or check that the builder's machine can run it",
        detail=output.strip(),
    )


def is_bytecode(path: str) -> bool:
    """Whether a path is of what a `Compiler` makes: files of ``__pycache__`` folders."""
    folder, _, name = path.rpartition("/")
    return name.endswith(".pyc") and folder.rpartition("/")[2] == CACHE


def is_package(path: str) -> bool:
    """Whether a path is of what packages bring: all but byte-code and the folders for it."""
    return not is_bytecode(path) and path.rpartition("/")[2] != CACHE


def strip(stage: Path) -> None:
    """Remove the byte-code that came with packages: it goes by times that are lost, or by other paths."""
    for folder, folders, files in os.walk(stage):
        for path in (f"{folder}/{name}" for name in files):
            if is_bytecode(path):
                Path(path).unlink()
        folders.sort()
