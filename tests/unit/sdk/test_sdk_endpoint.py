"""Which gateway: arguments, then the environment, then the user's file."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import fngw
from fngw.config_file import whereabouts
from fngw.endpoint import DEFAULT_URL, resolve

Write = Callable[[str], dict[str, str]]
BOTH = 'url = "http://kept:1/"\ntoken = "kept"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the file; return an environment that leads to it."""

    def written(text: str, mode: int = 0o600) -> dict[str, str]:
        path = tmp_path / "fngw" / "config.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return {"XDG_CONFIG_HOME": str(tmp_path)}

    return written


@pytest.mark.parametrize(
    ("given", "environ", "file", "url", "token"),
    [
        ((None, None), {}, BOTH, "http://kept:1", "kept"),
        ((None, None), {"FNGW_URL": "http://said:2"}, BOTH, "http://said:2", None),
        ((None, None), {"FNGW_URL": "http://kept:1/"}, BOTH, "http://kept:1", "kept"),
        ((None, None), {"FNGW_TOKEN": "said"}, BOTH, "http://kept:1", "said"),
        (("http://flag:3", None), {"FNGW_URL": "http://said:2"}, BOTH, "http://flag:3", None),
        (("http://flag:3", None), {"FNGW_TOKEN": "said"}, BOTH, "http://flag:3", "said"),
        (("http://flag:3", "flag"), {"FNGW_TOKEN": "said"}, BOTH, "http://flag:3", "flag"),
        (("http://flag:3", None), {}, 'token = "kept"', "http://flag:3", "kept"),
        ((None, None), {"FNGW_URL": "", "FNGW_TOKEN": ""}, BOTH, "http://kept:1", "kept"),
        ((None, None), {}, "", DEFAULT_URL, None),
        ((None, None), {}, 'url = "http://kept:1"', "http://kept:1", None),
    ],
)
def test_arguments_then_the_environment_then_the_file(write, given, environ, file, url, token) -> None:
    found = resolve(*given, {**write(file), **environ})
    assert (found.url, found.token, found.socket) == (url, token, None)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('url = "http://a"\ntoken = \n', "is not TOML: Invalid value (at line 2, column 9)", "url ="),
        ('ulr = "http://a"', "unknown key 'ulr'", "did you mean 'url'?"),
        ("[gateway]", "unknown key 'gateway'", "url, token"),
        ("token = 7", "token must be a text, not 7", 'token = "…"'),
        ('url = ""', "url must be a text, not ''", 'url = "…"'),
        ('url = "localhost"', "'localhost' is not a gateway's URL", "http://localhost:8000"),
        ('url = "\udcff"', "is not TOML", "url ="),
    ],
)
def test_a_file_that_makes_no_sense_is_told(write: Write, text: str, said: str, hint: str) -> None:
    environ = write("")
    path = Path(environ["XDG_CONFIG_HOME"]) / "fngw" / "config.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(fngw.ValidationError) as refused:
        resolve(environ=environ)
    assert said in refused.value.message and str(path) in refused.value.message
    assert hint in refused.value.hint
    assert resolve("http://a", "b", environ).url == "http://a"  # the file is not needed


def test_a_changed_file_is_read_again(write: Write) -> None:
    environ = write('url = "http://one"')
    assert resolve(environ=environ).url == "http://one"
    write('url = "http://two"')
    path = Path(environ["XDG_CONFIG_HOME"]) / "fngw" / "config.toml"
    os.utime(path, (0, 0))
    assert resolve(environ=environ).url == "http://two"


def test_a_token_that_everybody_may_read_is_warned_of_once(write: Write) -> None:
    environ = write(BOTH, 0o644)
    with pytest.warns(UserWarning, match=r"config\.toml holds a token.*chmod 600"):
        assert resolve(environ=environ).token == "kept"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve(environ=environ)
        resolve(environ=write('url = "http://no-token"', 0o644))
        resolve(environ=write(BOTH, 0o640))


def test_in_a_replica_there_is_no_file(write: Write) -> None:
    environ = {**write("nonsense"), "FNGW_GATEWAY_SOCKET": "/run/gateway.sock"}
    assert resolve(environ=environ).socket == "/run/gateway.sock"
    assert resolve("http://a", environ=environ).socket is None


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert whereabouts({}) == Path("/home/ada/.config/fngw/config.toml")
    assert whereabouts({"XDG_CONFIG_HOME": "relative"}) == Path("/home/ada/.config/fngw/config.toml")
    assert whereabouts({"XDG_CONFIG_HOME": "/etc/xdg"}) == Path("/etc/xdg/fngw/config.toml")


def test_the_command_line_goes_by_it(write: Write) -> None:
    environ = {**os.environ, **write('url = "http://localhost:9"\ntoken = "x"\n', 0o644)}

    def fngw_list() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "import sys; from fngw.cli import main; sys.exit(main(['list']))"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)

    done = fngw_list()
    assert done.returncode == 4 and "http://localhost:9" in done.stderr
    assert done.stderr.startswith("Warning: ") and "chmod 600" in done.stderr.splitlines()[0]
    write("url = 3 3")
    done = fngw_list()
    assert done.returncode == 2 and "(at line 1, column 9)" in done.stderr
