"""Bundles: what is in them lands under their root, the same each time; what would leave it is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from fngw.errors import BuildFailed
from fngw_builder import code_layer, local
from fngw_builder.bundle import locate
from fngw_builder.report import Throttled
from fngw_builder.settings import BuilderSettings
from fngw_state.layout import Layout
from fngw_state.records import BuildRequest

FILES = [
    ("main.py", b"print(1)\n"),
    ("package", None),
    ("package/__init__.py", b""),
    ("data/ünï/täble.csv", b"1;2\n" * 100_000),
]


def layer_of(layout: Layout, digest: str, target: str = "/srv/fngw/app") -> code_layer.Layer:
    return code_layer.write(locate(layout, digest), target, io.BytesIO())


def content(layer: code_layer.Layer) -> bytes:
    layer.file.seek(0)
    return layer.file.read()


def entries(layer: code_layer.Layer) -> dict[str, tarfile.TarInfo]:
    layer.file.seek(0)
    with tarfile.open(fileobj=layer.file) as tar:
        return {info.name: info for info in tar}


def code_of(layout: Layout, digest: str) -> str:
    """The error's code; a layer and a folder must agree on it."""
    codes = []
    for make in (lambda: layer_of(layout, digest), lambda: local.unpack(layout, digest)):
        with pytest.raises(BuildFailed) as caught:
            make()
        assert caught.value.hint
        codes.append(caught.value.code)
    assert codes[0] == codes[1]
    assert list(layout.code.iterdir()) == []
    return codes[0]


def test_a_layer_holds_the_bundle_under_its_target(layout: Layout, bundle: Any) -> None:
    layer = layer_of(layout, bundle(*FILES))
    assert list(entries(layer)) == [
        "srv",
        "srv/fngw",
        "srv/fngw/app",
        "srv/fngw/app/main.py",
        "srv/fngw/app/package",
        "srv/fngw/app/package/__init__.py",
        "srv/fngw/app/data",
        "srv/fngw/app/data/ünï",
        "srv/fngw/app/data/ünï/täble.csv",
    ]
    assert layer.files == 3
    assert layer.size == len(content(layer))


def test_the_same_bundle_is_the_same_layer(layout: Layout, bundle: Any) -> None:
    first, second = (layer_of(layout, bundle(*FILES)) for _ in range(2))
    assert content(first) == content(second)
    assert first.diff_id == second.diff_id


def test_owners_times_and_odd_modes_stay_behind(layout: Layout, bundle: Any) -> None:
    strange = tarfile.TarInfo("tool")
    strange.mode, strange.uid, strange.uname, strange.mtime = 0o6711, 1000, "ada", 1.7e9
    plain = tarfile.TarInfo("tool")
    plain.mode = 0o755
    assert layer_of(layout, bundle(strange)).diff_id == layer_of(layout, bundle(plain)).diff_id


def test_links_that_stay_inside_are_kept(layout: Layout, bundle: Any, linked: Any) -> None:
    digest = bundle(("a/b.py", b"x = 1\n"), linked("a/c.py", "b.py"), linked("up", "a/../a/b.py"))
    found = entries(layer_of(layout, digest))
    assert found["srv/fngw/app/a/c.py"].linkname == "b.py"
    folder, _ = local.unpack(layout, digest)
    assert (folder / "a/c.py").read_bytes() == (folder / "up").read_bytes() == b"x = 1\n"


def test_an_empty_bundle_is_an_empty_folder(layout: Layout, bundle: Any) -> None:
    digest = bundle()
    assert list(entries(layer_of(layout, digest))) == ["srv", "srv/fngw", "srv/fngw/app"]
    assert list(local.unpack(layout, digest)[0].iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", ".wh.main.py", "a/.wh..wh..opq"])
def test_names_that_leave_the_root_or_remove_files_are_refused(layout: Layout, bundle: Any, name: str) -> None:
    assert code_of(layout, bundle(("ok.py", b""), (name, b"x"))) == "bad_bundle"


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", ".."])
def test_links_that_leave_the_root_are_refused(layout: Layout, bundle: Any, linked: Any, target: str) -> None:
    assert code_of(layout, bundle(linked("link", target))) == "bad_bundle"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE])
