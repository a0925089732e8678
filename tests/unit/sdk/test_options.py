"""Every option: wrong types are ``TypeError``, wrong values name the option, unknown names get the nearest."""

from __future__ import annotations

from typing import Any

import pytest

from fngw.errors import ValidationError
from fngw.options import DEFAULT_ROUTE, OPTION_NAMES, Options, make_options, parse_bytes

WRONG_TYPES: dict[str, list[Any]] = {
    "name": [1, None],
    "version": [1, 1.0],
    "prev_version": [2],
    "num_replicas": ["2", 1.5, True, None],
    "init_args": ["text", 3],
    "init_kwargs": [[], {1: 2}],
    "route_prefix": [1, b"/x"],
    "max_concurrent_queries": ["1", 2.5, None],
    "max_queued_requests": ["1", None],
    "request_timeout_s": ["1", True],
    "num_cpus": ["a", None],
    "num_gpus": ["a", None],
    "memory": [1.5, []],
    "gpu_memory": [1.5],
    "gpu_policy": [None, True],
    "python": [3.11],
    "conda": [["numpy"], 1],
    "pip": [{"numpy": "1"}, [1]],
    "env": [["A=1"], {"A": 1}],
    "working_dir": [1],
    "health_check_period_s": ["1", None],
    "health_check_timeout_s": ["1"],
    "graceful_shutdown_wait_loop_s": ["1"],
    "graceful_shutdown_timeout_s": [None],
    "schedule": [5, ["* * * * *"], True],
    "schedule_timezone": [None, 1],
    "schedule_missed": [None, False],
}

WRONG_VALUES: dict[str, list[Any]] = {
    "name": ["", "-a", "a-", "a b", "a/b", "x" * 64, "ä"],
    "version": [""],
    "prev_version": [""],
    "num_replicas": [0, -1],
    "route_prefix": [
        "",
        "api",
        "/api/",
        "/-",
        "/-/x",
        "/{x}",
        "/a b",
        "/a//b",
        "/a/../b",
        "/a?b",
        "/%41",
        "/" + "x" * 1100,
    ],
    "user_config": [len, float("nan"), {"a": {1, 2}}],
    "max_concurrent_queries": [0, -5],
    "max_queued_requests": [-1],
    "request_timeout_s": [0, -1, float("inf")],
    "num_cpus": [-1, float("nan")],
    "num_gpus": [-1, 1.5, 0.3333333, float("inf")],
    "memory": ["lots", "-1MiB", 0, "12 parsecs"],
    "gpu_memory": ["", "0"],
    "gpu_policy": ["", "kill"],
    "python": ["3", "2.7", "3.11.4", "py311"],
    "env": [
        {"": "x"},
        {"A=B": "x"},
        {"A": "\0"},
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        {"CUDA_MPS_PIPE": "x"},
        {"CUDA_VISIBLE_DEVICES": "0"},
    ],
    "working_dir": [""],
    "health_check_period_s": [0, -1],
    "health_check_timeout_s": [0],
    "graceful_shutdown_wait_loop_s": [-1],
    "graceful_shutdown_timeout_s": [-0.1],
    "schedule": ["", "* * * *", "61 * * * *", "every day"],
    "schedule_timezone": ["", "Mars/Olympus"],
    "schedule_missed": ["", "twice"],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}={value!r}"[:60]) for name, values in table.items() for value in values
    ]


def build(name: str, value: Any) -> Options:
    return Options(**{"name": "f", name: value})


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPES))
def test_a_wrong_type_names_the_option(name: str, value: Any):
    with pytest.raises(TypeError, match=name):
        build(name, value)


@pytest.mark.parametrize(("name", "value"), cases(WRONG_VALUES))
def test_a_wrong_value_names_the_option(name: str, value: Any):
    with pytest.raises(ValidationError, match=f"^{name}") as caught:
        build(name, value)
    assert isinstance(caught.value, ValueError)


def test_every_option_is_held_to_something():
    assert set(OPTION_NAMES) == set(WRONG_TYPES) | set(WRONG_VALUES)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"num_replica": 2}, "did you mean 'num_replicas'"),
        ({"router_prefix": "/"}, "did you mean 'route_prefix'"),
        ({"zzz": 1}, "known: conda"),
        ({"ray_actor_options": {"num_cpu": 1}}, "did you mean 'num_cpus'"),
        ({"ray_actor_options": {"runtime_env": {"pips": []}}}, "did you mean 'pip'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(given: dict[str, Any], hint: str):
    with pytest.raises(TypeError, match=hint):
        make_options("f", **given)
    with pytest.raises(TypeError, match=hint):
        Options(name="f").replace(**given)


def test_ray_actor_options_mean_the_options_of_fngw():
    runtime = {"pip": ["numpy"], "env_vars": {"A": "1"}, "working_dir": "src"}
    options = make_options(
        "f", ray_actor_options={"num_cpus": 2, "num_gpus": 0.5, "memory": 1024, "runtime_env": runtime}
    )
    assert (options.num_cpus, options.num_gpus, options.memory) == (2, 0.5, 1024)
    assert (options.pip, options.env, options.working_dir) == (("numpy",), {"A": "1"}, "src")
    with pytest.raises(ValidationError, match="num_cpus: given both"):
        make_options("f", num_cpus=1, ray_actor_options={"num_cpus": 2})


def test_the_default_route_follows_the_name():
    options = Options(name="f")
    assert (options.route_prefix, options.resolved_route) == (DEFAULT_ROUTE, "/f")
    assert options.replace(name="g").resolved_route == "/g"
    assert options.replace(route_prefix=None).resolved_route is None
    assert options.replace(route_prefix="/").resolved_route == "/"
    assert options.replace(route_prefix="/a/b").replace(name="g").resolved_route == "/a/b"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("10GB", 10**10),
        ("1.5Gi", 3 << 29),
        ("7", 7),
        (9, 9),
        ("1k", 1000),
        ("2 TiB", 2 << 40),
    ],
)
def test_sizes(text: Any, size: int):
    assert parse_bytes(text) == size
