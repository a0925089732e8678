"""How a controller in a container learns where its directories lie on the engine's host."""

from __future__ import annotations

from pathlib import Path

import pytest

from fngw_controller.engines._own_container import find_host_paths, host_paths, own_id
from fngw_controller.engines.base import EngineError

ID = "4f" * 32
OUTSIDE = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
MOUNTINFO = (
    "541 498 0:46 / / ro,relatime - overlay overlay rw,lowerdir=/l\n"
    "553 541 254:1 /docker/volumes/p_run/_data /run/fngw rw - ext4 /dev/vda1 rw\n"
    f"555 541 254:1 /docker/containers/{ID}/resolv.conf /etc/resolv.conf ro - ext4 /dev/vda1 rw\n"
    f"556 541 254:1 /docker/containers/{ID}/hostname /etc/hostname ro - ext4 /dev/vda1 rw\n"
)
INSPECTED = {
    "Mounts": [
        {"Type": "volume", "Source": "/docker/volumes/p_run/_data", "Destination": "/run/fngw"},
        {"Type": "volume", "Source": "/docker/volumes/p_shared/_data", "Destination": "/run/fngw/shared"},
        {"Type": "bind", "Source": "/srv/fngw", "Destination": "/data"},
        {"Type": "tmpfs", "Source": "", "Destination": "/tmp"},
    ]
}


def test_the_kernel_tells_which_container_this_is() -> None:
    assert own_id(MOUNTINFO) == ID
    assert own_id(OUTSIDE) is None


async def test_outside_of_containers_nothing_is_translated(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(OUTSIDE)
    assert await find_host_paths([tmp_path], mountinfo) == {}
    assert await find_host_paths([tmp_path], tmp_path / "macos-has-none") == {}


def test_each_directory_is_found_on_its_innermost_mount() -> None:
    asked = [Path("/data/fngw"), Path("/run/fngw"), Path("/run/fngw/shared")]
    assert [str(host_paths(INSPECTED, asked)[path]) for path in asked] == [
        "/srv/fngw/fngw",
        "/docker/volumes/p_run/_data",
        "/docker/volumes/p_shared/_data",
    ]


@pytest.mark.parametrize("directory", ["/var/lib/fngw", "/tmp/run"])
def test_a_directory_in_the_container_alone_is_refused(directory: str) -> None:
    with pytest.raises(EngineError, match=directory) as caught:
        host_paths(INSPECTED, [Path(directory)])
    assert caught.value.code == "directory_not_mounted"
    assert "FNGW_RUN_DIR" in caught.value.hint
