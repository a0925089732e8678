"""Deploying, deleting and listing, against a fake gateway."""

from __future__ import annotations

import io
import pickle
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fngw
from fngw import deploying, endpoint, serve
from fngw.client import Client
from fngw.progress import PlainProgress

from .fake_gateway import FakeGateway
from .patience import ends_after


@pytest.fixture(autouse=True)
def small_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests deploy would ship the folder of this file; an empty one will do."""
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(f"{__name__}.WORK", str(tmp_path / "work"))


WORK = ""


def greeter(**options: Any) -> fngw.Deployment:  # type: ignore[name-defined]
    class Greeter:
        def __init__(self, msg: str = "") -> None:
            self.msg = msg

        def reconfigure(self, config: Any) -> None: ...

    return fngw.deployment(working_dir=WORK, **options)(Greeter)


def test_deploy(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.script = [
        {"kind": "accepted", "message": "ok"},
        {"kind": "build", "message": "a line of the build"},
        {"kind": "image", "message": "image", "image": "sha256:3f2a99887766554433", "reused": True},
        {"kind": "replica", "message": "replica r1 starting", "replica": "r1", "state": "starting"},
        {"kind": "replica", "message": "replica r1 healthy", "replica": "r1", "state": "healthy"},
        {"kind": "replica", "message": "replica r2 healthy", "replica": "r2", "state": "healthy"},
        {"kind": "done", "message": "done", "url": "http://elsewhere"},
    ]
    greeter(num_replicas=2, prev_version="1", version="2", memory="1KiB").deploy("Hello", _blocking=True)
    spec = gateway.specs["Greeter"]
    sent = {key: spec[key] for key in ("num_replicas", "version", "memory", "route_prefix")}
    assert sent == {"num_replicas": 2, "version": "2", "memory": 1024, "route_prefix": "/Greeter"}
    assert spec["code"]["pickle"] and spec["code"]["is_class"] and spec["code"]["has_reconfigure"]
    assert gateway.prev_versions == ["1"]
    assert pickle.loads(gateway.blobs[spec["init"]]) == (("Hello",), {})
    with tarfile.open(fileobj=io.BytesIO(gateway.blobs[spec["code"]["bundle"]])) as tar:
        assert tar.getnames() == ["fngw_target.pkl", *[n for n in tar.getnames() if n.endswith(".py")]]
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("sent code (")
    assert lines[2:] == [
        "Greeter is new",
        "reused image 3f2a99887766…",
        "starting replicas",
        "2 of 2 replicas are healthy",
        f"Greeter runs at {gateway.url}/Greeter",
        f"  curl {gateway.url}/Greeter",
    ]


def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(gateway: FakeGateway) -> None:
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'mesg'"):
        greeter().deploy(mesg="Hello")
    assert not gateway.blobs and not gateway.specs


def test_blobs_are_sent_once(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = greeter()
    deployment.deploy("a")
    deployment.deploy("b", _blocking=False)
    assert "reused code " in capsys.readouterr().err
    assert len(gateway.blobs) == 3


def test_arguments_override_for_one_deploy(gateway: FakeGateway) -> None:
    deployment = greeter(init_args=("option",), init_kwargs={})
    deployment.deploy("call")
    deployment.deploy()
    sent = [pickle.loads(b)[0] for b in gateway.blobs.values() if b[:1] == b"\x80"]
    assert sent == [("call",), ("option",)]


def test_without_a_route(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    greeter(route_prefix=None).deploy()
    assert capsys.readouterr().err.splitlines()[-1] == "Greeter runs; it has no route: call it by its handle"


def test_events_survive_a_lost_connection(gateway: FakeGateway) -> None:
    gateway.script = [{"kind": "waiting", "message": f"step {i}"} for i in range(4)]
    gateway.script.append({"kind": "done", "message": "up"})
    gateway.break_after = {0, 2}
    told = io.StringIO()
    deploying.deploy(greeter(), progress=PlainProgress(told))
    assert [line for line in told.getvalue().splitlines() if "step" in line] == [f"step {i}" for i in range(4)]
    assert gateway.resumed_from == ["", "0", "2"]


def test_failures(gateway: FakeGateway) -> None:
    problem = {"title": "no", "code": "build_failed", "error": "BuildFailed", "detail": "the log", "status": 500}
    gateway.script = [{"kind": "failed", "message": "no", "problem": problem}]
    with pytest.raises(fngw.BuildFailed, match="the log"):
        greeter().deploy()
    for kind in ("superseded", "deleted"):
        gateway.script = [{"kind": kind, "message": ""}]
        with pytest.raises(fngw.DeploymentFailed, match="Greeter") as caught:
            greeter().deploy()
        assert caught.value.code == kind
    gateway.refuse = fngw.VersionConflict("not that one")
    with pytest.raises(fngw.VersionConflict, match="not that one"):
        greeter().deploy()


def test_timeout_names_what_was_last(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.script = [{"kind": "replica", "message": "replica 1 starts"}]
    ends_after("replica 1 starts", monkeypatch)
    with pytest.raises(fngw.DeploymentFailed, match=r"not done after 99\.5 s.*replica 1 starts") as caught:
        deploying.deploy(greeter(), timeout=99.5)
    assert caught.value.code == "timeout"
    assert gateway.given_up == [(1, "not done after 99.5 s")]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored, and Python leaves that as it is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_says_that_the_deploy_goes_on(gateway: FakeGateway) -> None:
    gateway.script = [{"kind": "waiting", "message": "starts"}]
    told = io.StringIO()

    class Interrupting(PlainProgress):
        def step(self, text: str) -> None:
            super().step(text)
            if text == "starts":
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        deploying.deploy(greeter(), progress=Interrupting(told))
    assert "the deploy of Greeter goes on" in told.getvalue()


def test_delete_is_idempotent(gateway: FakeGateway) -> None:
    deployment = greeter()
    deployment.deploy()
    deployment.delete()
    assert gateway.specs == {}
    deployment.delete()


def test_listing_and_getting(gateway: FakeGateway) -> None:
    one, two = greeter(), greeter(name="two", memory="1MiB", env={"A": "b"}, pip=["six"], route_prefix="/x")
    one.deploy("arg")
    two.deploy()
    found = fngw.list_deployments()
    assert sorted(found) == ["Greeter", "two"]
    local = two.options(working_dir=None)
    assert found["two"] == local
    assert fngw.get_deployment("two").env == {"A": "b"}
    with pytest.raises(KeyError, match="nothing") as caught:
        fngw.get_deployment("nothing")
    assert isinstance(caught.value, fngw.DeploymentNotFound)
    assert "Greeter, two" in caught.value.hint


def test_a_fetched_deployment_is_redeployed_with_its_stored_code(gateway: FakeGateway) -> None:
    greeter(version="1").deploy("arg")
    before = gateway.specs["Greeter"]
    fetched = fngw.get_deployment("Greeter")
    fetched.options(num_replicas=5, user_config={"a": 1}).deploy()
    assert gateway.specs["Greeter"] == {**before, "num_replicas": 5, "user_config": {"a": 1}}
    fetched.deploy("other")
    assert gateway.specs["Greeter"]["code"] == before["code"]
    assert pickle.loads(gateway.blobs[gateway.specs["Greeter"]["init"]]) == (("other",), {})
    with pytest.raises(fngw.ValidationError) as caught:
        fetched.options(python="3.8").deploy()
    assert caught.value.code == "python_mismatch"
    copied = pickle.loads(pickle.dumps(greeter(num_replicas=7)))
    copied.deploy()
    assert gateway.specs["Greeter"]["num_replicas"] == 7


def test_shutdown_deletes_all(gateway: FakeGateway) -> None:
    greeter().deploy()
    greeter(name="two").deploy()
    fngw.shutdown()
    assert gateway.specs == {}
    serve.shutdown()


def test_connect(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FNGW_URL")
    gateway.token = "secret"
    with pytest.raises(fngw.Unauthorized):
        fngw.connect(gateway.url)
    assert endpoint.current().url == endpoint.DEFAULT_URL
    fngw.connect(gateway.url + "/", token="secret")
    assert fngw.list_deployments() == {}
    assert greeter().url == gateway.url + "/Greeter"
    monkeypatch.setenv("FNGW_URL", gateway.url)
    monkeypatch.setenv("FNGW_TOKEN", "secret")
    serve.start(detached=True, http_options={"port": 1})
    with pytest.raises(fngw.ValidationError, match="gateway's URL"):
        fngw.connect("localhost:8000")


def test_over_the_unix_socket(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FNGW_URL")
    monkeypatch.setenv("FNGW_GATEWAY_SOCKET", gateway.socket)
    fngw.connect()
    greeter().deploy()
    assert sorted(fngw.list_deployments()) == ["Greeter"]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_URL", "http://127.0.0.1:9")
    for call in (fngw.list_deployments, fngw.connect, greeter().delete):
        with pytest.raises(fngw.Unreachable, match=r"http://127\.0\.0\.1:9.*\n.*fngw up") as caught:
            call()
        assert caught.value.code == "unreachable"
        assert isinstance(caught.value, ConnectionError)


def test_something_else_there(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_URL", gateway.url + "/nothing")
    with pytest.raises(fngw.FngwError, match="404") as caught:
        fngw.list_deployments()
    assert caught.value.code == "unexpected_answer"


def test_the_client(gateway: FakeGateway) -> None:
    with Client() as client:
        assert client.info()["revision"] == 0
        assert client.bundle_limit() == gateway.bundle_limit
        with pytest.raises(fngw.DeploymentNotFound):
            client.deployment("x")
        lines = list(client.logs("x", tail=5, follow=True, since="10m"))
        assert lines == ["follow=true", "since=10m", "tail=5"]
