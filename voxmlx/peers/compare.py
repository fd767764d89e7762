"""This program and others in turn, on the same weights and the same audio.

The others get the weights unpacked, in this program's type: they differ in what they can pack.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from voxmlx.checkpoints.hf import HF_REALTIME, write_config
from voxmlx.checkpoints.layout import Layout
from voxmlx.checkpoints.old_voxmlx import OLD_VOXMLX_REALTIME
from voxmlx.checkpoints.safetensors import LazyTensor, TensorSpec
from voxmlx.checkpoints.save import save_model, single, write_checkpoint, write_json
from voxmlx.config import ModelConfig
from voxmlx.errors import VoxmlxError
from voxmlx.generation.prompt import delay_tokens, right_padding, streaming_prompt
from voxmlx.models.fuse import unpacked_weight
from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.tokenizer import Tokenizer

PROGRAMS = ("old-voxmlx", "mlx-audio", "transformers")
"""Names of the other programs: voxmlx 0.0.2, mlx-audio and Transformers."""

PROMPT_FILE = "prompt.json"
"""What Transformers' caller must know: the prompt and the silence around the audio."""

WORKER = Path(__file__).with_name("worker.py")

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """Times of one program on one recording.

    Attributes:
        program: Its name; ``voxmlx`` is this one.
        wall_s: Shortest wall clock of the turns.
        cpu_s: Shortest processor time of the turns, all cores together.
        times: How many times longer than this program it took, in processor time.
        same_ids: Share of this program's ids that are also its own, place by place.
    """

    program: str
    wall_s: float
    cpu_s: float
    times: float
    same_ids: float


def unpacked(model: VoxtralRealtime) -> VoxtralRealtime:
    """The same network with plain weights in its own type."""
    config = dataclasses.replace(model.config, quantization=None)
    plain = VoxtralRealtime(config)
    weights = {}
    modules = dict(model.named_modules())
    parameters: Any = tree_flatten(model.parameters())
    for name, array in parameters:
        path, _, leaf = name.rpartition(".")
        if "scales" in modules[path] and leaf in ("scales", "biases"):
            continue
        if "scales" in modules[path] and leaf == "weight":
            array = unpacked_weight(modules[path])
        weights[name] = array.astype(model.dtype)
    plain.load_weights(list(weights.items()))
    mx.eval(plain.parameters())
    return plain


def write_folder(
    program: str, model: VoxtralRealtime, tokenizer: Path, delay_ms: int, folder: Path
) -> None:
    """Write a network with plain weights as a program reads it."""
    if program == "mlx-audio":
        save_model(model, model.config, folder)
    elif program == "transformers":
        values = write_config(model.config) | {"dtype": str(model.dtype).rpartition(".")[2]}
        _write_layout(HF_REALTIME, model, values, folder)
        write_json(folder / PROMPT_FILE, prompt_values(model.config, tokenizer, delay_ms))
    else:
        values = old_values(model.config, tokenizer, delay_ms)
        _write_layout(OLD_VOXMLX_REALTIME, model, values, folder)
    shutil.copy(tokenizer, folder / "tekken.json")


def _write_layout(
    layout: Layout, model: VoxtralRealtime, values: Mapping[str, Any], folder: Path
) -> None:
    folder.mkdir(parents=True)
    groups = []
    parameters: Any = tree_flatten(model.parameters())
    for name, array in parameters:
        spec = TensorSpec(name, tuple(array.shape), array.dtype)
        tensor = LazyTensor(spec, folder, partial(_same, array))
        groups.append(single(layout.to_external(tensor, model.config)))
    write_checkpoint(folder, groups, values)


def prompt_values(config: ModelConfig, tokenizer: Path, delay_ms: int) -> dict[str, Any]:
    """The prompt, and samples of silence before and after whole positions of audio."""
    ids = Tokenizer.from_file(tokenizer)
    n_delay, n_left = delay_tokens(delay_ms, config.audio), config.n_left_pad_tokens
    size = config.audio.samples_per_token
    return {
        "prompt": streaming_prompt(ids.bos_id, ids.pad_id, n_left, n_delay),
        "n_delay": n_delay,
        "eos": ids.eos_id,
        "position": size,
        "left": n_left * size,
        "right": right_padding(0, n_delay, size),
    }


