"""The offline model beside mlx-audio on one folder: same recording, same ids, times in pairs.

    python benchmarks/offline_peer.py make FOLDER --tokenizer TEKKEN_JSON [--dim 768 --layers 4 ...]
    python benchmarks/offline_peer.py run FOLDER [--seconds 30 60] [--pairs 5] [--tokens 100]

``run`` needs both packages and one MLX. Each pair transcribes with one program and then with the
other, in turn; a ratio is mlx-audio's time over ours. mlx-audio is handed finished log-mel features
and prompt ids, since its processor needs PyTorch; our time includes both. ``make`` writes random
weights; what comes out means nothing, but costs what a text does.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.checkpoints.save import save_model
from voxmlx.config import AudioConfig, DecoderConfig, ModelConfig, WhisperEncoderConfig
from voxmlx.generation.chat_prompt import Clip, transcription_prompt
from voxmlx.generation.offline_text import TextDecoder, TextOptions
from voxmlx.models.voxtral import Voxtral
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import load
from voxmlx.tokenizer import Tokenizer

RATE = 16000
AUDIO_ID = 24
"""``[AUDIO]``, which stands for an audio embedding in mlx-audio's ids."""


def make(folder: Path, tokenizer: Path, args: argparse.Namespace) -> None:
    """Write a model with random weights."""
    config = ModelConfig(
        "voxtral",
        AudioConfig(global_log_mel_max=None),
        WhisperEncoderConfig(
            args.encoder_dim,
            args.encoder_layers,
            args.encoder_dim // 64,
            64,
            4 * args.encoder_dim,
        ),
        DecoderConfig(
            dim=args.dim,
            n_layers=args.layers,
            n_heads=args.dim // 96,
            n_kv_heads=max(1, args.dim // 384),
            head_dim=128,
            hidden_dim=args.hidden_dim,
            vocab_size=Tokenizer.from_file(tokenizer).n_vocab,
            sliding_window=None,
            rope_theta=1e8,
            tied_embeddings=False,
        ),
    )
    mx.random.seed(0)
    model = Voxtral(config)
    for module in (model.decoder.lm_head, model.decoder.embed_tokens):
        module.weight = module.weight * 8  # ids that differ
    model.set_dtype(getattr(mx, args.dtype))
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, config, folder)
    shutil.copy(tokenizer, folder / "tekken.json")


class Ours:
    """This program."""

    def __init__(self, folder: Path):
        pipeline = load(folder)
        if not isinstance(pipeline, OfflinePipeline):
            raise SystemExit(f"{folder} holds no offline model")
        self.model, self._tokenizer = pipeline.model, pipeline.tokenizer

    def prompt(self, samples: np.ndarray) -> Any:
        """The transcription prompt of a recording."""
        clip = Clip(samples, self.model.chunk_samples, self.model.chunk_tokens)
        return transcription_prompt(self._tokenizer, clip, "en")

    def run(self, samples: np.ndarray, n_tokens: int, guess: bool) -> tuple[list[int], float, str]:
        """Ids, seconds, and where they went."""
        started = time.perf_counter()
        decoder = TextDecoder(self.model, -1)
        options = TextOptions(max_tokens=n_tokens, guess=guess)
        ids = list(decoder.generate(self.prompt(samples), options))
        seconds = time.perf_counter() - started
        return (
            ids,
            seconds,
            f"mel and encoder {decoder.encode_s:.2f}, decoder {decoder.decode_s:.2f}",
        )


class Peer:
    """mlx-audio."""

    def __init__(self, folder: Path):
        voxtral: Any = importlib.import_module("mlx_audio.stt.models.voxtral.voxtral")
        load_peer: Any = importlib.import_module("mlx_audio.stt.utils").load

        class Tokens:
            eos_token_ids = (-1,)

        class Processor:
            tokenizer = Tokens()

        def post_load_hook(model: Any, path: Path) -> Any:
            model._processor = Processor()
            return model

        voxtral.Model.post_load_hook = staticmethod(post_load_hook)
        self._model = load_peer(str(folder))

    def run(self, features: mx.array, ids: list[int], n_tokens: int) -> tuple[list[int], float]:
        """Ids and seconds."""
        started = time.perf_counter()
        tokens = self._model.stream_generate(
            mx.array([ids]), input_features=features, max_tokens=n_tokens
        )
        found = [int(token) for token, _ in tokens]
        seconds = time.perf_counter() - started
        mx.clear_cache()
        return found, seconds


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Pairs of runs for each length."""
    ours, peer = Ours(folder), Peer(folder)
    rng = np.random.default_rng(0)
    for seconds in args.seconds:
        samples = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
        prompt = ours.prompt(samples)
        mel = LogMelSpectrogram(ours.model.config.audio)(prompt.clips[0].padded)
        features = mx.array(mel.reshape(-1, ours.model.chunk_frames, mel.shape[-1]))
        ids: list[int] = []
        for piece in prompt.pieces:
            ids += [AUDIO_ID] * piece.n_tokens if isinstance(piece, Clip) else list(piece)
        ratios, same = [], True
        for pair in range(args.pairs + 1):
            ours_first = pair % 2 == 0
            if not ours_first:
                theirs = peer.run(features, ids, args.tokens)
            mine = ours.run(samples, args.tokens, args.guess)
            if ours_first:
                theirs = peer.run(features, ids, args.tokens)
            same &= mine[0] == theirs[0]
            if pair:  # the first one warms up
                ratios.append(theirs[1] / mine[1])
                print(
                    f"  ours {mine[1]:6.2f} s ({mine[2]})  mlx-audio {theirs[1]:6.2f} s", flush=True
                )
        middle = float(np.median(ratios))
        print(
            f"{seconds:5.0f} s of audio, {args.tokens} tokens: ratio {middle:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}, {args.pairs} pairs), ids equal: {same}, "
            f"{len(set(mine[0]))} different",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-dim", type=int, default=2048)
    parser.add_argument("--encoder-dim", type=int, default=384)
    parser.add_argument("--encoder-layers", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 30.0, 60.0])
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--guess", action="store_true", help="let ours guess repeated text")
    args = parser.parse_args()
    if args.action == "make":
        make(args.folder, args.tokenizer, args)
    else:
        compare(args.folder, args)


if __name__ == "__main__":
    main()
