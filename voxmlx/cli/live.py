"""``voxmlx live``: text while somebody speaks, from a microphone, a pipe or a file."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from voxmlx.cli.common import (
    BiasFileOption,
    BiasOption,
    DelayOption,
    Format,
    KVBitsOption,
    KVRotation,
    KVRotationOption,
    ModelOption,
    RevisionOption,
    TemperatureOption,
    UsageError,
    open_model,
    stream_options,
)
from voxmlx.errors import AudioError

if TYPE_CHECKING:
    from voxmlx.audio.live import Float32Array, LiveSource, PacedSource
    from voxmlx.audio.pipe import PcmFormat
    from voxmlx.cli.live_output import ResultFile, TranscriptFile, WavFile
    from voxmlx.streaming.session import StreamingSession
    from voxmlx.types import Event

EXAMPLES = """\
voxmlx live
voxmlx live --device "USB" --save meeting.wav --format srt -o meeting.srt
ffmpeg -i URL -f s16le -ac 1 -ar 16000 - | voxmlx live -
voxmlx live talk.mp3 --realtime"""

POLL_S = 0.1
"""How long to wait for audio at a time; Ctrl-C is noticed as often."""

READ_AHEAD_S = 30.0
"""Lag at which a source that can wait is left to wait."""

NO_SOUND_S = 3.0
"""A microphone whose samples are all exactly zero for so long is not really heard."""

_logger = logging.getLogger(__name__)


class SampleType(str, Enum):
    """Types of raw samples, by FFmpeg's names."""

    U8 = "u8"
    S16LE = "s16le"
    S24LE = "s24le"
    S32LE = "s32le"
    F32LE = "f32le"
    F64LE = "f64le"


def run(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]",
            help="- reads raw PCM or WAV from standard input; a file needs --realtime. "
            "Default: the microphone.",
        ),
    ] = None,
    model: ModelOption = None,
    delay: DelayOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Microphone: its number or a part of its name.")
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the microphones and exit.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the text there as it comes."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Format of the text. Default: by FILE's name, or txt."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE.wav", help="Save the sound as WAV.")
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Play FILE at its own speed and report the latency."),
    ] = False,
    rate: Annotated[
        int, typer.Option("--rate", min=1000, max=768000, help="Of raw PCM on -, in Hz.")
    ] = 16000,
    channels: Annotated[
        int, typer.Option("--channels", min=1, max=64, help="Of raw PCM on -.")
    ] = 1,
    dtype: Annotated[
        SampleType, typer.Option("--dtype", help="Of raw PCM on -.")
    ] = SampleType.S16LE,
    rut_guard: Annotated[
        bool,
        typer.Option(
            "--rut-guard/--no-rut-guard", help="Wake the model from minutes of false silence."
        ),
    ] = True,
    bias: BiasOption = None,
    bias_file: BiasFileOption = None,
    temperature: TemperatureOption = 0.0,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    revision: RevisionOption = None,
) -> None:
    """Transcribe live sound from a microphone or a pipe.

    Text appears when the model has settled it. Ctrl-C settles what was said, saves everything and
    ends; a second Ctrl-C ends at once.
    """
    from voxmlx.audio.pipe import PcmFormat

    if list_devices:
        _print_devices()
        return
    kind = _format(format, output)
    if realtime and source in (None, "-"):
        raise UsageError("--realtime needs a FILE")
    if source not in (None, "-") and not realtime:
        raise UsageError("a FILE needs --realtime; 'voxmlx transcribe' is for recordings")
    pipeline = open_model(model, revision)
    session = pipeline.stream(
        transcription_delay_ms=delay,
        temperature=temperature,
        rut_guard=rut_guard,
        **stream_options(bias, bias_file, kv_bits, kv_rotation),
    )
    with ExitStack() as stack:
        sound = _open_source(source, device, PcmFormat(rate, channels, dtype.value), stack)
        live = _Live(session, sound, stack, output, kind, save)
        live.run()
    live.report()


def _format(format: Format | None, output: Path | None) -> str:
    """The format that was asked for, or that the name of the output asks for."""
    if format is Format.ALL:
        raise UsageError("--format all is for 'voxmlx transcribe'")
    if format is Format.JSON and output is None:
        raise UsageError("--format json needs --output: JSON is written at the end")
    if format is not None:
        return format.value
    suffix = "" if output is None else output.suffix[1:].lower()
    return suffix if suffix in ("srt", "vtt", "tsv", "json") else "txt"


def _open_source(
    source: str | None, device: str | None, raw: PcmFormat, stack: ExitStack
) -> LiveSource:
    """Open the sound; ``stack`` closes it."""
    if source is None:
        from voxmlx.audio.microphone import Microphone

        return stack.enter_context(Microphone(device))
    if source == "-":
        from voxmlx.audio.pipe import PipeSource

        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("- needs sound on standard input: ffmpeg … | voxmlx live -")
        return PipeSource(sys.stdin.fileno(), "standard input", raw)
    from voxmlx.audio.decode import SAMPLE_RATE, open_audio
    from voxmlx.audio.live import PacedSource

    return PacedSource(stack.enter_context(open_audio(source)), SAMPLE_RATE)


