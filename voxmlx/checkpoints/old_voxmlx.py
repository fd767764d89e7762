"""The layout of voxmlx 0.0.2, as in ``mlx-community/Voxtral-Mini-4B-Realtime-6bit``.

Its ``config.json`` holds the keys of ``params.json``. Rows and convolutions are as inside the
package.
"""

from __future__ import annotations

import re

from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.mistral import PARAMS, REALTIME
from voxmlx.checkpoints.names import NameMap

_PROJECTIONS = (
    *(f"attention.{p}" for p in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{p}" for p in ("gate_proj", "up_proj", "down_proj")),
)


def _layer_names(inside: str, outside: str) -> list[tuple[str, str]]:
    return [
        (f"{inside}.attention_norm", f"{outside}.attn_norm"),
        (f"{inside}.ffn_norm", f"{outside}.ffn_norm"),
        *((f"{inside}.{p}", f"{outside}.{p}") for p in _PROJECTIONS),
    ]


OLD_VOXMLX_REALTIME = Layout(
    name="voxmlx 0.0.2",
    model_type=REALTIME,
    mark=re.compile(r"encoder\.conv1\.|adapter\.w_in\."),
    names=NameMap(
        [
            ("encoder.conv1", "encoder.conv1"),
            ("encoder.conv2", "encoder.conv2"),
            *_layer_names("encoder.layers.{}", "encoder.layers.{}"),
            ("encoder.norm", "encoder.norm"),
            ("adapter.linear_1", "adapter.w_in"),
            ("adapter.linear_2", "adapter.w_out"),
            ("decoder.embed_tokens", "language_model.embed_tokens"),
            *_layer_names("decoder.layers.{}", "language_model.layers.{}"),
            (
                "decoder.layers.{}.ada_norm.linear_1",
                "language_model.layers.{}.ada_norm.linear_in",
            ),
            (
                "decoder.layers.{}.ada_norm.linear_2",
                "language_model.layers.{}.ada_norm.linear_out",
            ),
            ("decoder.norm", "language_model.norm"),
        ]
    ),
    config_formats=(PARAMS,),
)