def old_values(config: ModelConfig, tokenizer: Path, delay_ms: int) -> dict[str, Any]:
    """What voxmlx 0.0.2 reads of ``config.json``, and what its caller must tell it."""
    encoder, decoder = config.encoder, config.decoder
    names = ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim", "rope_theta", "sliding_window")
    encoder_args = {name: getattr(encoder, name) for name in names}
    encoder_args["audio_encoding_args"] = {"num_mel_bins": config.audio.n_mels}
    downsampling = {"downsample_factor": config.downsample_factor}
    model_args = {"encoder_args": encoder_args, "downsample_args": downsampling}
    ids = Tokenizer.from_file(tokenizer)
    return {
        **{name: getattr(decoder, name) for name in names},
        "n_kv_heads": decoder.n_kv_heads,
        "vocab_size": decoder.vocab_size,
        "ada_rms_norm_t_cond_dim": decoder.ada_dim,
        "multimodal": {"whisper_model_args": model_args},
        **{"bos": ids.bos_id, "eos": ids.eos_id, "pad": ids.pad_id},
        "n_left_pad": config.n_left_pad_tokens,
        "n_delay": delay_tokens(delay_ms, config.audio),
    }


def compare(
    model: VoxtralRealtime,
    tokenizer: Path,
    run: Callable[[Samples], Sequence[int]],
    clips: Mapping[str, Samples],
    pythons: Mapping[str, str],
    *,
    delay_ms: int = 480,
    turns: int = 2,
) -> Iterator[tuple[str, list[Comparison]]]:
    """Run all programs in turn.

    Args:
        model: This program's network before it is laid out for use, for its weights.
        tokenizer: The tokenizer's file.
        run: This program: samples to ids.
        clips: Recordings by name, 16 kHz.
        pythons: The Python of each other program's environment, by name (:data:`PROGRAMS`).
        delay_ms: The delay of all.
        turns: Runs of each program; the shortest counts.

    Yields:
        A recording's name and the programs' times on it.

    Raises:
        VoxmlxError: If a program cannot be run.
        ValueError: If a program is not known.
    """
    unknown = sorted(set(pythons) - set(PROGRAMS))
    if unknown:
        raise ValueError(f"peers must be of {', '.join(PROGRAMS)}, got {', '.join(unknown)}")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = unpacked(model)
        programs: dict[str, Callable[[Path], dict[str, Any]]] = {"voxmlx": partial(_own, run)}
        for name, python in pythons.items():
            write_folder(name, plain, tokenizer, delay_ms, root / name)
            programs[name] = stack.enter_context(_worker(name, python, root / name))
        for title, samples in clips.items():
            clip = root / "clip.npy"
            np.save(clip, samples)
            answers = {name: [program(clip)] for name, program in programs.items()}
            for _ in range(turns - 1):
                for name, program in programs.items():
                    answers[name].append(program(clip))
            yield title, _comparisons(answers)


def _comparisons(answers: Mapping[str, list[dict[str, Any]]]) -> list[Comparison]:
    best = {n: min(a["cpu_s"] for a in found) for n, found in answers.items()}
    ours = answers["voxmlx"][0]["ids"]
    return [
        Comparison(
            name,
            min(answer["wall_s"] for answer in found),
            best[name],
            best[name] / best["voxmlx"],
            sum(a == b for a, b in zip(ours, found[0]["ids"], strict=False)) / max(1, len(ours)),
        )
        for name, found in answers.items()
    ]


def _own(run: Callable[[Samples], Sequence[int]], clip: Path) -> dict[str, Any]:
    samples = np.load(clip)
    started, used = time.perf_counter(), time.process_time()
    ids = run(samples)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - used
    return {"wall_s": wall_s, "cpu_s": cpu_s, "ids": list(ids)}


@contextmanager
def _worker(name: str, python: str, folder: Path) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """A program that answers, in a process of its own."""
    log = folder / "log.txt"
    try:
        with log.open("w") as errors:
            process = subprocess.Popen(
                [python, "-I", str(WORKER), name, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
    except OSError as error:
        raise VoxmlxError(f"{name}: cannot run {python}: {error.strerror}") from error
    with process:
        questions, answers = process.stdin, process.stdout
        if questions is None or answers is None:
            raise RuntimeError("a process without pipes")

        def ask(clip: Path | None) -> dict[str, Any]:
            if clip is not None:
                print(clip, file=questions, flush=True)
            line = answers.readline()
            if not line:
                reason = " ".join(log.read_text().strip().splitlines()[-1:])
                raise VoxmlxError(f"{name}: {python} ended: {reason or 'it said nothing'}")
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            ask(None)
            yield ask
        finally:
            process.terminate()


def _same(array: mx.array) -> mx.array:
    return array
