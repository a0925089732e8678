"""Replicas that share a GPU: they see the same one, and together they do what one with all of it does."""

from __future__ import annotations

import os
import statistics

import httpx
import pytest
from tests.e2e.conftest import wait_for

from .conftest import Site, mps_starts, sees_all_processes

#: Of what one replica with the whole device does.
LEAST = 0.9
ROUNDS, SECONDS = int(os.environ.get("FNGW_TEST_ROUNDS", "3")), float(os.environ.get("FNGW_TEST_SECONDS", "4"))
#: Seconds in which a replica is replaced: its successor imports PyTorch.
REPLACED_S = 300.0

pytestmark = pytest.mark.timeout(2400)


def test_two_halves_see_the_same_device_and_no_other(site: Site) -> None:
    replicas = site.deploy("halves", num_gpus=0.5, num_replicas=2)
    (device,) = [gpu for gpu in site.gpus() if gpu["leases"]]
    assert sorted(lease["replica"] for lease in device["leases"]) == sorted(replicas)
    seen = {}
    wait_for(lambda: seen.update({p["pid"]: p for p in site.ask_all("halves", 2)}) or len(seen) == 2, "both")
    for place in seen.values():
        assert place["count"] == 1
        assert place["uuid"] and place["uuid"] in device["uuid"]  # CUDA leaves out the "GPU-"
        if site.stack.engine == "process":
            assert place["env"]["CUDA_VISIBLE_DEVICES"] == device["uuid"]
    wait_for(lambda: any(gpu["used"] and gpu["used"]["memory_mib"] for gpu in site.gpus()), "its use to be told")


def test_a_pair_does_as_much_as_one_that_has_the_whole_device(site: Site) -> None:
    whole, pair = [], []
    for _ in range(ROUNDS):  # in turns: a device that gets warm gets slower
        site.deploy("whole", num_gpus=1)
        whole.append(site.ask("whole", seconds=SECONDS)["count"])
        site.delete("whole")
        site.deploy("pair", num_gpus=0.5, num_replicas=2)
        answers = site.ask_all("pair", 2, seconds=SECONDS)
        assert len({answer["pid"] for answer in answers}) == 2
        pair.append(sum(answer["count"] for answer in answers))
        site.delete("pair")
    ratio = statistics.median(pair) / statistics.median(whole)
    print(f"\n{site.stack.engine}: a pair does {ratio:.2f} of what one does ({pair} against {whole})")
    assert ratio >= LEAST


if sees_all_processes():

    def test_who_uses_what_is_told_and_who_is_over_his_part(site: Site) -> None:
        options = {"version": "1", "gpu_memory": "2GiB"}  # of one version: else the second deploy replaces it
        (replica,) = site.deploy("greedy", **options)
        site.ask("greedy", keep=3072)

        def used() -> int:
            (lease,) = site.leases()
            return int(lease["used"]["memory_mib"]) if lease["used"] else 0

        wait_for(lambda: used() > 3072, "its use to be told")
        wait_for(lambda: "over its GPU memory" in site.stack.status("greedy")["message"], "the report")
        metrics = httpx.get(f"{site.stack.url}/-/metrics", timeout=30).text
        assert f'fngw_replica_gpu_memory_bytes{{deployment="greedy",replica="{replica}"' in metrics
        site.deploy("greedy", **options, gpu_policy="restart")

        def another() -> bool:
            found = site.stack.replicas("greedy")
            return bool(found) and replica not in found

        wait_for(another, "another", REPLACED_S)


if mps_starts():

    def test_shares_are_limits_where_mps_runs(site: Site, daemon: None) -> None:
        site.deploy("limited", gpu_memory="3GiB", num_replicas=2)
        for place in site.ask_all("limited", 2):
            assert place["env"]["CUDA_MPS_PIPE_DIRECTORY"] == str(site.pipes)
            assert 1 <= int(place["env"]["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"]) <= 100
        assert site.ask("limited", keep=512)["kept"]
        for answer in site.ask_all("limited", 2, keep=8192):
            assert not answer["kept"], "a replica could take more memory than its share"
        assert site.ask("limited", seconds=1)["count"] > 0  # it goes on
