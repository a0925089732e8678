"""The SDK as users' scripts use it: run as ``__main__`` in a folder of its own, against a whole stack."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx

EXAMPLES = Path(__file__).parents[2] / "examples"

# Defined in ``__main__``, so it travels by value, with the local modules that it uses.
BY_VALUE = """
import asyncio
import sys
import threading

import httpx

import fngw
import plain
from package.inner import Doubled

NAME = sys.argv[1]

@fngw.deployment(name=NAME)
class Main:
    def __init__(self, word, *, times=1):
        self.text = word * times
        self.inits = threading.current_thread() is not threading.main_thread()

    def __call__(self, request):
        return {"text": self.text, "prefix": plain.PREFIX, "path": request.url.path}

    def sync(self, x):
        return {"x": Doubled(x).value, "threaded": threading.current_thread() is not threading.main_thread()}

    async def asynced(self, x, *, more=0):
        await asyncio.sleep(0)
        return {"x": x + more, "threaded": threading.current_thread() is not threading.main_thread()}

    def itself(self, x):
        return x

    def fails(self):
        raise plain.Odd("three")

def make(factor):
    @fngw.deployment(name=NAME + "-closure", route_prefix="/closures/" + NAME)
    async def scaled(request):
        return {"scaled": factor * int(request.query_params["x"])}
    return scaled

if __name__ == "__main__":
    Main.deploy("ab", times=2)
    # It is routed when deploy returns, by a gateway that was not asked before.
    answer = httpx.get(Main.url + "/sub", timeout=60)
    assert answer.json() == {"text": "abab", "prefix": "> ", "path": "/" + NAME + "/sub"}, answer.text

    handle = Main.get_handle()
    assert handle.sync.remote(4).result() == {"x": 8, "threaded": True}
    assert fngw.get(handle.asynced.remote(4, more=1)) == {"x": 5, "threaded": False}
    refs = [handle.options(method_name="sync").remote(i) for i in range(5)]
    assert [r["x"] for r in fngw.get(refs, timeout=60)] == [0, 2, 4, 6, 8]
    first = handle.asynced.remote(1, more=10)
    async def both():
        return await asyncio.gather(handle.itself.remote([first]), handle.sync.remote(2))
    assert asyncio.run(both()) == [[{"x": 11, "threaded": False}], {"x": 4, "threaded": True}]

    try:
        handle.fails.remote().result(60)
    except fngw.RemoteError as error:
        assert isinstance(error.cause, plain.Odd) and error.cause.args == ("three",), repr(error.cause)
        assert "in fails\\n" in str(error) and "fngw_runtime" not in str(error), error
    else:
        raise AssertionError("it does not fail")
    try:
        handle.nope.remote().result(60)
    except fngw.RemoteError as error:
        assert error.code == "unknown_method" and "asynced, fails, itself, sync" in str(error), error
        assert "Traceback" not in str(error) and str(error).count("nope") == 1, error
    else:
        raise AssertionError("there is no such method")

    closure = make(7)
    closure.deploy()
    assert httpx.get(closure.url, params={"x": "6"}, timeout=60).json() == {"scaled": 42}
    closure.delete()
    assert httpx.get(closure.url, timeout=60).status_code == 404
    closure.delete()  # idempotent
    try:
        closure.get_handle().remote().result(60)
    except fngw.DeploymentNotFound as error:
        assert closure.name in str(error)
    else:
        raise AssertionError("it was deleted")
"""
PLAIN = 'PREFIX = "> "\n\nclass Odd(ValueError):\n    pass\n'
INNER = "from . import two\n\nclass Doubled:\n    def __init__(self, x):\n        self.value = x * two.TWO\n"


def test_a_script_with_classes_functions_and_closures(stack, script, unique):
    more = {"plain.py": PLAIN, "package/__init__.py": "", "package/inner.py": INNER, "package/two.py": "TWO = 2\n"}
    done = script(stack, BY_VALUE, unique, more=more)
    assert done.stdout == ""  # it is the script's own

    told = done.stderr.splitlines()
    first = told[: told.index(f"  curl {stack.url}/{unique}") + 1]
    assert first[0].startswith("sent code (") and f"{unique} is new" in first
    assert any(re.fullmatch(r"(built|reused) image \w+…", line) for line in first)
    assert first[-4:-2] == ["starting replicas", "1 of 1 replica is healthy"]
    assert first[-2] == f"{unique} runs at {stack.url}/{unique}"
    assert "\x1b" not in done.stderr and "\r" not in done.stderr  # plain lines: it is no terminal


IMPORTED = """
import sys
import httpx
import fngw
from shop.goods import Shelf, count, shelf_of

name = sys.argv[1]
shelf, counter = Shelf.options(name=name, version="1"), count.options(name=name + "-fn", route_prefix=None)
shelf.deploy(["a", "b"])
counter.deploy()

found = httpx.get(shelf.url, timeout=60).json()
assert found == {"goods": ["a", "b"], "module": "shop.goods", "data": "a file beside it"}
assert counter.url is None and httpx.get(f"{shelf.url}-fn", timeout=60).status_code == 404
assert counter.get_handle().remote([1, 2, 3]).result() == 3  # by handle alone

