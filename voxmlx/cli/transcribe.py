"""``voxmlx transcribe``: recordings to text, subtitles, tables or JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.cli.common import (
    BiasFileOption,
    BiasOption,
    DelayOption,
    DTypeOption,
    Format,
    FormatOption,
    KVBitsOption,
    KVRotation,
    KVRotationOption,
    LanguageOption,
    ModelOption,
    OutputDirOption,
    RevisionOption,
    TemperatureOption,
    UsageError,
    open_any_model,
    print_error,
    stream_options,
)
from voxmlx.cli.display import Display
from voxmlx.errors import AudioError, OutputError

if TYPE_CHECKING:
    from voxmlx.offline import OfflinePipeline
    from voxmlx.pipeline import Pipeline
    from voxmlx.streaming.files import FileResult
    from voxmlx.streaming.offline import OfflineSession
    from voxmlx.streaming.session import StreamingSession
    from voxmlx.types import Transcription

EXAMPLES = """\
voxmlx transcribe talk.mp3
voxmlx transcribe *.mp4 --format srt --output-dir subtitles
voxmlx transcribe calls/*.wav --batch-size 16 --output-dir texts
voxmlx transcribe meeting.wav --delay 2400 --format json > meeting.json
ffmpeg -i URL -f wav - | voxmlx transcribe -"""


def run(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Recordings of any kind; - is standard input."),
    ],
    model: ModelOption = None,
    delay: DelayOption = None,
    language: LanguageOption = None,
    format: FormatOption = Format.TXT,
    output_dir: OutputDirOption = None,
    bias: BiasOption = None,
    bias_file: BiasFileOption = None,
    temperature: TemperatureOption = 0.0,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", min=1, max=64, help="Recordings decoded at a time; realtime models."
        ),
    ] = 1,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Transcribe recordings to text or subtitles.

    Audio and video files of any kind. Text is printed while it is decoded, or where several files
    are decoded at a time, when a file is done. A file that cannot be read is reported and the
    others are done; the exit code is then 1.
    """
    if output_dir is None and format is Format.ALL:
        raise UsageError("--format all needs --output-dir")
    if output_dir is None and format is not Format.TXT and len(files) > 1:
        raise UsageError(f"--format {format.value} of several files needs --output-dir")
    transcriber = _Transcriber(
        partial(open_any_model, model, revision, dtype),
        transcription_delay_ms=delay,
        language=language,
        temperature=temperature,
        **stream_options(bias, bias_file, kv_bits, kv_rotation),
    )
    n_failed = 0
    names = output_names(files)
    order: Iterable[int] = range(len(files))
    if batch_size > 1 and len(files) > 1:
        order = transcriber.together(files, format, batch_size, in_order=output_dir is None)
    for i in order:
        if output_dir is None and len(files) > 1:
            print("\n" * (i > 0) + f"==> {files[i]} <==", flush=True)
        try:
            if output_dir is None:
                transcriber.to_stdout(i, files[i], format)
            else:
                transcriber.to_folder(i, files[i], format, output_dir, names[i])
        except (AudioError, OutputError) as error:
            print_error(str(error))
            n_failed += 1
    if n_failed and len(files) > 1:
        print_error(f"{n_failed} of {len(files)} files failed")
    if n_failed:
        raise typer.Exit(1)


def output_names(files: Sequence[str]) -> list[str]:
    """Names of the outputs without extension: the files' own, made longer where two are equal."""
    paths = [Path("stdin" if file == "-" else file) for file in files]
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 2
        while names[i] in taken:
            names[i] = f"{name}-{number}"
            number += 1
        taken.add(names[i])
    return names


class _Transcriber:
    """Transcribes files; without :meth:`together` the model waits for the first that opens."""

    def __init__(self, load: Callable[[], Pipeline | OfflinePipeline], **options: Any):
        self._load = load
        self._options = options
        self._done: dict[int, FileResult[int]] = {}

    def together(
        self, files: Sequence[str], format: Format, rows: int, in_order: bool
    ) -> Iterator[int]:
        """Decode several files at a time and give their numbers as they are done.

        Args:
            files: The recordings.
            format: What will be written.
            rows: How many at a time.
            in_order: Whether to hold results back until those before them are done.
        """
        from voxmlx.engine.files import transcribe_files

        options = self._checked_options(format)
        given = 0
        try:
            for done in transcribe_files(self._pipeline, enumerate(files), rows=rows, **options):
                self._done[done.key] = done
                if not in_order:
                    yield done.key
                while in_order and given in self._done:
                    yield given
                    given += 1
        except ValueError as error:  # an option that this model does not have
            raise UsageError(str(error)) from error

    def to_stdout(self, i: int, file: str, format: Format) -> None:
        """Print the text while it is decoded, or the result in another format at the end."""
        from voxmlx.writers import get_writer

        result = self._transcribe(i, file, format, show_text=format is Format.TXT)
        if format is not Format.TXT:
            get_writer(format.value)(result, sys.stdout)

    def to_folder(self, i: int, file: str, format: Format, folder: Path, name: str) -> None:
        """Write the result to files of a folder, and print their paths."""
        from voxmlx.writers import FORMATS, atomic_write, get_writer, make_folder

        make_folder(folder)
        result = self._transcribe(i, file, format, show_text=False)
        for each in FORMATS if format is Format.ALL else (format.value,):
            path = folder / f"{name}.{each}"
            with atomic_write(path) as output:
                get_writer(each)(result, output)
            print(path, flush=True)

    def _transcribe(self, i: int, file: str, format: Format, show_text: bool) -> Transcription:
        from voxmlx.audio.decode import open_audio
        from voxmlx.pipeline import transcribe_events

        if i in self._done:
            done = self._done[i]
            if done.result is None:
                raise done.error or AudioError(f"{file}: not read")
            self._done[i] = replace(done, result=None)  # its words are not needed any more
            if show_text:
                print(done.result.text, flush=True)
            return done.result
        with open_audio(file) as reader:
            session = self._open_session(format)
            with Display(reader.name, session, reader.duration_s, show_text) as display:
                for event in transcribe_events(session, reader):
                    display.show(event)
        return session.result()

    def _open_session(self, format: Format) -> StreamingSession | OfflineSession:
        options = self._checked_options(format)
        try:
            return self._pipeline.file_session(**options)
        except ValueError as error:  # an option that this model does not have
            raise UsageError(str(error)) from error

    def _checked_options(self, format: Format) -> dict[str, Any]:
        options = {name: value for name, value in self._options.items() if value is not None}
        if self._pipeline.config.model_type == "voxtral_realtime":
            if "language" in options:
                raise UsageError("--language is for offline models; this one needs no language")
            options["on_eos"] = "restart"
        elif "context_bias" in options:
            raise UsageError("--bias is for realtime models; this one reads whole recordings")
        elif format not in (Format.TXT, Format.JSON):
            raise UsageError(f"--format {format.value} needs times, which this model does not give")
        return options

    @cached_property
    def _pipeline(self) -> Pipeline | OfflinePipeline:
        return self._load()
