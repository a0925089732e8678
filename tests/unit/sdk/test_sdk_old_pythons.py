"""What is sent to replicas on Python 3.7, which reads no pickle protocol 5; the runtime's matrix has a real one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from fngw import calls, protocol
from fngw.pickles import pickle_arguments


@pytest.mark.parametrize(("python", "version"), [("3.7", 4), ("3.8", 5), ("3.13", 5)])
def test_constructor_arguments(python: str, version: int) -> None:
    data = pickle_arguments((np.arange(3),), {"key": 1}, python).data
    assert data[:2] == pickle.PROTO + bytes([version])
    args, kwargs = pickle.loads(data)
    assert args[0].tolist() == [0, 1, 2] and kwargs == {"key": 1}


@pytest.mark.parametrize(("version", "parts"), [(4, 2), (None, 3)])
def test_arrays_go_in_band(version: int | None, parts: int) -> None:
    frame: list[Any] = calls._encode(((np.arange(1000),), {}), version)
    assert len(frame) == parts  # the head, the pickle, and the array where it goes beside that
    assert protocol.frame_pickle_protocol(b"".join(frame)) == (version or protocol.BEST_PICKLE)
    (args, _) = protocol.decode_frame(b"".join(frame))
    assert args[0].sum() == 499500
