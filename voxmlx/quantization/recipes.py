"""Which module of a model is quantised how: one setting for each part, by name or by flag.

Modules are known by their path in :mod:`voxmlx.models`. Norms, convolutions and the delay
conditioning are never quantised: they are under 0.3% of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from voxmlx.config import QuantizationConfig
from voxmlx.quantization import hlwq
from voxmlx.quantization.modes import MODES, ROTATED, can_pack, make_quantization

PARTS = ("encoder", "adapter", "embedding", "decoder", "head")


def part_of(path: str) -> str:
    """The part that a module belongs to."""
    if path == "decoder.embed_tokens":
        return "embedding"
    if path == "decoder.lm_head":
        return "head"
    return path.partition(".")[0]


def is_quantizable(path: str) -> bool:
    """Whether a module may be quantised at all."""
    return "norm" not in path and ".conv" not in path


@dataclass(frozen=True)
class Recipe:
    """A setting for each part.

    Attributes:
        parts: Setting of a part; ``None``, or no entry, leaves it in floating point.
        chosen: Parts that were set one by one.
    """

    parts: Mapping[str, QuantizationConfig | None]
    chosen: frozenset[str] = frozenset()

    def __call__(self, path: str, shape: tuple[int, ...]) -> QuantizationConfig | None:
        """The setting for a module's ``(out, in)`` weight; ``None`` leaves it in floating point."""
        setting = self.parts.get(part_of(path)) if is_quantizable(path) else None
        if setting is not None and setting.mode == ROTATED and not can_pack(shape, setting):
            setting = replace(setting, mode="affine")
        return setting if setting is not None and can_pack(shape, setting) else None

    def replaced(self, **parts: QuantizationConfig | None) -> Recipe:
        """The same recipe with other settings for some parts."""
        return Recipe({**self.parts, **parts}, self.chosen | set(parts))

    def sparing(self, parts: frozenset[str]) -> Recipe:
        """The same recipe with some parts in floating point, unless they were set one by one."""
        return Recipe({**self.parts, **dict.fromkeys(parts - self.chosen)}, self.chosen)

    def rotated(self) -> Recipe:
        """The same recipe with the inputs of affine matrices rotated where blocks fit.

        Raises:
            ValueError: If it has no affine matrices.
        """
        parts = {
            part: replace(s, mode=ROTATED) if s is not None and s.mode == "affine" else s
            for part, s in self.parts.items()
        }
        if parts == self.parts:
            raise ValueError("only affine matrices can be rotated, and there are none")
        return Recipe(parts, self.chosen)


def uniform(setting: QuantizationConfig) -> Recipe:
    """One setting for every part."""
    return Recipe(dict.fromkeys(PARTS, setting))


def _mixed(decoder: int, encoder: int, embedding: int, group_size: int = 64) -> Recipe:
    rows = {
        "decoder": decoder,
        "encoder": encoder,
        "adapter": encoder,
        "embedding": embedding,
        "head": embedding,
    }
    return Recipe(
        {part: make_quantization("affine", bits, group_size) for part, bits in rows.items()}
    )


RECIPES = {
    "int8": uniform(make_quantization(bits=8)),
    "int6": uniform(make_quantization(bits=6)),
    "int5": uniform(make_quantization(bits=5)),
    "int4": uniform(make_quantization(bits=4)),
    "mixed-4-6": _mixed(decoder=4, encoder=6, embedding=6),
    "mixed-4-8": _mixed(decoder=4, encoder=8, embedding=6),
    "mxfp4": uniform(make_quantization("mxfp4")),
    "nvfp4": uniform(make_quantization("nvfp4")),
    "mxfp8": uniform(make_quantization("mxfp8")),
}
"""Recipes by name.

``mixed-D-E``: D bits in the decoder, E in encoder and adapter, 6 in the embedding.
"""


def hlwq_recipe(bits: int) -> Recipe:
    """HLWQ codes for every matrix but the embedding, as published files have it.

    Raises:
        ValueError: If there is no such packing.
    """
    setting = hlwq.make_setting(bits)
    return Recipe({part: setting for part in PARTS if part != "embedding"})


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def parse_setting(text: str) -> QuantizationConfig | None:
    """A part's setting as written on a command line: ``none``, ``8``, ``8/32`` or ``mxfp8``.

    Raises:
        ValueError: If it is none of these or MLX has no such format.
    """
    if text == "none":
        return None
    if text in MODES:
        return make_quantization(text)
    bits, _, group_size = text.partition("/")
    try:
        numbers = int(bits), int(group_size) if group_size else None
    except ValueError:
        raise ValueError(
            "expected none, a number of bits such as 8, bits and group size such as 8/32, or one "
            f"of {', '.join(m for m in MODES if m != 'affine')}, got {text!r}"
        ) from None
    return make_quantization("affine", *numbers)
