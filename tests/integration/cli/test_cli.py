"""Commands against a gateway: what they send, what they print, and how they exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fngw.errors import DeploymentFailed, RouteConflict, to_problem

from ..sdk.fake_gateway import event
from ..sdk.patience import ends_after
from .conftest import Run, StatusGateway

STATUS_KEYS = {
    "name",
    "version",
    "status",
    "message",
    "url",
    "route_prefix",
    "num_replicas",
    "image",
    "lock",
    "replicas",
    "options",
}


@pytest.fixture
def greeter(gateway: StatusGateway, run: Run, app: str) -> str:
    """A deployed Greeter; its name."""
    assert run("deploy", app + ":Greeter", "--arg", "hi").code == 0
    return "Greeter"


# -- deploy -----------------------------------------------------------------------------------------------


def test_deploy_sends_what_the_options_say(gateway: StatusGateway, run: Run, app: str) -> None:
    done = run(
        *("deploy", app + ":Greeter", "--name", "G", "--version", "7", "--num-replicas", "2"),
        *("--route-prefix", "/g", "--user-config", '{"k": 1}', "--arg", "hi", "--kwarg", "loud=true"),
        *("--set", "num_cpus=0.5", "--set", "python=3.11"),
    )
    assert done.code == 0, done.err
    spec = gateway.specs["G"]
    assert (spec["version"], spec["num_replicas"], spec["route_prefix"]) == ("7", 2, "/g")
    assert (spec["user_config"], spec["num_cpus"], spec["python"]) == ({"k": 1}, 0.5, "3.11")
    assert spec["init"] in gateway.blobs
    assert f"curl {gateway.url}/g" in done.err
    assert done.out == ""


def test_deploy_of_a_whole_file_as_json(gateway: StatusGateway, run: Run, app: str) -> None:
    source = Path(app)
    source.write_text(source.read_text().replace("msg,", "msg='',"))
    done = run("deploy", app, "--json")
    assert done.code == 0, done.out
    assert done.err == ""
    first, second = done.json["deployments"]
    assert first == {
        "name": "Greeter",
        "version": "1",
        "revision": 1,
        "outcome": "new",
        "url": f"{gateway.url}/Greeter",
    }
    assert (second["name"], second["url"]) == ("hidden", None)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--name", "x"], "--name goes with one deployment, but there are 2: Greeter, hidden"),
        ([":Greeter", "--num-replicas", "0"], "num_replicas: must be ≥ 1"),
        ([":Greeter", "--set", "num_replica=2"], "did you mean 'num_replicas'?"),
        ([":Greeter", "--set", "num_replicas=two"], "num_replicas must be an integer"),
        ([":Greeter", "--user-config", "{"], "--user-config: '{' is not JSON"),
        ([":Greeter"], "missing a required argument: 'msg'"),
        ([":hidden", "--arg", "1"], "takes no constructor arguments"),
        ([":Greeter", "--colour"], "--colour"),
    ],
)
def test_usage_errors_send_nothing(gateway: StatusGateway, run: Run, app: str, argv: list[str], said: str) -> None:
    attribute = argv.pop(0) if argv[0].startswith(":") else ""
    done = run("deploy", app + attribute, *argv)
    assert done.code == 2
    assert said in done.err
    assert not gateway.specs


def test_a_failed_deploy_has_its_traceback(gateway: StatusGateway, run: Run, app: str) -> None:
    failure = DeploymentFailed("its constructor raised", detail="Traceback: boom", hint="fix it")
    gateway.script = [event("accepted"), event("failed", problem=to_problem(failure))]
    done = run("deploy", app + ":hidden")
    assert done.code == 1
    assert "Error: the deploy of hidden failed: its constructor raised\n\nTraceback: boom\n" in done.err
    assert "Hint: fix it; nothing runs under this name\n" in done.err
    as_json = run("deploy", app + ":hidden", "--json")
    assert as_json.code == 1
    assert as_json.json["error"] == {
        "code": "deployment_failed",
        "message": "the deploy of hidden failed: its constructor raised",
        "hint": "fix it; nothing runs under this name",
        "detail": "Traceback: boom",
    }


def test_a_timeout_names_what_is_missing(
    gateway: StatusGateway, run: Run, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.script = [event("accepted"), event("replica", "waiting for a GPU")]
    ends_after("waiting for a GPU", monkeypatch)
    done = run("deploy", app + ":hidden", "--timeout", "99.5")
    assert done.code == 1
    assert "waiting for a GPU" in done.err
    assert run("deploy", app + ":hidden", "--no-wait").code == 0


def test_a_refused_deploy(gateway: StatusGateway, run: Run, app: str) -> None:
    gateway.refuse = RouteConflict("/Greeter is taken by other", hint="take another")
    done = run("deploy", app + ":Greeter", "--arg", "hi", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "route_conflict")


# -- looking ----------------------------------------------------------------------------------------------


def test_list(gateway: StatusGateway, run: Run, greeter: str) -> None:
    head, row = run("list").out.splitlines()
    assert head.split() == ["NAME", "VERSION", "STATUS", "REPLICAS", "URL"]
    assert row.split() == ["Greeter", "1", "HEALTHY", "1/1", f"{gateway.url}/Greeter"]
    (document,) = run("list", "--json").json["deployments"]
    assert set(document) == STATUS_KEYS


def test_list_of_nothing(gateway: StatusGateway, run: Run) -> None:
    assert "nothing is deployed" in run("list").out
    assert run("list", "--json").json == {"deployments": []}


def test_status(gateway: StatusGateway, run: Run, greeter: str) -> None:
    document = run("status", greeter, "--json").json
    assert set(document) == STATUS_KEYS
    assert set(document["replicas"][0]) == {"id", "state", "pid", "gpus", "since"}
    page = run("status", greeter).out
    assert "replicas  1 of 1 ready" in page
    assert "r1       READY  7" in page


def test_logs_pass_their_options_on(gateway: StatusGateway, run: Run, greeter: str) -> None:
    done = run("logs", greeter, "--tail", "3", "--since", "10m", "-f", "--build")
    assert done.out == "build=true\nfollow=true\nsince=10m\ntail=3\n"
    assert run("logs", greeter, "--tail", "3", "--json").json == {"line": "tail=3"}


# -- calling ----------------------------------------------------------------------------------------------


def test_call(gateway: StatusGateway, run: Run, tmp_path: Path) -> None:
    gateway.methods = {
        "F.__call__": lambda *args: list(args),
        "F.text": lambda: "plain",
        "F.raw": lambda: b"bytes\n",
        "F.none": lambda: None,
    }
    assert run("call", "F").out == "[]\n"
    assert run("call", "F", "--data", "[1, 2]").out == "[[1, 2]]\n", "a list is one argument"
    assert run("call", "F", "--data", '"ü"', "--json").json == {"result": ["ü"]}
    assert run("call", "F", "--method", "text").out == "plain\n"
    assert run("call", "F", "--method", "none").out == ""
    assert run("call", "F", "--method", "none", "--json").json == {"result": None}


def test_a_call_that_raises(gateway: StatusGateway, run: Run) -> None:
    def boom() -> None:
        raise ValueError("too bad")

    gateway.methods = {"F.__call__": boom}
    done = run("call", "F")
    assert done.code == 1
    assert "too bad" in done.err
    assert "in boom" in done.err, "the remote traceback"
    assert run("call", "F", "--json").json["error"]["code"] == "user_exception"
    assert run("call", "F", "--data", "Ada").code == 2
    assert run("call", "full").code == 1


# -- changing ---------------------------------------------------------------------------------------------


def test_scale_and_config(gateway: StatusGateway, run: Run, greeter: str) -> None:
    before = dict(gateway.specs[greeter])
    assert run("scale", greeter, "3").code == 0
    assert gateway.specs[greeter] == {**before, "num_replicas": 3}
    done = run("config", greeter, '{"k": 2}', "--json")
    assert done.json["deployments"][0]["name"] == greeter
    assert gateway.specs[greeter] == {**before, "num_replicas": 3, "user_config": {"k": 2}}


def test_delete_tells_which_were_there(gateway: StatusGateway, run: Run, greeter: str) -> None:
    done = run("delete", greeter, "nobody")
    assert done.code == 3
    assert done.out == "deleted Greeter\n"
    assert 'no deployment is named "nobody"' in done.err
    assert not gateway.specs


def test_delete_as_json(gateway: StatusGateway, run: Run, greeter: str) -> None:
    assert run("delete", greeter, "--json").json == {"deleted": [greeter]}


# -- errors of every command ------------------------------------------------------------------------------

ASKING = [
    ["list"],
    ["status", "x"],
    ["logs", "x"],
    ["call", "x"],
    ["scale", "x", "2"],
    ["config", "x", "1"],
    ["delete", "x"],
]


@pytest.mark.parametrize("argv", ASKING, ids=lambda a: a[0])
def test_nobody_answers(run: Run, argv: list[str]) -> None:
    done = run(*argv, "--url", "http://127.0.0.1:1", "--json")
    assert (done.code, done.json["error"]["code"]) == (4, "unreachable")
    assert "fngw up" in done.json["error"]["hint"]
    assert done.err == ""


@pytest.mark.parametrize("argv", ASKING, ids=lambda a: a[0])
def test_a_wrong_token(gateway: StatusGateway, run: Run, argv: list[str]) -> None:
    gateway.token = "secret"
    assert run(*argv, "--token", "wrong").code == 5
    assert run(*argv, "--token", "secret").code != 5


@pytest.mark.parametrize("argv", ASKING[1:], ids=lambda a: a[0])
def test_an_unknown_name(gateway: StatusGateway, run: Run, argv: list[str]) -> None:
    done = run(*argv, "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "deployment_not_found")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["deplou"], "did you mean 'deploy'?"),
        (["--port", "1"], "a command comes first"),
        (["scale", "x"], "Missing argument"),
        (["scale", "x", "0"], "'N'"),
        (["up", "--engine", "podman"], "podman"),
        (["deploy", "no-such-file.py"], "does not exist"),
        (["list", "--url", "localhost:8000"], "is not a gateway's URL"),
    ],
)
def test_usage(run: Run, argv: list[str], said: str) -> None:
    plain = run(*argv)
    assert plain.code == 2
    assert said in plain.err
    assert plain.out == ""
    as_json = run(*argv, "--json")
    assert as_json.code == 2
    assert set(as_json.json["error"]) == {"code", "message", "hint"}


# -- up and down ------------------------------------------------------------------------------------------


def fngw(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from fngw.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_down_of_nothing_becomes_the_supervisor(tmp_path: Path) -> None:
    done = fngw("down", "--data-dir", str(tmp_path), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"stopped": False})


def test_an_error_of_up_keeps_its_exit_code_and_form(tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text('{"layout": 99}')
    done = fngw("up", "--data-dir", str(tmp_path), "--json", FNGW_RUN_DIR=str(tmp_path / "r"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "data_dir_version"


def test_the_light_client_says_how_to_get_the_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fngw.cli.up.NEEDED", ("no_such_module_of_fngw",))
    done = run("up", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "server_not_installed")
    assert "fngw[server" in done.json["error"]["hint"]


def test_a_reader_that_has_enough(gateway: StatusGateway, run: Run, greeter: str) -> None:
    code = "import sys; from fngw.cli import main; sys.exit(main())"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, "logs", greeter, "-f", "--tail", "1"],
            env={**os.environ, "FNGW_URL": gateway.url},
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
