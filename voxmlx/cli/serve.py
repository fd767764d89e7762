"""``voxmlx serve``: transcription for programs and browsers, over HTTP and WebSocket."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from voxmlx.cli.common import (
    DEFAULT_MODEL,
    DelayOption,
    DTypeOption,
    KVBitsOption,
    KVRotation,
    KVRotationOption,
    ModelOption,
    RevisionOption,
    UsageError,
    open_any_model,
)
from voxmlx.config import kv_cache_config
from voxmlx.errors import MissingExtraError
from voxmlx.generation.slots import MAX_ROWS

if TYPE_CHECKING:
    from voxmlx.config import KVCacheConfig
    from voxmlx.engine.scheduler import Limits
    from voxmlx.offline import OfflinePipeline
    from voxmlx.pipeline import Pipeline
    from voxmlx.server.settings import ServerSettings

EXAMPLES = """\
voxmlx serve
voxmlx serve --model tiny --port 9000
voxmlx serve --host 0.0.0.0 --api-key "$(openssl rand -hex 24)"
curl -F file=@talk.mp3 http://127.0.0.1:8000/v1/audio/transcriptions"""

_PARTS = ("starlette", "uvicorn", "websockets", "pydantic", "prometheus_client", "python_multipart")
_GIB = 2**30


class LogFormat(str, Enum):
    """How logs are written."""

    PLAIN = "plain"
    JSON = "json"


HostOption = Annotated[
    str, typer.Option("--host", help="Address to listen on; other machines need an API key.")
]
PortOption = Annotated[
    int, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0 takes a free one.")
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="VOXMLX_API_KEY",
        help="Bearer token that clients must show; may be given several times.",
    ),
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="URL",
        help="Web page on another host that may connect, as https://example.org.",
    ),
]
SessionsOption = Annotated[
    int, typer.Option("--max-sessions", min=1, max=MAX_ROWS, help="Live sessions at a time.")
]
FilesOption = Annotated[
    int, typer.Option("--max-files", min=1, max=MAX_ROWS, help="Files worked on at a time.")
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--max-memory",
        metavar="GB",
        min=0.01,
        help="Memory for keys and values of all sessions. Default: no limit but their number.",
    ),
]
ReserveOption = Annotated[
    bool,
    typer.Option(
        "--reserve",
        help="Hold the memory of all live sessions from the start and compile before the first "
        "one: for a GPU with many, where allocating later holds up all of them.",
    ),
]
UploadOption = Annotated[
    int, typer.Option("--max-upload", metavar="MB", min=1, help="Largest file to upload.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the model that clients are shown. Default: --model."),
]
LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="How logs are written.")]
LogTextOption = Annotated[
    bool, typer.Option("--log-text", help="Let logs hold what was said; they do not otherwise.")
]


def run(
    model: ModelOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    delay: DelayOption = None,
    max_sessions: SessionsOption = 16,
    max_files: FilesOption = 4,
    max_memory: MemoryOption = None,
    reserve: ReserveOption = False,
    max_upload: UploadOption = 256,
    api_key: KeyOption = None,
    allow_origin: OriginOption = None,
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.PLAIN,
    log_text: LogTextOption = False,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Serve transcription to programs and browsers.

    Speaks OpenAI's API for files and realtime, vLLM's and Mistral's realtime protocols, and has a
    web page at its root. Stops on Ctrl-C once running work is done.
    """
    for part in _PARTS:
        if importlib.util.find_spec(part) is None:
            raise MissingExtraError("voxmlx serve", "server")
    from voxmlx.engine.scheduler import Limits
    from voxmlx.server.settings import MIB, ServerSettings

    try:
        settings = ServerSettings(
            host=host,
            port=port,
            api_keys=tuple(api_key or ()),
            allowed_origins=tuple(allow_origin or ()),
            model_name=name or model or DEFAULT_MODEL,
            delay_ms=delay,
            max_connections=4 * max_sessions,
            max_body_bytes=max_upload * MIB,
            log_text=log_text,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    limits = Limits(
        max_live=max_sessions,
        max_files=max_files,
        memory_bytes=None if max_memory is None else round(max_memory * _GIB),
        reserve=reserve,
    )
    _set_up_logs(log_format)
    kv = kv_cache_config(kv_bits, kv_rotation.value)
    _serve(partial(open_any_model, model, revision, dtype), settings, limits, kv)


def _set_up_logs(log_format: LogFormat) -> None:
    from voxmlx.server.logs import JsonFormatter, PlainFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else PlainFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    logging.getLogger("voxmlx").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _serve(
    load: Callable[[], Pipeline | OfflinePipeline],
    settings: ServerSettings,
    limits: Limits,
    kv: KVCacheConfig | None,
) -> None:
    from voxmlx.engine.engine import Engine
    from voxmlx.server.app import create_app, new_metrics
    from voxmlx.server.run import Server

    metrics = new_metrics()
    engine = Engine(load, limits, metrics.ticked, kv)
    engine.start()
    try:
        server = Server(create_app(engine, settings, metrics), settings, partial(_say, settings))
        server.run()
    finally:
        engine.stop()
    if not server.started:
        raise typer.Exit(1)


def _say(settings: ServerSettings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"listening on http://{host}:{port}", flush=True)
