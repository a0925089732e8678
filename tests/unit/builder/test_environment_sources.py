"""Where packages come from, what they are made for, and that credentials stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fngw.errors import BuildFailed
from fngw_builder.environment.requirements import read
from fngw_builder.environment.sources import Channel, Sources, redact
from fngw_builder.environment.target import Target


def sources(**environ: str) -> Sources:
    return Sources(Path("/cache"), Path("/bin/uv"), channel_alias="https://example.com/c/", environ=environ)


def test_channels() -> None:
    found = sources(TOKEN="t0ken").channels(
        ["conda-forge/", "defaults", "a/label/b", "https://u:${TOKEN}@x.org/c/", "file:///d", "conda-forge"]
    )
    assert found == (
        Channel("conda-forge", "https://example.com/c/conda-forge"),
        Channel("pkgs/main", "https://repo.anaconda.com/pkgs/main"),
        Channel("pkgs/r", "https://repo.anaconda.com/pkgs/r"),
        Channel("a/label/b", "https://example.com/c/a/label/b"),
        Channel("https://u:${TOKEN}@x.org/c", "https://u:t0ken@x.org/c"),
        Channel("file:///d", "file:///d"),
    )


def test_variables_that_are_not_set_are_named() -> None:
    with pytest.raises(BuildFailed, match=r"\$\{TOKEN\}, which is not set"):
        sources().channel("https://${TOKEN}@x.org")
    with pytest.raises(BuildFailed, match="fngw's own"):
        sources(FNGW_TOKEN="x").expand("${FNGW_TOKEN}")


def test_uv_gets_lines_for_addresses_and_arguments_for_the_rest() -> None:
    lines = ["-i https://${T}@x.org/a", "--pre", "-f ./w", "--no-index", "--trusted-host h"]
    serving = sources().serving(read("3.11", None, lines, []))
    assert serving.index_lines() == ["--index-url https://${T}@x.org/a", "--find-links ./w"]
    assert serving.uv_arguments() == ["--prerelease", "allow", "--no-index", "--allow-insecure-host", "h"]


def test_uv_gets_the_operators_environment_without_fngws() -> None:
    env = sources(PATH="/bin", UV_DEFAULT_INDEX="https://x.org", FNGW_TOKEN="s", UV_CONSTRAINT="c").uv_environment()
    assert env["PATH"] == "/bin" and env["UV_DEFAULT_INDEX"] == "https://x.org"
    assert env["UV_CACHE_DIR"] == "/cache/uv"
    assert not {"FNGW_TOKEN", "UV_CONSTRAINT"} & set(env)


def test_credentials_are_not_shown() -> None:
    secrets = sources(TOKEN="s3cr3t").secrets(["https://u:${TOKEN}@x.org"])
    assert redact("GET https://u:s3cr3t@x.org/a and s3cr3t", secrets) == "GET https://****@x.org/a and ${TOKEN}"
    assert redact("https://x.org/t/abc-123/channel 'http://a@b'") == "https://x.org/t/****/channel 'http://****@b'"
    assert redact("mail me@x.org, see https://x.org/a@b") == "mail me@x.org, see https://x.org/a@b"
    assert "s3cr3t" not in repr(sources(TOKEN="s3cr3t"))


def target(subdir: str = "linux-64", glibc: str = "2.36", cuda: str | None = None) -> Target:
    return Target(subdir, glibc, cuda, "/opt/fngw/env", "/usr/bin/python3")


@pytest.mark.parametrize(("glibc", "tag"), [("2.36", "2_36"), ("2.17", "2_17"), ("2.30", "2_28"), ("2.99", "2_40")])
def test_the_newest_manylinux_that_runs(glibc: str, tag: str) -> None:
    assert target(glibc=glibc).uv_platform == f"x86_64-manylinux_{tag}"


def test_the_virtual_packages() -> None:
    assert ("__cuda", "12.4", "0") in target(cuda="12.4").virtual_packages
    names = [name for name, _, _ in target(subdir="linux-aarch64").virtual_packages]
    assert names == ["__unix", "__linux", "__glibc", "__archspec"]
    assert ("__archspec", "1", "aarch64") in target(subdir="linux-aarch64").virtual_packages


@pytest.mark.parametrize("values", [{"subdir": "win-64"}, {"glibc": "2.12"}, {"glibc": "musl"}])
def test_targets_that_nothing_is_made_for(values: dict[str, str]) -> None:
    with pytest.raises(BuildFailed) as caught:
        target(**values)
    assert caught.value.code == "target_unknown"
