"""Files that travel into a compile container and out of it, over its standard streams."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from tests.channel.pythons import interpreters
from tests.unit.builder.conftest import Told

from fngw_builder import container_script
from fngw_builder.container_compiler import FRAME, OUTPUT, _Streams, take

FILES = {"lib/a.py": b"x = 1\n", "lib/sub/empty.py": b"", "lib/caf\udce9.py": bytes(range(256)) * 1000}
#: What is run in the container's place: it says something, and makes a copy of all that came.
COPY = "import shutil, sys; print('1 2'); shutil.copytree(sys.argv[1], sys.argv[2] + '/copy')"


def sent(files: dict[str, bytes]) -> bytes:
    return b"".join(container_script.entry(*file) for file in files.items()) + container_script.END


def ran(python: Path, folder: Path, given: bytes, code: str = COPY) -> subprocess.CompletedProcess[bytes]:
    script = Path(container_script.__file__).read_text("utf-8")
    places = [str(folder / "stage"), str(folder / "made")]
    line = [str(python), "-S", "-c", script, *places, str(python), "-c", code, *places]
    return subprocess.run(line, input=given, capture_output=True, env={"LC_ALL": "C"}, timeout=60)


@pytest.mark.parametrize("xy", interpreters())
def test_what_goes_in_can_come_out(xy: str, tmp_path: Path) -> None:
    done = ran(interpreters()[xy].executable, tmp_path, sent(FILES))
    assert done.returncode == 0, done.stderr
    made = dict(container_script.read(io.BytesIO(done.stdout)))
    assert made == {f"copy/{path}": content for path, content in FILES.items()}
    assert done.stderr == b"1 2\n"


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        (sent(FILES)[:-1], COPY, b"EOFError: the files are cut off"),
        (b"", COPY, b"EOFError: the files are cut off"),
        (sent(FILES), "raise SystemExit('no more room')", b"no more room\n"),
    ],
    ids=["cut-off", "nothing", "failing"],
)
def test_what_fails_sends_nothing_and_says_why(given: bytes, code: str, reason: bytes, tmp_path: Path) -> None:
    done = ran(next(iter(interpreters().values())).executable, tmp_path, given, code)
    assert done.returncode == 1
    assert done.stdout == b""
    assert reason in done.stderr


def test_the_engines_frames_are_told_apart() -> None:
    def frame(stream: int, data: bytes) -> bytes:
        return FRAME.pack(stream, len(data)) + data

    parts = [
        frame(2, b"3"),
        frame(2, b" 7\nTrace"),
        frame(OUTPUT, b"by"),
        frame(2, b"back\n7 7\n"),
        frame(OUTPUT, b"te"),
    ]
    told = Told()
    streams = _Streams(io.BytesIO(b"".join(parts)), told)
    assert streams.read() == b"byte"
    assert told.steps == [(3, 7), (7, 7)]
    assert list(streams.said) == ["Traceback"]


def test_only_byte_code_of_modules_that_are_there_is_taken(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    (stage / "lib").mkdir(parents=True)
    good = "lib/__pycache__/x.cpython-311.pyc"
    others = [
        "lib/x.py",
        "lib/x.pyc",
        "nowhere/__pycache__/x.pyc",
        "../__pycache__/x.pyc",
        "lib/../../__pycache__/x.pyc",
        f"{tmp_path}/__pycache__/x.pyc",
    ]
    take(iter([(path, b"code") for path in (*others, good)]), stage, ["lib/x.py"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [stage / good]
