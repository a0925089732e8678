"""Decorators and ``Deployment``."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fngw
from fngw.options import OPTION_NAMES


@fngw.deployment
class Greeter:
    def __init__(self, msg: str = "hi") -> None:
        self.msg = msg

    def reconfigure(self, config: Any) -> None:
        self.msg = config["msg"]

    def __call__(self) -> str:
        return self.msg


@fngw.deployment(name="other-name", num_replicas=2, route_prefix=None)
def function(request: Any) -> str:
    return "x"


def test_bare_and_with_options() -> None:
    assert Greeter.name == "Greeter"
    assert Greeter.func_or_class.__name__ == "Greeter"
    assert (function.name, function.num_replicas, function.route_prefix) == ("other-name", 2, None)
    assert function.url is None
    assert str(Greeter.url).endswith("/Greeter")


def test_every_option_is_a_read_only_property() -> None:
    for name in OPTION_NAMES:
        getattr(Greeter, name)
        with pytest.raises(AttributeError):
            setattr(Greeter, name, None)
    assert Greeter.max_concurrent_queries == 100
    assert Greeter.init_args == ()


def test_options_returns_a_changed_copy() -> None:
    loud = Greeter.options(name="Loud", version="2", init_args=["HI"], user_config={"msg": "x"})
    assert (loud.name, loud.version, loud.init_args, loud.route_prefix) == ("Loud", "2", ("HI",), "/Loud")
    assert (Greeter.name, Greeter.version) == ("Greeter", None)
    assert loud.options(version=None).version is None


def test_ray_actor_options() -> None:
    ray = {"num_gpus": 0.5, "runtime_env": {"pip": ["numpy"], "env_vars": {"A": "b"}}}
    found = Greeter.options(ray_actor_options=ray)
    assert (found.num_gpus, found.pip, found.env) == (0.5, ("numpy",), {"A": "b"})


def test_wrong_options() -> None:
    with pytest.raises(TypeError, match="did you mean 'num_replicas'"):
        fngw.deployment(num_replica=1)(len)
    with pytest.raises(TypeError, match="did you mean 'version'"):
        Greeter.options(versoin="1")
    with pytest.raises(TypeError, match="num_replicas"):
        Greeter.options(num_replicas="1")
    with pytest.raises(ValueError, match="num_replicas"):
        Greeter.options(num_replicas=0)
    with pytest.raises(fngw.ValidationError, match="name"):
        fngw.deployment(lambda: 1)


@pytest.mark.parametrize("wrong", [3, "Greeter", Greeter])
def test_only_functions_and_classes(wrong: Any) -> None:
    with pytest.raises(TypeError):
        fngw.deployment(wrong)
    with pytest.raises(TypeError):
        fngw.deployment(num_replicas=1)(wrong)


def test_calling_it_says_how_to_use_it() -> None:
    with pytest.raises(RuntimeError, match=r"Greeter\.deploy.*get_handle.*func_or_class"):
        Greeter("x")
    assert Greeter.func_or_class("x")() == "x"


def test_user_config_needs_reconfigure() -> None:
    class Plain:
        pass

    for target in (Plain, len):
        with pytest.raises(fngw.ValidationError, match="user_config"):
            fngw.deployment(name="x", user_config={"a": 1})(target)
    with pytest.raises(fngw.ValidationError, match="user_config"):
        function.options(user_config=1)


def test_functions_take_no_constructor_arguments() -> None:
    with pytest.raises(fngw.ValidationError, match="init_args"):
        function.options(init_args=(1,))
    with pytest.raises(fngw.ValidationError, match="init_kwargs"):
        function.deploy(a=1)


def test_equality_and_hash() -> None:
    assert Greeter == Greeter.options()
    assert Greeter == Greeter.options(route_prefix="/Greeter")
    assert Greeter.options(memory="1KiB") == Greeter.options(memory=1024)
    assert Greeter != Greeter.options(num_replicas=3)
    assert Greeter != Greeter.options(name="b")
    assert Greeter.options(init_args=(np.ones(2),)) != Greeter.options(init_args=(np.ones(2),))
    assert len({Greeter, Greeter.options(), function}) == 2
    assert Greeter != "Greeter"
    assert repr(Greeter) == "Deployment(name='Greeter', version=None, route_prefix='/Greeter')"


def test_pickles_as_its_name_and_options() -> None:
    sent = Greeter.options(num_replicas=4, user_config={"msg": "x"}, init_args=(lambda: 1,))
    got = pickle.loads(pickle.dumps(sent))
    assert (got.name, got.num_replicas, got.user_config, got.init_args) == ("Greeter", 4, {"msg": "x"}, ())
    assert got.get_handle() == sent.get_handle()
    with pytest.raises(fngw.ValidationError, match="not in this process"):
        _ = got.func_or_class


def test_copies_keep_the_code() -> None:
    assert copy.deepcopy(Greeter) is Greeter
    assert copy.copy(Greeter) is Greeter


def test_handles() -> None:
    handle = Greeter.get_handle(sync=False)
    assert pickle.loads(pickle.dumps(handle)) == handle
    assert pickle.loads(pickle.dumps(handle.other)) == handle.options(method_name="other")
    assert handle != handle.other
    assert len({handle, Greeter.get_handle(), handle.other}) == 2
    assert repr(handle.other) == "DeploymentHandle('Greeter', method='other')"
    assert copy.deepcopy(handle) == handle
    assert not hasattr(handle, "_private")
    with pytest.raises(TypeError, match="remote"):
        handle.other(1)


def test_handles_to_old_pythons_write_what_they_can_read() -> None:
    assert Greeter.options(python="3.7").get_handle() == Greeter.get_handle().options(pickle_protocol=4)
    assert Greeter.options(python="3.12").get_handle() == Greeter.get_handle()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Any ASGI application."""


def test_ingress() -> None:
    @fngw.ingress(app)
    class Api:
        pass

    assert Api.__fngw_ingress_app__ is app  # type: ignore[attr-defined]


def test_ingress_refuses_call_inherited_too() -> None:
    class WithCall:
        def __call__(self) -> None: ...

    class Child(WithCall):
        pass

    for cls in (WithCall, Child):
        with pytest.raises(ValueError, match="must not define __call__"):
            fngw.ingress(app)(cls)


def test_ingress_is_for_classes_and_goes_below() -> None:
    with pytest.raises(TypeError, match="below"):
        fngw.ingress(app)(Greeter)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="class"):
        fngw.ingress(app)(len)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="ASGI"):
        fngw.ingress(3)

    class Api:
        pass

    with pytest.raises(TypeError, match="ASGI"):
        fngw.ingress(Api)
