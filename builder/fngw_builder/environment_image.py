"""The image of an environment: a layer of its packages, and one of their byte-code.

Compiling keeps the processors busy, and loading the disk. So the engine takes the packages in, as an image of their
own, while their byte-code is made; that image goes once the whole stands on the same layers.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fngw import protocol
from fngw_builder import plan as planning
from fngw_builder import tree_layer
from fngw_builder.environment.bytecode import is_bytecode, is_package
from fngw_builder.image_archive import Image
from fngw_builder.images import Images
from fngw_builder.report import Quiet, Report
from fngw_builder.tar_layer import Layer

Add = Callable[[Image, Sequence[Layer], planning.Plan, Report], Image]


def make(
    stage: Path, base: Image, plan: planning.Plan, engine: Images, report: Report, compile: Callable[[], None]
) -> Image:
    """Make the image that a plan describes, and return it as the engine has it.

    Args:
        stage: the environment, without byte-code.
        base: what it lies on.
        plan: from `plan.environment`.
        engine: has the base.
        report: gets the progress of the steps ``layer`` and ``load``.
        compile: puts the byte-code into the stage.

    Raises:
        BuildFailed: see the codes of ``images``; what ``compile`` raises.
    """
    draft = plan.draft(secrets.token_hex(4))
    with engine.for_a_while(draft), ThreadPoolExecutor(1, thread_name_prefix="packages") as beside:
        packages = beside.submit(_add, stage, base, draft, engine.put, Quiet(report), is_package)
        compile()
        return _add(stage, packages.result(), plan, engine.add, report, is_bytecode)


def _add(
    stage: Path, below: Image, plan: planning.Plan, add: Add, report: Report, wanted: Callable[[str], bool]
) -> Image:
    with tempfile.TemporaryFile(dir=stage.parent) as file:
        layer = tree_layer.write(stage, protocol.CONTAINER_ENV_DIR, file, report, wanted)
        report.say(f"{plan.parts[-1]}: {layer.diff_id}, {layer.files} files, {layer.size / 1e6:.0f} MB")
        return add(below, [layer], plan, report)
