"""One other program, run by its own Python: recordings come in by name, times go out as JSON.

    python -I worker.py PROGRAM FOLDER

Each line of standard input names a ``.npy`` file of float32 samples at 16 kHz; each answer is one
line. This file imports nothing of the package around it, which the environment does not hold.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], list[int]]


def open_old_voxmlx(folder: Path) -> Run:
    """Run voxmlx 0.0.2; it is handed samples in place of a file."""
    program: Any = importlib.import_module("voxmlx.generate")
    config = json.loads((folder / "config.json").read_text())
    model = importlib.import_module("voxmlx.weights").load_model(str(folder))[0]
    n_delay = config["n_delay"]
    prompt = [config["bos"]] + [config["pad"]] * (config["n_left_pad"] + n_delay)

    def run(samples: Any) -> list[int]:
        program.load_audio = lambda path: samples
        ids: list[int] = program.generate(
            model,
            "",
            prompt,
            n_delay,
            eos_token_id=config["eos"],
            sliding_window=config["sliding_window"],
        )
        return ids

    return run


def open_mlx_audio(folder: Path) -> Run:
    """Run mlx-audio. It holds the decoder's width as a literal, so that is put right first."""
    import mlx.core as mx

    package = "mlx_audio.stt.models.voxtral_realtime"
    encoder: Any = importlib.import_module(f"{package}.encoder")
    program: Any = importlib.import_module(f"{package}.voxtral_realtime")
    width = json.loads((folder / "config.json").read_text())["decoder"]["dim"]
    text = inspect.getsource(encoder).replace("decoder_dim = 3072", f"decoder_dim = {width}")
    exec(compile(text, encoder.__file__, "exec"), encoder.__dict__)
    program.AudioEncoder = encoder.AudioEncoder
    model = importlib.import_module("mlx_audio.stt.utils").load(str(folder))
    found: list[int] = []

    def keep(ids: list[int]) -> str:
        found[:] = ids
        return ""

    model._tokenizer.decode = keep

    def run(samples: Any) -> list[int]:
        model.generate(mx.array(samples), max_tokens=10**9)
        return list(found)

    return run


def open_transformers(folder: Path) -> Run:
    """Run Transformers' ``generate``, on a GPU if there is one.

    It ends one position before the audio does, so it writes one token less.
    """
    torch: Any = importlib.import_module("torch")
    program: Any = importlib.import_module("transformers")
    values = json.loads((folder / "prompt.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = program.VoxtralRealtimeForConditionalGeneration.from_pretrained(folder, dtype="auto")
    model = loaded.to(device).eval()
    extract = program.VoxtralRealtimeFeatureExtractor()
    prompt = torch.tensor([values["prompt"]], device=device)

    def run(samples: Any) -> list[int]:
        right = -len(samples) % values["position"] + values["right"]
        padded = np.pad(samples, (values["left"], right))
        mel = extract(padded, sampling_rate=16000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            ids = model.generate(
                input_ids=prompt,
                input_features=mel.to(device, model.dtype),
                num_delay_tokens=values["n_delay"],
                do_sample=False,
                eos_token_id=values["eos"],
                pad_token_id=values["eos"],
            )
        found: list[int] = ids[0, prompt.shape[1] :].tolist()
        return found

    return run


PROGRAMS = {
    "old-voxmlx": open_old_voxmlx,
    "mlx-audio": open_mlx_audio,
    "transformers": open_transformers,
}


def main() -> None:
    """Answer until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what the program prints is no answer
    run = PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        samples = np.load(line.strip())
        started, used = time.perf_counter(), time.process_time()
        ids = run(samples)
        answer = {
            "wall_s": time.perf_counter() - started,
            "cpu_s": time.process_time() - used,
            "ids": ids,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
