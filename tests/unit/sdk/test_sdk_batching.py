"""``fngw.batch``."""

import asyncio
import pickle
from typing import Any

import cloudpickle
import pytest

import fngw


async def test_calls_share_batches() -> None:
    sizes = []

    @fngw.batch(max_batch_size=4, batch_wait_timeout_s=60)
    async def double(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return [2 * n for n in numbers]

    assert await asyncio.gather(*[double(i) for i in range(8)]) == [2 * i for i in range(8)]
    assert sizes == [4, 4]


async def test_without_wait_it_takes_what_is_there() -> None:
    sizes = []

    @fngw.batch
    async def same(values: list[int]) -> list[int]:
        sizes.append(len(values))
        return values

    assert await same(1) == 1
    await asyncio.gather(*[same(i) for i in range(12)])
    assert sizes == [1, 10, 2]


async def test_a_batch_that_does_not_fill_runs_after_the_wait() -> None:
    @fngw.batch(max_batch_size=100, batch_wait_timeout_s=0.01)
    async def same(values: list[int]) -> list[int]:
        return values

    assert await asyncio.wait_for(same(1), 60) == 1


@pytest.mark.parametrize("between", range(4))
async def test_a_cancellation_that_comes_with_a_full_batch_is_not_lost(between: int) -> None:
    @fngw.batch(max_batch_size=2, batch_wait_timeout_s=60)
    async def same(values: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return values

    first = asyncio.ensure_future(same(1))
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    (drain,) = asyncio.all_tasks() - before
    await asyncio.sleep(0)
    second = asyncio.ensure_future(same(2))
    await asyncio.sleep(0)  # the batch is full
    for _ in range(between):
        await asyncio.sleep(0)
    cancelled = drain.cancel()
    await asyncio.wait({drain})
    assert drain.cancelled() == cancelled
    for call in (first, second):
        call.cancel()


async def test_batches_run_one_after_the_other() -> None:
    gate, started = asyncio.Event(), asyncio.Event()
    running: list[list[int]] = []

    @fngw.batch(max_batch_size=2)
    async def same(values: list[int]) -> list[int]:
        running.append(list(values))
        started.set()
        await gate.wait()
        return values

    calls = [asyncio.ensure_future(same(i)) for i in range(4)]
    await started.wait()
    assert running == [[0, 1]]
    gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3]
    assert running == [[0, 1], [2, 3]]


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.batches: list[list[int]] = []

    @fngw.batch(max_batch_size=10)
    async def scale(self, numbers: list[int], *, plus: Any = None) -> list[int]:
        self.batches.append(numbers)
        return [self.factor * n + (plus[i] if plus else 0) for i, n in enumerate(numbers)]


async def test_each_instance_has_its_own_batches() -> None:
    two, three = Model(2), Model(3)
    assert await asyncio.gather(two.scale(1), three.scale(1), two.scale(2)) == [2, 3, 4]
    assert (two.batches, three.batches) == ([[1, 2]], [[1]])
    pickle.loads(pickle.dumps(two))


async def test_keywords_come_as_lists_and_shapes_do_not_mix() -> None:
    model = Model(1)
    assert await asyncio.gather(model.scale(1, plus=10), model.scale(2, plus=20), model.scale(3)) == [11, 22, 3]
    assert model.batches == [[1, 2], [3]]


async def test_errors_reach_the_whole_batch_and_the_next_one_runs() -> None:
    @fngw.batch
    async def picky(values: list[int]) -> list[int]:
        if 0 in values:
            raise LookupError("no zeros")
        return values

    results = await asyncio.gather(picky(1), picky(0), return_exceptions=True)
    assert [type(r) for r in results] == [LookupError, LookupError]
    assert await picky(1) == 1


async def test_a_wrong_call_fails_alone() -> None:
    results = await asyncio.gather(Model(1).scale(1), Model(1).scale(), return_exceptions=True)  # type: ignore[call-arg]
    assert results[0] == 1
    assert isinstance(results[1], TypeError)


async def test_wrong_results() -> None:
    @fngw.batch
    async def short(values: list[int]) -> list[int]:
        return []

    @fngw.batch
    async def none(values: list[int]) -> None:
        return None

    with pytest.raises(ValueError, match="given 1 values and returned 0"):
        await short(1)
    with pytest.raises(TypeError, match="must return a list"):
        await none(1)


async def test_cancelled_callers_are_left_out() -> None:
    seen = []

    @fngw.batch(max_batch_size=3, batch_wait_timeout_s=60)
    async def same(values: list[int]) -> list[int]:
        seen.append(values)
        return values

    gone, stays = asyncio.ensure_future(same(1)), asyncio.ensure_future(same(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await same(3) == 3
    assert await stays == 2
    assert seen == [[2, 3]]


def test_another_loop_is_no_trouble() -> None:
    model = Model(2)
    assert [asyncio.run(model.scale(1)) for _ in range(2)] == [2, 2]


def test_travels_by_value() -> None:
    @fngw.batch
    async def double(numbers: list[int]) -> list[int]:
        return [2 * n for n in numbers]

    assert asyncio.run(double(1)) == 2
    assert asyncio.run(pickle.loads(cloudpickle.dumps(double))(4)) == 8


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="max_batch_size"):
        fngw.batch(max_batch_size="1")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_batch_size"):
        fngw.batch(max_batch_size=0)
    with pytest.raises(TypeError, match="batch_wait_timeout_s"):
        fngw.batch(batch_wait_timeout_s="1")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="batch_wait_timeout_s"):
        fngw.batch(batch_wait_timeout_s=-1)
    with pytest.raises(TypeError, match="async"):
        fngw.batch(len)  # type: ignore[type-var]
