"""Calibration as a conversion asks for it: recordings in, packed arrays or a recipe out."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from voxmlx.checkpoints.load import load_model, parameters, working_dtype
from voxmlx.config import QuantizationConfig
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.modes import PACKED, can_pack
from voxmlx.quantization.recipes import is_quantizable
from voxmlx.quantization.rotated import setting_of
from voxmlx.tokenizer import Tokenizer
from voxmlx_convert.calibration.distill import distill, reference_logits
from voxmlx_convert.calibration.layerwise import quantize_layerwise
from voxmlx_convert.calibration.samples import (
    Sample,
    find_recordings,
    make_samples,
    read_windows,
)
from voxmlx_convert.calibration.sensitivity import allocate, measure_units

METHODS = ("gptq", "distill", "both")
"""``gptq`` goes stage by stage in bounded memory; the others hold the whole network."""

EXAMPLES = "examples"
"""Stands for the recordings inside the package."""

Fitted = Mapping[str, Mapping[str, mx.array]]
"""Packed arrays by module path and name."""


@dataclass(frozen=True)
class Calibration:
    """What to calibrate on, and how.

    Attributes:
        recordings: Files, folders, or ``examples``.
        seconds: Audio to use.
        method: One of :data:`METHODS`.
    """

    recordings: tuple[str, ...] = (EXAMPLES,)
    seconds: float = 120.0
    method: str = "gptq"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not self.seconds > 0:
            raise ValueError(f"calibration seconds must be more than 0, got {self.seconds!r}")

    def files(self) -> list[Path]:
        """The recordings themselves.

        Raises:
            ValueError: If there are none.
        """
        assets = Path(str(importlib.resources.files("voxmlx"))) / "assets"
        paths = [assets if name == EXAMPLES else Path(name) for name in self.recordings]
        found = find_recordings(paths)
        if not found:
            raise ValueError(f"no recordings in {', '.join(self.recordings)}; name audio files")
        return found


class Calibrator:
    """A float model with its calibration samples.

    Args:
        folder: The source.
        calibration: What to calibrate on.

    Raises:
        CheckpointError: If the folder holds no model that can be loaded.
        AudioError: If a recording cannot be read.
        ValueError: If the model is not a realtime model in floating point.
    """

    def __init__(self, folder: Path, calibration: Calibration):
        self._calibration = calibration
        loaded = load_model(folder, working_dtype())
        packed = [p for p, m in loaded.model.named_modules() if setting_of(m) is not None]
        if not isinstance(loaded.model, VoxtralRealtime) or packed:
            kind = "quantised" if packed else loaded.config.model_type
            raise ValueError(
                f"calibration needs a realtime model in floating point, {folder} is {kind}"
            )
        self.model: VoxtralRealtime = loaded.model
        tokenizer = Tokenizer.from_file(loaded.tokenizer_path)
        windows = read_windows(calibration.files(), calibration.seconds)
        self.samples: list[Sample] = make_samples(self.model, tokenizer, windows)

    def fit(
        self,
        settings: Mapping[str, QuantizationConfig],
        on_step: Callable[[str], None] = lambda step: None,
    ) -> Fitted:
        """Pack modules for what they compute on the samples; the model is used up.

        Args:
            settings: By module path.
            on_step: Called after each stage or step with a description.
        """
        method = self._calibration.method
        references = [] if method == "gptq" else reference_logits(self.model, self.samples)
        quantize_layerwise(
            self.model, self.samples, settings, gptq=method != "distill", on_stage=on_step
        )
        if references:
            distill(
                self.model,
                self.samples,
                references,
                on_step=lambda i, loss: on_step(f"step {i + 1}: divergence {loss:.4g}"),
            )
        found = parameters(self.model)
        return {
            path: {name: found[f"{path}.{name}"] for name in PACKED if f"{path}.{name}" in found}
            for path in settings
        }

    def recipe_for_size(
        self,
        n_bytes: int,
        mode: str,
        group_size: int,
        dtype: mx.Dtype,
        on_unit: Callable[[str], None] = lambda path: None,
    ) -> PathRecipe:
        """Bits for each matrix so that the model's tensors take at most ``n_bytes``.

        Raises:
            ValueError: If even the fewest bits do not fit.
        """
        units = measure_units(self.model, self.samples[:4], mode, group_size, dtype, on_unit)
        inside = {path for unit in units for path in unit.paths}
        fixed = sum(
            array.size * dtype.size
            for name, array in parameters(self.model).items()
            if name.removesuffix(".weight") not in inside
        )
        bits = allocate(units, n_bytes - fixed)
        return PathRecipe(
            {path: QuantizationConfig(b, group_size, mode) for path, b in bits.items()}
        )


@dataclass(frozen=True)
class PathRecipe:
    """A setting for each module by its path; the others stay in floating point."""

    settings: Mapping[str, QuantizationConfig]

    def __call__(self, path: str, shape: tuple[int, ...]) -> QuantizationConfig | None:
        """The setting for a module's ``(out, in)`` weight."""
        setting = self.settings.get(path) if is_quantizable(path) else None
        return setting if setting is not None and can_pack(shape, setting) else None
