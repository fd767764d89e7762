"""One turn on the device thread: its session, its place in a pool, and the news it makes."""

from __future__ import annotations

import dataclasses
from collections import deque

from voxmlx.engine.request import Kind, Piece, TurnOptions, Update
from voxmlx.engine.turn import Command, Turn
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.offline import OfflineSession
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.pool import Pool, PooledBackend
from voxmlx.streaming.session import StreamingSession
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import Event, SegmentEnd, TextDelta, TokenScores, Transcription, WordEnd


def stream_options(options: TurnOptions) -> StreamOptions:
    """How the session of a turn decodes: a file as the reference does, live audio for ever."""
    live = options.kind is Kind.LIVE
    return StreamOptions(
        temperature=options.temperature,
        on_eos="restart" if live else "stop",
        rut_guard=live,
        top_logprobs=0,
        context_bias=options.keywords,
    )


class Job:
    """A turn that was taken on.

    Args:
        turn: Who asks.
    """

    def __init__(self, turn: Turn):
        self.turn = turn
        self.commands: deque[Command] = deque()
        self.backend: PooledBackend | None = None
        self._session: StreamingSession | OfflineSession | None = None

    def start(self, pipeline: Pipeline | OfflinePipeline, pool: Pool | None) -> None:
        """Open the session in a pool; without one the model is an offline one.

        Raises:
            ValueError: If the model does not know the delay or the language, or takes no live
                audio.
        """
        if isinstance(pipeline, OfflinePipeline):
            self._session = self._open_offline(pipeline)
            return
        if pool is None:
            raise ValueError("a realtime session needs a pool")
        self.backend = PooledBackend(pool)
        self._session = StreamingSession(
            pipeline.model,
            pipeline.tokenizer,
            transcription_delay_ms=self.turn.options.delay_ms,
            options=stream_options(self.turn.options),
            encode_rows=pool.max_positions,
            backend=self.backend,
        )

    def _open_offline(self, pipeline: OfflinePipeline) -> OfflineSession:
        options = self.turn.options
        if options.kind is Kind.LIVE:
            raise ValueError(
                f"{pipeline.config.model_type} reads whole recordings; live audio needs a realtime "
                "model"
            )
        return pipeline.file_session(temperature=options.temperature, language=options.language)

    @property
    def session(self) -> StreamingSession | OfflineSession:
        """The session of a started job."""
        if self._session is None:
            raise RuntimeError("the job has not started")
        return self._session

    @property
    def pending(self) -> bool:
        """Whether a started job has work to do."""
        return self._session is not None and self._session.pending

    @property
    def n_waiting(self) -> int:
        """Positions of a turn in a pool that wait for the encoder."""
        return 0 if self.backend is None else self.backend.embedder.queue.n_positions

    def obey(self) -> None:
        """Carry out what was asked so far."""
        while self.commands:
            command = self.commands.popleft()
            self.turn.took(command)
            if command.name == "feed" and command.samples is not None:
                self.session.feed(command.samples, command.sample_rate)
            elif command.name == "flush" and not self._ends():
                if isinstance(self.session, StreamingSession):
                    self.session.flush()
            elif command.name == "finish":
                self.session.close()

    def hand_on(self) -> None:
        """Bring what the pool has encoded to the decoder."""
        if isinstance(self.session, StreamingSession):
            self.session.encode()
            self.turn.decoded(self.session.lag_s)

    def collect(self, tokenizer: Tokenizer) -> int:
        """Take what the pool brought and tell the news; returns the number of tokens."""
        session = self.session
        if self._waits(session):
            return 0
        events = session.step()
        if events or session.done:
            result = self._result() if session.done else None
            self.turn.tell(update_of(events, tokenizer, session, result))
        else:
            self.turn.decoded(session.lag_s)
        return sum(isinstance(event, TokenScores) for event in events)

    def _waits(self, session: StreamingSession | OfflineSession) -> bool:
        """Whether a step would do nothing."""
        if self.backend is None or isinstance(session, OfflineSession):
            return False
        return not (self.backend.has_tokens or session.closed or session.ended)

    def close(self) -> None:
        """Give the places back."""
        if self.backend is not None:
            self.backend.close()

    def _ends(self) -> bool:
        """Whether the next command ends the audio, which settles everything anyway."""
        return bool(self.commands) and self.commands[0].name == "finish"

    def _result(self) -> Transcription:
        result = self.session.result()
        language = self.turn.options.language
        if language is None:
            return result
        return dataclasses.replace(result, language=language)


def update_of(
    events: list[Event],
    tokenizer: Tokenizer,
    session: StreamingSession | OfflineSession,
    result: Transcription | None,
) -> Update:
    """The news in a session's events."""
    pieces = []
    for event in events:
        if isinstance(event, TokenScores):
            token = tokenizer.token_bytes(event.token_id)
            if token:
                pieces.append(Piece(token, event.logprob))
    return Update(
        text="".join(event.text for event in events if isinstance(event, TextDelta)),
        words=tuple(event.word for event in events if isinstance(event, WordEnd)),
        segments=tuple(event.segment for event in events if isinstance(event, SegmentEnd)),
        pieces=tuple(pieces),
        audio_s=session.duration_s,
        lag_s=session.lag_s,
        result=result,
    )
