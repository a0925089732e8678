"""What may be cleared away: examples for reading, properties for trust."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fngw.spec import CodeRef, DeploymentSpec
from fngw_controller.garbage import GRACE_S, Found, Garbage, unreferenced
from fngw_state.history import Generation, Known
from fngw_state.records import Artifact, Desired, Revision, Version

NOW = 1_000_000.0
OLD, YOUNG = NOW - GRACE_S - 1, NOW - GRACE_S + 1


def blob(word: int | str) -> Path:
    return Path(f"/data/blobs/sha256/ab/{word}")


def folder(word: int | str) -> Path:
    return Path(f"/data/code/{word}")


def spec(name: str, code: int, init: int | None = None) -> DeploymentSpec:
    digest = None if init is None else f"sha256:{init}"
    return DeploymentSpec(name=name, code=CodeRef(f"sha256:{code}"), python="3.11", init=digest)


def revision(name: str, generation: int, code: int) -> Revision:
    return Revision(generation, generation, generation, spec(name, code), deployed_at=0.0)


def version(name: str, generation: int, code: int) -> Version:
    return Version(name, None, generation, generation, "sha256:1", None, 0.0, spec(name, code).to_dict())


def artifact(code: int) -> Artifact:
    """What this code is made into: on either engine, for brevity."""
    return Artifact("sha256:1", ref=f"app:{code}", environment=f"env:{code}", app_dir=f"{folder(code)}")


def world(*generations: tuple[Generation, int], at: float = OLD) -> tuple[Known, Found]:
    """One in which nothing is desired, and the code of each of these generations lies everywhere."""
    codes = {code for _, code in generations}
    known = Known(
        since=0.0,
        artifacts={generation: artifact(code) for generation, code in generations},
        images={image: at for code in codes for image in (f"app:{code}", f"env:{code}")},
    )
    return known, Found({blob(c): at for c in codes}, {folder(c): at for c in codes})


F1, F2, F3 = ("f", 1), ("f", 2), ("f", 3)


def test_the_newest_versions_stay() -> None:
    known, found = world((F1, 10), (F2, 20), (F3, 30))
    history = (version("f", 3, 30), version("f", 2, 20), version("f", 1, 10))
    known = dataclasses.replace(known, versions=(history,))
    assert unreferenced(known, (), found, keep=3, now=NOW) == Garbage()
    garbage = unreferenced(known, (), found, keep=2, now=NOW)
    assert garbage == Garbage(history[2:], (F1,), ("app:10", "env:10"), (blob(10),), (folder(10),))


def test_what_is_desired_stays_whatever_the_count() -> None:
    known, found = world((F1, 10), (F2, 20), (F3, 30))
    desired = Desired("f", target=revision("f", 3, 30), stable=revision("f", 1, 10))
    known = dataclasses.replace(known, desired=(desired,), versions=((version("f", 2, 20), version("f", 1, 10)),))
    garbage = unreferenced(known, (), found, keep=1, now=NOW)
    assert garbage == Garbage(), "2 is the newest, 1 serves, 3 is being rolled out"


def test_what_runs_stays_with_its_version() -> None:
    known, found = world((F1, 10), (F2, 20))
    history = (version("f", 2, 20), version("f", 1, 10))
    known = dataclasses.replace(known, versions=(history,))
    assert unreferenced(known, {F1}, found, keep=1, now=NOW) == Garbage()


def test_what_two_generations_share_goes_with_the_last_one() -> None:
    known, found = world((F1, 10), (F2, 10))
    garbage = unreferenced(known, {F1}, found, keep=1, now=NOW)
    assert garbage == Garbage(generations=(F2,), blobs=(blob(10),)), "what runs needs no blob"
    garbage = unreferenced(known, (), found, keep=1, now=NOW)
    assert garbage.images == ("app:10", "env:10")


def test_what_was_asked_for_a_moment_ago_stays() -> None:
    known, found = world((F1, 10), at=YOUNG)
    assert unreferenced(known, (), found, keep=1, now=NOW) == Garbage(generations=(F1,))


def test_blobs_that_are_older_than_redis_stay() -> None:
    known, found = world((F1, 10))
    known = dataclasses.replace(known, since=OLD + 0.5)
    assert unreferenced(known, (), found, keep=1, now=NOW).blobs == ()
    assert unreferenced(known, (), found, keep=1, now=NOW).folders == (folder(10),)


def test_no_folder_goes_while_something_runs_that_nobody_remembers() -> None:
    known, found = world((F1, 10))
    assert unreferenced(known, {("g", 9)}, found, keep=1, now=NOW).folders == ()


def test_drafts_go_when_they_are_old() -> None:
    found = Found({blob("1.new"): OLD, blob("2.new"): YOUNG}, {folder(".part-1"): OLD, folder(".part-2"): YOUNG})
    garbage = unreferenced(Known(since=0.0), (), found, keep=1, now=NOW)
    assert garbage == Garbage(blobs=(blob("1.new"),), folders=(folder(".part-1"),))


def test_an_environment_stays_for_its_interpreter() -> None:
    python = Path("/data/envs/abc/bin/python")
    local = Artifact("local:1", python=str(python), app_dir=str(folder(10)))
    known = Known(since=0.0, artifacts={F1: local})
    found = Found({}, {Path("/data/envs/abc"): OLD, Path("/data/envs/ab"): OLD, folder(10): OLD})
    assert unreferenced(known, {F1}, found, keep=1, now=NOW).folders == (Path("/data/envs/ab"),)


# -- properties -------------------------------------------------------------------------------------------

CODES = range(8)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Known, set[Generation], Found, int, dict[Generation, int]]:
    """Anything that may lie around, with the code of each generation."""
    codes: dict[Generation, int] = {}
    desired, histories, running = [], [], set()
    for name in draw(st.sets(st.sampled_from("fgh"))):
        numbers = draw(st.lists(st.integers(1, 99), unique=True, max_size=6))
        for number in numbers:
            codes[name, number] = draw(st.sampled_from(CODES))
        revisions = [revision(name, n, codes[name, n]) for n in numbers]
        if revisions and draw(st.booleans()):
            stable = draw(st.none() | st.sampled_from(revisions))
            desired.append(Desired(name, target=draw(st.sampled_from(revisions)), stable=stable))
            rolled_out = draw(st.lists(st.sampled_from(numbers), unique=True))
            newest_first = sorted(rolled_out, reverse=True)
            histories.append(tuple(version(name, n, codes[name, n]) for n in newest_first))
        running |= {(name, n) for n in numbers if draw(st.integers(0, 3)) == 0}
    times = st.sampled_from((OLD, YOUNG))
    known = Known(
        since=draw(st.sampled_from((0.0, 0.0, NOW - GRACE_S))),
        desired=tuple(desired),
        versions=tuple(histories),
        artifacts={g: artifact(code) for g, code in codes.items() if draw(st.integers(0, 5))},
        images={image: draw(times) for code in CODES for image in (f"app:{code}", f"env:{code}")},
    )
    found = Found({blob(c): draw(times) for c in CODES}, {folder(c): draw(times) for c in CODES})
    return known, running, found, draw(st.integers(1, 3)), codes


@settings(max_examples=300)
@given(worlds())
def test_nothing_that_is_needed_is_ever_garbage(world: tuple) -> None:
    known, running, found, keep, codes = world
    garbage = unreferenced(known, running, found, keep, NOW)
    asked_for = {(d.name, r.generation) for d in known.desired for r in (d.target, d.stable) if r}
    listed = {(v.name, v.generation) for history in known.versions for v in history[:keep]}
    for generation in asked_for | listed | running:
        code = codes[generation]
        assert generation not in {(v.name, v.generation) for v in garbage.versions}
        assert generation not in garbage.generations
        if generation in known.artifacts:
            assert not {f"app:{code}", f"env:{code}"} & set(garbage.images)
            assert folder(code) not in garbage.folders
        if generation not in running - asked_for - listed:
            assert blob(code) not in garbage.blobs


@settings(max_examples=200)
@given(worlds())
def test_nothing_young_goes_and_nothing_old_stays_without_a_reason(world: tuple) -> None:
    known, running, found, keep, _ = world
    garbage = unreferenced(known, running, found, keep, NOW)
    assert all(known.images[image] == OLD for image in garbage.images)
    assert all(found.blobs[path] == OLD for path in garbage.blobs)
    assert all(found.folders[path] == OLD for path in garbage.folders)
    left = known.artifacts.keys() - set(garbage.generations)
    reasons = {known.artifacts[g].ref for g in left}
    for image, at in known.images.items():
        if image.startswith("app") and image not in garbage.images:
            assert at == YOUNG or image in reasons


@settings(max_examples=200)
@given(worlds())
def test_what_is_left_has_no_garbage(world: tuple) -> None:
    known, running, found, keep, _ = world
    garbage = unreferenced(known, running, found, keep, NOW)
    left = dataclasses.replace(
        known,
        versions=tuple(tuple(v for v in history if v not in garbage.versions) for history in known.versions),
        artifacts={g: a for g, a in known.artifacts.items() if g not in garbage.generations},
        images={image: at for image, at in known.images.items() if image not in garbage.images},
    )
    still = Found(
        {path: at for path, at in found.blobs.items() if path not in garbage.blobs},
        {path: at for path, at in found.folders.items() if path not in garbage.folders},
    )
    assert unreferenced(left, running, still, keep, NOW) == Garbage()