listed = fngw.list_deployments()
assert {shelf.name, counter.name} <= set(listed) and listed[shelf.name] == shelf
found = fngw.get_deployment(name)
assert found == shelf and (found.version, found.num_replicas, found.route_prefix) == ("1", 1, f"/{name}")
try:
    fngw.get_deployment(name + "x")
except KeyError as error:
    assert isinstance(error, fngw.DeploymentNotFound) and name in str(error)
else:
    raise AssertionError("there is no such deployment")

# What was fetched can be changed and deployed again: its code and arguments stay with the gateway.
found.options(version="2", num_replicas=2).deploy()
assert httpx.get(shelf.url, timeout=60).json()["goods"] == ["a", "b"]
assert fngw.get_deployment(name).num_replicas == 2
found.options(version="3").deploy(["c"])
assert httpx.get(shelf.url, timeout=60).json()["goods"] == ["c"]

# Its own objects come back as what they are, when they can be imported on both sides.
assert shelf.get_handle().first.remote(shelf_of("x", "y")).result().goods == ["x"]

found.delete()
assert name not in fngw.list_deployments()
assert httpx.get(shelf.url, timeout=60).status_code == 404
"""
GOODS = """
import pathlib
import fngw

@fngw.deployment
class Shelf:
    async def __init__(self, goods):
        self.goods = goods

    async def __call__(self):
        data = pathlib.Path(__file__).with_name("data.txt").read_text()
        return {"goods": self.goods, "module": __name__, "data": data}

    def first(self, shelf):
        return Plain(shelf.goods[:1])

class Plain:
    def __init__(self, goods):
        self.goods = goods

def shelf_of(*goods):
    return Plain(list(goods))

@fngw.deployment
def count(things):
    return len(things)
"""


def test_a_script_that_deploys_a_package(stack, script, unique):
    more = {"shop/__init__.py": "", "shop/goods.py": GOODS, "shop/data.txt": "a file beside it"}
    script(stack, IMPORTED, unique, more=more)


COMPOSED = """
import sys
import httpx
import fngw

name = sys.argv[1]

class Wrong(Exception):
    pass

@fngw.deployment(name=name + "-back", route_prefix=None, num_replicas=2)
class Back:
    def answer(self, x):
        if x == 13:
            raise Wrong("unlucky")
        return x * 2

@fngw.deployment(name=name)
class Front:
    def __init__(self, back):
        self.back = back

    async def __call__(self, request):
        x = int(request.query_params["x"])
        return await self.back.answer.remote(x)

    def sync(self, x):
        first = self.back.answer.remote(x)
        return self.back.answer.remote(first).result()  # a Ref arrives as its value

    async def found(self):
        return sorted(fngw.list_deployments())

Back.deploy()
Front.deploy(Back.get_handle())
assert httpx.get(Front.url, params={"x": 4}, timeout=60).text == "8"
front = Front.get_handle()
assert front.sync.remote(3).result() == 12
assert {name, name + "-back"} <= set(front.found.remote().result())

try:
    front.sync.remote(13).result()
except fngw.RemoteError as error:
    assert isinstance(error.cause, Wrong) and error.cause.args == ("unlucky",), repr(error.cause)
    assert "in answer\\n" in str(error), error
else:
    raise AssertionError("it does not fail")
answer = httpx.get(Front.url, params={"x": 13}, timeout=60)
assert answer.status_code == 500 and "unlucky" in answer.json()["title"], answer.text

Back.delete()
try:
    front.sync.remote(3).result()
except fngw.RemoteError as error:
    assert isinstance(error.cause, fngw.DeploymentNotFound), repr(error.cause)
else:
    raise AssertionError("its other half is gone")
"""


def test_a_replica_calls_another_by_handle(stack, script, unique):
    script(stack, COMPOSED, unique)


def test_the_examples(stack, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    names = ("greeter", "square", "files", "compose")
    stack.fngw("deploy", *(f"examples/{name}.py" for name in names), cwd=tmp_path)
    with stack.http as http:
        assert http.get("/Greeter", params={"name": "Ada"}).text == "Hello, Ada!"
        assert http.get("/square", params={"x": "7"}).json() == {"x": 7, "square": 49}
        assert http.post("/summary", content="the quick brown fox").json() == {"words": 4, "letters": 16}
    assert stack.fngw("call", "Greeter", "--method", "greet", "--data", '"Bo"').stdout == "Hello, Bo!\n"


def test_deploys_are_routed_when_they_return(process_stack, script, unique):
    text = """
import sys
import httpx
import fngw

@fngw.deployment(name=sys.argv[1])
def counted(request):
    return NUMBER

for NUMBER in range(4):
    counted.deploy()
    assert {httpx.get(counted.url, timeout=60).json() for _ in range(8)} == {NUMBER}
    if NUMBER == 2:
        counted.delete()
        assert {httpx.get(counted.url, timeout=60).status_code for _ in range(8)} == {404}
"""
    script(process_stack, text, unique)
    assert httpx.get(f"{process_stack.url}/{unique}", timeout=60).json() == 3
