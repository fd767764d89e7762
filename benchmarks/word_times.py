"""Errors of word times against forced alignment.

    python benchmarks/word_times.py --model tiny --data RECORDINGS

PocketSphinx (``pip install pocketsphinx``) aligns each recording with its reference. Words that the
model got right are compared. Printed are the errors of ends and starts, the shift of all ends that
would make their median error 0, and the length of a word as a line through the aligned lengths:
the constants of ``voxmlx/words/grouper.py``.
"""

from __future__ import annotations

import argparse

import numpy as np
from pocketsphinx import Decoder, get_model_path

from voxmlx.audio.decode import read_audio
from voxmlx.evaluate.manifest import Utterance, read_manifest
from voxmlx.evaluate.rates import align
from voxmlx.pipeline import Pipeline, load
from voxmlx.types import Word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", required=True, help="anything that 'voxmlx eval' reads")
    parser.add_argument("--delay", type=int)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    assert isinstance(pipeline, Pipeline)
    aligner = Decoder(
        hmm=get_model_path("en-us/en-us"),
        dict=get_model_path("en-us/cmudict-en-us.dict"),
        loglevel="FATAL",
    )
    pairs: list[tuple[Word, Word]] = []
    lengths: list[tuple[int, float]] = []
    n_aligned = 0
    utterances = read_manifest(arguments.data)[: arguments.limit]
    for utterance in utterances:
        truth = forced_alignment(aligner, utterance)
        if truth is None:
            continue
        n_aligned += 1
        lengths += [(len(word.text), word.end_s - word.start_s) for word in truth]
        result = pipeline.generate(utterance.audio, transcription_delay_ms=arguments.delay)
        pairs += matching(truth, result.words)
    print(f"{n_aligned} of {len(utterances)} recordings aligned, {len(pairs)} words compared")
    report("end", [got.end_s - true.end_s for true, got in pairs])
    report("start", [got.start_s - true.start_s for true, got in pairs])
    report("length", [(got.end_s - got.start_s) - (t.end_s - t.start_s) for t, got in pairs])
    letters, seconds = map(np.array, zip(*lengths, strict=True))
    slope, base = np.polyfit(letters, seconds, 1)
    print(f"aligned lengths: {base:.3f} s + {slope:.3f} s a letter, mean {seconds.mean():.3f} s")


def report(name: str, errors: list[float]) -> None:
    """Print the distribution of an error in milliseconds."""
    values = 1000 * np.array(errors)
    low, half, high = np.percentile(values, [10, 50, 90])
    print(
        f"{name:6} error ms: median {half:+.0f}, mean {values.mean():+.0f}, "
        f"10-90 % {low:+.0f} to {high:+.0f}, mean of sizes {np.abs(values).mean():.0f}, "
        f"of sizes without the median {np.abs(values - half).mean():.0f}"
    )


def forced_alignment(aligner: Decoder, utterance: Utterance) -> list[Word] | None:
    """Words of the reference with their times; ``None`` where that fails."""
    words = utterance.text.lower().split()
    if any(aligner.lookup_word(word) is None for word in words):
        return None
    samples = read_audio(utterance.audio)
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    try:
        aligner.set_align_text(" ".join(words))
        aligner.start_utt()
        aligner.process_raw(pcm, full_utt=True)
        aligner.end_utt()
        segments = aligner.seg()
    except RuntimeError:
        return None
    if segments is None:
        return None
    found = [
        Word(segment.word.split("(")[0], segment.start_frame / 100, (segment.end_frame + 1) / 100)
        for segment in segments
        if not segment.word.startswith("<")
    ]
    return found if [word.text for word in found] == words else None


def matching(truth: list[Word], words: list[Word]) -> list[tuple[Word, Word]]:
    """Pairs of true and recognised words that are the same."""
    pairs = []
    i = j = 0
    reference = " ".join(word.text for word in truth)
    hypothesis = " ".join(word.text.lower() for word in words)
    for edit in align(reference, hypothesis):
        if edit.kind == "equal":
            n = len(edit.reference)
            pairs += list(zip(truth[i : i + n], words[j : j + n], strict=True))
        i += len(edit.reference)
        j += len(edit.hypothesis)
    return pairs


if __name__ == "__main__":
    main()
