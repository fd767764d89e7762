"""Running a conversion: source in, folder out, one tensor in memory at a time.

Command line and printing are in :mod:`voxmlx_convert.cli`.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxmlx.checkpoints.checkpoint import Checkpoint, open_checkpoint
from voxmlx.checkpoints.files import TOKENIZER_FILE
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.safetensors import output_error
from voxmlx.checkpoints.save import (
    TensorGroup,
    derived_groups,
    published_layout,
    write_checkpoint,
    write_json,
)
from voxmlx.errors import TokenizerError
from voxmlx.quantization.recipes import Recipe
from voxmlx_convert.calibration.fit import Calibration, Calibrator
from voxmlx_convert.model_card import CardFacts, write_card
from voxmlx_convert.output import check_space, check_target, new_folder
from voxmlx_convert.plan import Chooser, Plan, make_plan
from voxmlx_convert.report import write_report
from voxmlx_convert.verify import Verification, verify_conversion

HLWQ_CONFIG_FILE = "polar_config.json"
"""Where readers of HLWQ look for the packing's numbers."""


@dataclass(frozen=True)
class Budget:
    """A size for all tensors together, and how matrices are packed to reach it."""

    n_bytes: int
    mode: str = "affine"
    group_size: int = 64


@dataclass(frozen=True)
class Options:
    """What to convert to.

    Attributes:
        dtype: Type of the floating-point tensors; ``None`` keeps the source's.
        recipe: Which modules to quantise how; ``None`` keeps what the source has.
        dequantize: Bring quantised modules of the source back to floating point.
        revision: Branch, tag or commit of the source repository.
        overwrite: Replace a target folder that exists.
        verify_audio: Samples, ``(n,)`` float32 at 16 kHz, to compare source and result on.
        calibration: Recordings to fit packed weights to.
        budget: Size to reach by choosing bits for each matrix, in place of a recipe.
        report: Write a page on sizes and errors into the folder.
        command: The command line, for the model card.
        repo: Name of the repository that the result goes to, for the model card.
    """

    dtype: mx.Dtype | None = None
    recipe: Chooser | None = None
    dequantize: bool = False
    revision: str | None = None
    overwrite: bool = False
    verify_audio: np.ndarray | None = None
    calibration: Calibration | None = None
    budget: Budget | None = None
    report: bool = False
    command: str = "voxmlx-convert"
    repo: str | None = None


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    ``peak_bytes`` is the largest resident size of the process so far.
    """

    folder: Path
    plan: Plan
    seconds: float
    peak_bytes: int
    verification: Verification | None


def convert(
    source: str,
    target: Path,
    options: Options,
    on_start: Callable[[Plan], None] = lambda plan: None,
    on_group: Callable[[TensorGroup], None] = lambda group: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Conversion:
    """Convert a folder or repository in any known layout into a new folder.

    Args:
        source: Folder or repository.
        target: The new folder.
        options: What to convert to.
        on_start: Called when it is known what will be written.
        on_group: Called after each tensor or packed matrix, for progress.
        on_step: Called after each step of a calibration with its name.

    Raises:
        HubError: If the source repository cannot be had.
        CheckpointError: If the source is broken.
        OutputError: If the target exists, or the disk is full.
    """
    check_target(target, options.overwrite)
    checkpoint = open_checkpoint(resolve(source, options.revision))
    if not checkpoint.tokenizer_path.is_file():
        raise TokenizerError(f"{checkpoint.tokenizer_path}: missing; the result needs it")
    recipe = options.recipe
    if isinstance(recipe, Recipe):
        recipe = recipe.sparing(published_layout(checkpoint.config).plain_parts)
    plan = _plan(checkpoint, recipe, options, on_step)
    check_space(target, plan.total.nbytes)
    on_start(plan)
    with new_folder(target, options.overwrite) as folder:
        started = time.perf_counter()
        _copy(checkpoint.tokenizer_path, folder / TOKENIZER_FILE)
        groups = [module.group for module in plan.modules] + derived_groups(checkpoint.config)
        if plan.hlwq is not None:
            write_json(folder / HLWQ_CONFIG_FILE, plan.hlwq)
        write_checkpoint(folder, groups, plan.config_values, on_group=on_group)
        seconds, peak = time.perf_counter() - started, peak_memory()
        name = target.name if options.repo is None else options.repo
        if options.report:
            write_report(folder, name, checkpoint, plan)
        verification = None
        if options.verify_audio is not None:
            verification = verify_conversion(checkpoint.folder, folder, options.verify_audio)
        write_card(folder, CardFacts(source, name, options.command, plan, verification))
    return Conversion(target, plan, seconds, peak, verification)


def _plan(
    checkpoint: Checkpoint,
    recipe: Chooser | None,
    options: Options,
    on_step: Callable[[str], None],
) -> Plan:
    """The plan, with weights fitted to recordings where that is asked for."""
    if options.budget is None and options.calibration is None:
        return make_plan(checkpoint, options.dtype, recipe, options.dequantize)
    calibration = Calibration() if options.calibration is None else options.calibration
    calibrator = Calibrator(checkpoint.folder, calibration)
    if options.budget is not None:
        dtype = checkpoint.dtype if options.dtype is None else options.dtype
        budget = options.budget
        recipe = calibrator.recipe_for_size(
            budget.n_bytes, budget.mode, budget.group_size, dtype, on_step
        )
    plan = make_plan(checkpoint, options.dtype, recipe)
    if options.calibration is None:
        return plan
    fitted = calibrator.fit(plan.settings, on_step)
    return make_plan(checkpoint, options.dtype, recipe, fitted=fitted)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise output_error(target, error) from error


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
