"""The model card (``README.md``) of a converted model, from a template and the facts of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from voxmlx.checkpoints.mistral import REALTIME
from voxmlx.checkpoints.safetensors import output_error
from voxmlx.quantization.modes import MODES
from voxmlx.version import __version__
from voxmlx_convert.plan import Plan
from voxmlx_convert.verify import Verification

CARD_FILE = "README.md"

_KINDS = {REALTIME: "Live and offline speech to text", "voxtral": "Speech to text and audio chat"}

_TEMPLATE = Path(__file__).with_name("model_card.md")
_DELAYS = Path(__file__).with_name("model_card_delays.md")
_REPO = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        source: Folder or repository the model was converted from.
        name: Repository or folder of the result.
        command: Command line that made it.
        plan: Sizes and settings.
        verification: Comparison with the source, if there was one.
    """

    source: str
    name: str
    command: str
    plan: Plan
    verification: Verification | None = None


def render_card(facts: CardFacts) -> str:
    """The text of a model card."""
    is_repo = _REPO.match(facts.source) is not None and not Path(facts.source).exists()
    quantized = any(module.wanted is not None for module in facts.plan.modules)
    model_type = facts.plan.config_values["model_type"]
    relation = "base_model_relation: quantized\n" if quantized else ""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        base_model=f"base_model: {facts.source}\n{relation}" if is_repo else "",
        name=facts.name,
        source=f"[`{facts.source}`](https://huggingface.co/{facts.source})"
        if is_repo
        else f"`{Path(facts.source).name}`",
        version=__version__,
        command=facts.command,
        sizes=size_table(facts.plan),
        kind=_KINDS[model_type],
        readers=" mlx-audio reads this folder as well." if _is_plain(facts.plan) else "",
        delays=_DELAYS.read_text(encoding="utf-8") if model_type == REALTIME else "",
        verification="" if facts.verification is None else _verification(facts.verification),
    )


def _is_plain(plan: Plan) -> bool:
    """Whether every matrix is packed in a way that MLX itself has."""
    modes = {module.wanted.mode for module in plan.modules if module.wanted is not None}
    return all(mode in MODES and MODES[mode].native == mode for mode in modes)


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write a model card into a folder.

    Raises:
        OutputError: If the disk is full or fails.
    """
    path = folder / CARD_FILE
    try:
        path.write_text(render_card(facts), encoding="utf-8")
    except OSError as error:
        raise output_error(path, error) from error


def size_table(plan: Plan) -> str:
    """Sizes by part as a Markdown table."""
    lines = ["| part | weights | stored as | GB | bits/weight |", "|---|---|---|---|---|"]
    for row in (*plan.parts, plan.total):
        lines.append(
            f"| {row.part} | {row.n_weights:,} | {row.settings} | {row.nbytes / 1e9:.3f} | "
            f"{row.bits_per_weight:.2f} |"
        )
    return "\n".join(lines)


def _verification(v: Verification) -> str:
    return f"""
## Checked against the source

On one piece of audio ({v.n_tokens} tokens of 80 ms), both models scoring the tokens of the source:

| | |
|---|---|
| largest logit error | {v.max_error:.3g} (standard deviation of the logits: {v.logit_std:.3g}) |
| mean logit error | {v.mean_error:.3g} |
| mean KL divergence | {v.mean_kl:.3g} nats |
| same likeliest token | {v.agreement:.2%} |
| same token, each running by itself | {v.free_agreement:.2%} |
"""
