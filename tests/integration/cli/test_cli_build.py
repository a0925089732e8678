"""``fngw build``, ``--upgrade``, ``fngw status --lock`` and ``fngw prune`` against a fake gateway."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fngw.errors import BuildFailed, FngwError, to_problem

from ..sdk.fake_gateway import BUILT, LOCK, event
from .conftest import Run, StatusGateway


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file with a class whose constructor wants something, and which has dependencies."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "cliappmodel.py"
    path.write_text(
        "import fngw\n\n"
        "@fngw.deployment(pip=['numpy'])\n"
        "class Model:\n"
        "    def __init__(self, path): ...\n"
        "    def __call__(self, request): ...\n"
    )
    return str(path)


# -- build ------------------------------------------------------------------------------------------------


def test_a_build_says_what_it_came_to(gateway: StatusGateway, run: Run, model: str) -> None:
    progress = event("progress", "download", step="download", done=1, total=5 << 20, unit="bytes")
    gateway.build_script = [event("build", "solving"), progress, event("done", result=BUILT)]
    done = run("build", model + ":Model")
    assert done.code == 0, done.err
    assert done.err.splitlines()[1:] == ["downloading packages (5.0 MiB)"]
    assert done.out.splitlines() == [
        "LAYER        SIZE               DIGEST",
        f"base         120.0 MiB  reused  sha256:{'b' * 64}",
        f"environment  312.0 MiB  built   sha256:{'e' * 64}",
        f"code         8 KiB      built   sha256:{'c' * 64}",
        "",
        f"image        sha256:{'a' * 64}",
        "ref          fngw/app:3f2a",
        f"lock         {LOCK}",
        "environment  fngw/env:77aa",
        "built in 3.25 s",
    ]
    assert not gateway.specs, "it deploys nothing"
    assert (gateway.built[0]["pip"], gateway.built[0]["upgrade"]) == (["numpy"], None)


def test_the_log_of_a_build_is_for_those_who_ask(gateway: StatusGateway, run: Run, model: str) -> None:
    assert "solving" not in run("build", model).err
    assert "  solving\n" in run("build", model, "-v").err


def test_a_build_as_json(gateway: StatusGateway, run: Run, model: str) -> None:
    done = run("build", model, "--set", "num_replicas=2", "--json")
    assert (done.code, done.err, done.json) == (0, "", BUILT)
    assert gateway.built[0]["num_replicas"] == 2


def test_a_build_that_fails(gateway: StatusGateway, run: Run, model: str) -> None:
    error = BuildFailed("no such package: nunpy", code="package_not_found", hint="did you mean numpy?")
    gateway.build_script = [event("failed", problem=to_problem(error))]
    done = run("build", model)
    assert done.code == 1
    assert "Error: no such package: nunpy\nHint: did you mean numpy?\n" in done.err
    as_json = run("build", model, "--json")
    assert (as_json.code, as_json.json["error"]["code"]) == (1, "package_not_found")


def test_a_gateway_that_leaves_in_the_middle(gateway: StatusGateway, run: Run, model: str) -> None:
    gateway.build_script = [event("build", "solving")]
    done = run("build", model)
    assert done.code == 4
    assert "left before the build was over" in done.err


def test_what_cannot_be_built_is_a_usage_error(gateway: StatusGateway, run: Run, model: str, app: str) -> None:
    several = run("build", app)
    assert several.code == 2
    assert "has 2 deployments: Greeter, hidden" in several.err
    assert run("build", model, "--set", "num_replica=2").code == 2
    assert run("build", "nowhere.py").code == 2
    assert not gateway.built


def test_an_upgrade_asks_for_another_solve_each_time(gateway: StatusGateway, run: Run, model: str) -> None:
    for _ in range(2):
        assert run("build", model, "--upgrade").code == 0
    words = {spec["upgrade"] for spec in gateway.built}
    assert len(words) == 2
    assert all(len(word) == 32 for word in words)


def test_ctrl_c_stops_the_build(gateway: StatusGateway, model: str) -> None:
    gateway.build_script = [event("progress", "solve", step="solve", done=None, total=None, unit="")]
    command = [sys.executable, "-c", "import sys; from fngw.cli import main; sys.exit(main(sys.argv[1:]))"]
    building = subprocess.Popen(
        [*command, "build", model], env={**os.environ, "FNGW_URL": gateway.url}, stderr=subprocess.PIPE, text=True
    )
    assert building.stderr is not None
    for line in building.stderr:
        if "solving" in line:
            break
    building.send_signal(signal.SIGINT)
    said = building.communicate(timeout=60)[1]
    assert said == "stopped, and the build of Model with it\n"
    assert building.returncode == 130
    assert gateway.build_left.wait(60)


# -- deploy --upgrade -------------------------------------------------------------------------------------


def test_a_deploy_upgrades(gateway: StatusGateway, run: Run, model: str) -> None:
    assert run("deploy", model, "--arg", "x").code == 0
    assert gateway.specs["Model"]["upgrade"] is None
    done = run("deploy", model, "--arg", "x", "--upgrade")
    assert done.code == 0
    assert len(gateway.specs["Model"]["upgrade"]) == 32
    assert "Model is new\n" in done.err


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("unchanged", "Model is as it was; this version runs already, so nothing is solved anew"),
        ("update", "Model is updated in place; this version runs already, so nothing is solved anew"),
        ("replace", "Model is replaced, replica by replica\n"),
    ],
)
def test_an_upgrade_of_what_runs_already_says_so(
    gateway: StatusGateway, run: Run, model: str, outcome: str, said: str
) -> None:
    gateway.outcome = outcome
    done = run("deploy", model, "--arg", "x", "--upgrade")
    assert said in done.err
    assert "solved anew" not in run("deploy", model, "--arg", "x").err


def test_what_is_as_it_was_tells_no_old_events(gateway: StatusGateway, run: Run, model: str) -> None:
    """They are those of the deploy that made it so; while that is under way, they tell how far it is."""
    gateway.script = [event("image", image="sha256:" + "a" * 64, reused=False), event("done", "up")]
    assert "built image" in run("deploy", model, "--arg", "x").err
    gateway.outcome = "unchanged"
    assert "built image" not in run("deploy", model, "--arg", "x").err
    gateway.health = "UPDATING"
    assert "built image" in run("deploy", model, "--arg", "x").err


def test_nothing_to_upgrade(gateway: StatusGateway, run: Run, app: str) -> None:
    done = run("deploy", app + ":hidden", "--upgrade")
    assert "hidden has neither conda nor pip: there is nothing to solve anew\n" in done.err
    assert gateway.specs["hidden"]["upgrade"] is None


def test_an_apply_upgrades_what_is_replaced(gateway: StatusGateway, run: Run, model: str) -> None:
    manifest = Path(model).with_name("fngw.toml")
    manifest.write_text('[deployments.Model]\ntarget = "cliappmodel.py"\nargs = ["x"]\nversion = "1"\n')
    assert run("apply", "-f", str(manifest), "--upgrade").code == 0
    assert gateway.specs["Model"]["upgrade"]
    again = run("apply", "-f", str(manifest), "--upgrade")
    assert "--upgrade counts only with a new version: Model will not be solved anew\n" in again.out
    assert "counts only" not in run("apply", "-f", str(manifest)).out


# -- locks ------------------------------------------------------------------------------------------------


def test_the_lock_of_a_deployment(gateway: StatusGateway, run: Run, model: str) -> None:
    assert run("deploy", model, "--arg", "x").code == 0
    gateway.lock_of["Model"] = LOCK
    gateway.locks[LOCK] = '{\n  "version": 1\n}\n'
    assert run("status", "Model", "--lock").out == gateway.locks[LOCK]
    assert run("status", "Model", "--lock", "--json").json == {"version": 1}
    gateway.locks.clear()
    assert run("status", "Model", "--lock", "--json").json["error"]["code"] == "lock_missing"


def test_a_deployment_without_a_lock(gateway: StatusGateway, run: Run, model: str, app: str) -> None:
    assert run("deploy", model, "--arg", "x").code == 0
    assert run("deploy", app + ":hidden").code == 0
    building, plain = run("status", "Model", "--lock"), run("status", "hidden", "--lock")
    assert (building.code, plain.code) == (1, 1)
    assert "Model has no lock: its environment is not built yet" in building.err
    assert "hidden has no lock: it asks for no conda or pip packages" in plain.err
    assert run("status", "hidden", "--lock", "--json").json["error"]["code"] == "no_lock"


# -- prune ------------------------------------------------------------------------------------------------


def test_prune(gateway: StatusGateway, run: Run) -> None:
    done = run("prune", "--yes")
    assert (done.code, done.out) == (0, "freed 3.0 GiB; 1.0 MiB are in use by builds under way\n")
    assert run("prune", "-y", "--json").json == {"freed": 3 << 30, "left": {"packages": 0, "uv": 1 << 20}}


def test_prune_asks_a_person(gateway: StatusGateway, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = run("prune")
    assert nobody.code == 2
    assert "give --yes" in nobody.err
    for answer, code in (("y\n", 0), ("n\n", 1)):
        terminal = io.TextIOWrapper(io.BytesIO(answer.encode()))
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        asked = run("prune")
        assert asked.code == code
        assert ("freed" in asked.out) == (code == 0)
        assert ("nothing was removed" in asked.err) == (code == 1)
        assert "Empty the builder's caches?" in asked.err


def test_prune_without_a_builder(gateway: StatusGateway, run: Run) -> None:
    gateway.refuse = FngwError("no builder answered within 600 s", code="builder_silent", status=503)
    assert run("prune", "--yes").code == 1