def test_devices_pipes_and_hard_links_are_refused(layout: Layout, bundle: Any, of_kind: Any, kind: bytes) -> None:
    assert code_of(layout, bundle(of_kind("odd", kind))) == "bad_bundle"


def test_a_file_may_not_lie_under_a_link(layout: Layout, bundle: Any, linked: Any) -> None:
    assert code_of(layout, bundle(("a", None), linked("b", "a"), ("b/x.py", b""))) == "bad_bundle"


def test_a_file_may_not_come_twice(layout: Layout, bundle: Any) -> None:
    assert code_of(layout, bundle(("a.py", b"1"), ("./a.py", b"2"))) == "bad_bundle"


@pytest.mark.parametrize("cut", [100, 700])
def test_a_broken_archive_is_refused(layout: Layout, store: Any, bundle: Any, cut: int) -> None:
    whole = layout.blob(bundle(("a.py", b"x" * 5000))).read_bytes()
    assert code_of(layout, store(whole[:cut])) == "bad_bundle"
    assert code_of(layout, store(gzip.compress(os.urandom(9000))[:-cut])) == "bad_bundle"


def test_a_bundle_that_is_not_there(layout: Layout) -> None:
    assert code_of(layout, "sha256:" + "0" * 64) == "bundle_missing"


def test_a_bundle_with_another_content_than_its_name_says(layout: Layout, bundle: Any) -> None:
    digest = bundle(*FILES)
    with layout.blob(digest).open("ab") as file:
        file.write(b"!")
    assert code_of(layout, digest) == "bundle_corrupt"


def test_unpacked_once_read_only_and_complete(layout: Layout, bundle: Any) -> None:
    digest = bundle(*FILES)
    folder, reused = local.unpack(layout, digest)
    assert not reused
    assert local.unpack(layout, digest) == (folder, True)
    assert (folder / "main.py").read_bytes() == b"print(1)\n"
    assert (folder / "main.py").stat().st_mode & 0o777 == 0o444
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in layout.code.iterdir()] == [digest.partition(":")[2]]


def test_what_a_killed_builder_left_is_removed(layout: Layout, bundle: Any) -> None:
    old, young = layout.code / ".part-old", layout.code / ".part-young"
    for path in (old, young):
        path.mkdir()
    hours_ago = time.time() - 2 * local.ABANDONED_AFTER_S
    os.utime(old, (hours_ago, hours_ago))
    published = layout.code / ".part-published"
    published.symlink_to("elsewhere")  # another builder renamed it after this one had listed it
    local.unpack(layout, bundle(*FILES))
    assert not old.exists()
    assert young.exists()


def test_a_local_artifact(layout: Layout, bundle: Any) -> None:
    digest = bundle(*FILES)
    settings = BuilderSettings(data_dir=layout.data, run_dir=layout.run)
    request = BuildRequest("process", local.own_version(), digest)
    artifact = local.make(request, settings, Throttled(print, print)).artifact
    name = digest.partition(":")[2]
    assert artifact.image == f"local:{name[:16]}"
    assert artifact.app_dir == str(layout.code / name)
    assert Path(artifact.python).exists()


@pytest.mark.parametrize("body", [None, "#!/bin/sh\necho 'no module named starlette' >&2\nexit 1\n"])
def test_a_python_that_cannot_serve(tmp_path: Path, monkeypatch: Any, body: str | None) -> None:
    if body:
        path = tmp_path / "python3.99"
        path.write_text(body)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed) as caught:
        local.interpreter("3.99")
    assert caught.value.code == "python_missing"
    assert ("starlette" in caught.value.detail) == bool(body)
    assert f'python="{local.own_version()}"' in caught.value.hint


def test_a_python_on_the_path(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "python3.99"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.interpreter("3.99") == str(path)
