"""Loading and constructing the user's object, and the tracebacks of what fails."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from fngw.errors import DeploymentFailed, FngwError, RemoteError
from fngw.protocol import ReplicaConfig
from fngw_runtime.load import check_python, construct, load_code, load_init
from fngw_runtime.reports import describe, user_traceback
from fngw_runtime.threads import Threads

HERE = "%d.%d" % sys.version_info[:2]


def config(**changes) -> ReplicaConfig:
    values = dict.fromkeys(ReplicaConfig.__dataclass_fields__)
    return ReplicaConfig(**{**values, "python": HERE, "app_dir": "/", "init": False, **changes})


@pytest.fixture
def threads():
    return Threads(1, "test")


class AsyncMade:
    async def __init__(self, value, *, scale):
        self.value = value * scale


class Failing:
    def __init__(self):
        raise ValueError("nothing to load")


def test_an_import_by_qualified_name():
    assert load_code(config(target="collections:OrderedDict.fromkeys"))("a") == {"a": None}


def test_a_deployment_is_unwrapped(monkeypatch):
    class Deployment:
        func_or_class = Failing

    monkeypatch.setattr(sys.modules["fngw_runtime.load"], "wrapped", Deployment(), raising=False)
    assert load_code(config(target="fngw_runtime.load:wrapped")) is Failing


@pytest.mark.parametrize("target", ["no_such_module:f", "collections:Nothing"])
def test_an_import_that_fails(target):
    with pytest.raises(DeploymentFailed) as caught:
        load_code(config(target=target))
    assert caught.value.code == "import_failed"


def test_constructor_arguments(tmp_path: Path):
    assert load_init(config(), tmp_path) == ((), {})
    (tmp_path / "init.pkl").write_bytes(pickle.dumps(([1], {"b": 2})))
    assert load_init(config(init=True), tmp_path) == ((1,), {"b": 2})
    (tmp_path / "init.pkl").write_bytes(b"rubbish")
    with pytest.raises(DeploymentFailed) as caught:
        load_init(config(init=True), tmp_path)
    assert caught.value.code == "unpickle_failed"


def test_python_is_compared_by_two_numbers():
    check_python(HERE)
    with pytest.raises(DeploymentFailed, match=r"Python 3\.1,") as caught:
        check_python("3.1")
    assert caught.value.code == "python_mismatch"


async def test_constructors(threads):
    assert (await construct(AsyncMade, ((2,), {"scale": 3}), threads)).value == 6
    assert await construct(dict, (([("a", 1)],), {}), threads) == {"a": 1}
    assert await construct(describe, ((), {}), threads) is describe
    with pytest.raises(DeploymentFailed, match="ValueError: nothing to load") as caught:
        await construct(Failing, ((), {}), threads)
    assert caught.value.code == "constructor_failed"
    assert caught.value.detail.splitlines()[1].strip().startswith(f'File "{__file__}"')


async def test_a_constructor_with_the_wrong_arguments(threads):
    with pytest.raises(DeploymentFailed, match="TypeError") as caught:
        await construct(Failing, ((1,), {}), threads)
    assert "File" not in caught.value.detail


async def test_stop_iteration_leaves_a_thread_as_another_error(threads):
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.call(lambda: next(iter([])))


def test_descriptions():
    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert describe(ValueError("x")) == "ValueError: x"
    assert describe(ValueError()) == "ValueError"
    assert describe(RemoteError("far", detail="long")) == "RemoteError: far"
    assert describe(FngwError("a")) == "FngwError: a"
    assert describe(Unprintable()).startswith("Unprintable: <")
    assert user_traceback(ValueError("x")) == "ValueError: x\n"
