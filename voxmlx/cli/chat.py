"""``voxmlx chat``: questions about recordings, answered by an offline model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.cli.common import (
    DTypeOption,
    KVBitsOption,
    KVRotation,
    KVRotationOption,
    ModelOption,
    RevisionOption,
    TemperatureOption,
    UsageError,
    open_any_model,
)

if TYPE_CHECKING:
    from voxmlx.offline import OfflinePipeline

SUGGESTED = "mistralai/Voxtral-Mini-3B-2507"

EXAMPLES = """\
voxmlx chat talk.mp3 "What was decided?" --model ./voxtral-3b
voxmlx chat before.wav after.wav "What has changed?" -m ./voxtral-3b --max-tokens 300
voxmlx chat talk.mp3 --model ./voxtral-3b < questions.txt"""


def run(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO... [QUESTION]",
            help="Recordings, then the question. Without one, each line of standard input is a "
            "question.",
        ),
    ],
    model: ModelOption = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Most tokens of an answer.")
    ] = 1024,
    temperature: TemperatureOption = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", min=0.01, max=1.0, help="Mass of the likeliest tokens to draw from."
        ),
    ] = 1.0,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Ask questions about recordings.

    Needs an offline model, such as mistralai/Voxtral-Mini-3B-2507. Answers are printed while they
    are written. With more than one question, each sees those before it.
    """
    files, question = split_words(words)
    if model is None:
        raise UsageError(f"chat needs an offline model, such as --model {SUGGESTED}")
    pipeline = _open(model, revision, dtype)
    conversation = _Conversation(
        pipeline,
        files,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        kv_bits=kv_bits,
        kv_rotation=kv_rotation.value,
    )
    if question is not None:
        conversation.ask(question)
        return
    if sys.stdin.isatty():
        print("A question a line; Ctrl-D ends.", file=sys.stderr)
    for line in sys.stdin:
        if line.strip():
            conversation.ask(line.strip())


def split_words(words: list[str]) -> tuple[list[str], str | None]:
    """Files and question of a command line; the last word is a file if there is one of that name.

    Raises:
        UsageError: If there is no file.
    """
    from pathlib import Path

    if Path(words[-1]).is_file():
        return words, None
    if len(words) == 1:
        raise UsageError(f"{words[0]!r} is no file; give a recording before the question")
    return words[:-1], words[-1]


def _open(model: str | None, revision: str | None, dtype: Any) -> OfflinePipeline:
    from voxmlx.offline import OfflinePipeline

    pipeline = open_any_model(model, revision, dtype)
    if not isinstance(pipeline, OfflinePipeline):
        raise UsageError(
            "this model transcribes and answers nothing; chat needs an offline one, such as "
            f"--model {SUGGESTED}"
        )
    return pipeline


class _Conversation:
    """Questions and answers so far; the recordings stand before the first question."""

    def __init__(self, pipeline: OfflinePipeline, files: list[str], **options: Any):
        from voxmlx.audio.decode import SAMPLE_RATE, read_audio

        self._pipeline = pipeline
        self._options = options
        self._messages: list[dict[str, Any]] = []
        self._next: list[dict[str, Any]] = [
            {"type": "audio", "audio": read_audio(file), "sample_rate": SAMPLE_RATE}
            for file in files
        ]

    def ask(self, question: str) -> None:
        """Print the answer to a question."""
        self._next.append({"type": "text", "text": question})
        self._messages.append({"role": "user", "content": self._next})
        self._next = []
        answer = ""
        try:
            for text in self._pipeline.chat(self._messages, stream=True, **self._options):
                print(text, end="", flush=True)
                answer += text
        except ValueError as error:  # too long a conversation
            raise UsageError(str(error)) from error
        print(flush=True)
        self._messages.append({"role": "assistant", "content": answer})