def _print_devices() -> None:
    from voxmlx.audio.microphone import list_devices

    for device in list_devices():
        mark = "*" if device.is_default else " "
        print(
            f"{mark} {device.index:3d}  {device.name}  "
            f"({device.channels} channels, {device.sample_rate} Hz)"
        )


class _Live:
    """One live transcription with everything that it shows and writes."""

    def __init__(
        self,
        session: StreamingSession,
        source: LiveSource,
        stack: ExitStack,
        output: Path | None,
        format: str,
        save: Path | None,
    ):
        from voxmlx.audio.live import PacedSource
        from voxmlx.cli.live_display import LiveDisplay
        from voxmlx.cli.live_output import TranscriptFile, WavFile, open_output
        from voxmlx.streaming.latency import LatencyMeter

        self._session = session
        self._source = source
        self._wav: WavFile | None = None
        if save is not None:
            self._wav = stack.enter_context(contextlib.closing(WavFile(save, source.sample_rate)))
        self._output: TranscriptFile | ResultFile | None = None
        if output is not None:
            self._output = stack.enter_context(open_output(output, format, session))
        elif format != "txt":
            self._output = TranscriptFile(sys.stdout, format, session)
        show_text = output is not None or format == "txt"
        self._display = LiveDisplay(session, source, show_text)
        self._paced: PacedSource | None = source if isinstance(source, PacedSource) else None
        self._latency = LatencyMeter()
        self._failure: AudioError | None = None
        self._n_zeros = 0
        self._max_lag_s = 0.0

    def run(self) -> None:
        """Transcribe until the source ends or somebody interrupts."""
        with _Interrupt() as interrupt, self._display as display:
            for event in self._events(interrupt):
                display.show(event)
                if self._output is not None:
                    self._output.add(event)
                if self._paced is not None and self._paced.started_s is not None:
                    self._latency.add(event, time.monotonic() - self._paced.started_s)
        if self._output is not None:
            self._output.finish()

    def report(self) -> None:
        """Say what was lost, and how long words took.

        Raises:
            AudioError: If the source failed.
        """
        source = self._source
        if source.n_dropped:
            lost_s = source.n_dropped / source.sample_rate
            _logger.warning("%.1f s of sound were lost: the model is too slow here", lost_s)
        n_overflows = getattr(source, "n_overflows", 0)
        if n_overflows:
            _logger.warning("the sound system lost sound %d times", n_overflows)
        if self._failure is not None:
            raise self._failure
        if self._paced is not None:
            self._report_latency()

    def _report_latency(self) -> None:
        summary = self._latency.summary()
        print(
            f"delay {self._session.delay_ms} ms, largest lag {self._max_lag_s:.2f} s",
            end="; ",
            file=sys.stderr,
        )
        if summary is None:
            print("no words", file=sys.stderr)
            return
        print(
            f"text after the end of each of {summary.n_words} words: mean {summary.mean_s:.2f} s, "
            f"p50 {summary.p50_s:.2f}, p90 {summary.p90_s:.2f}, p99 {summary.p99_s:.2f}, "
            f"max {summary.max_s:.2f}",
            file=sys.stderr,
        )

    def _events(self, interrupt: _Interrupt) -> Iterator[Event]:
        from voxmlx.streaming.iterate import finish

        session, source = self._session, self._source
        while True:
            if interrupt.seen and self._display.state != "settling":
                self._display.state = "settling"
                source.stop()
            if not source.can_wait or session.lag_s < READ_AHEAD_S or interrupt.seen:
                samples = self._read(0.0 if session.pending else POLL_S)
                if samples is None:
                    break
                self._hear(samples)
            if session.pending:
                yield from session.step()
                if self._output is not None:
                    self._output.advance()
        self._display.state = "settling"
        yield from finish(session)

    def _read(self, timeout_s: float) -> Float32Array | None:
        """Read the source; a failed one has ended, and what it gave before is kept."""
        try:
            return self._source.read(timeout_s)
        except AudioError as error:
            self._failure = error
            return None

    def _hear(self, samples: Float32Array) -> None:
        """Save a piece of sound and feed it."""
        if not len(samples):
            return
        if self._wav is not None:
            self._wav.write(samples)
        self._session.feed(samples, self._source.sample_rate)
        self._display.hear(samples)
        self._max_lag_s = max(self._max_lag_s, self._session.lag_s)
        if self._n_zeros < 0 or self._paced is not None or self._source.can_wait:
            return
        self._n_zeros = -1 if samples.any() else self._n_zeros + len(samples)
        if self._n_zeros > NO_SOUND_S * self._source.sample_rate:
            self._n_zeros = -1
            _logger.warning(
                "the microphone gives pure silence; it may be muted, or the terminal may lack the "
                "permission to use it"
            )


class _Interrupt:
    """Notes the first Ctrl-C or termination instead of raising; a second one raises."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
