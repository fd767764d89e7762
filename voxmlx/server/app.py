"""All routes of one server as an ASGI application."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from voxmlx.engine.engine import Engine, memory_in_use
from voxmlx.server.context import Context, context_of
from voxmlx.server.errors import ApiError, handle_fault, handle_http_error
from voxmlx.server.metrics import Metrics
from voxmlx.server.openapi import openapi
from voxmlx.server.protocols.common import ServedModel
from voxmlx.server.security import SecurityMiddleware
from voxmlx.server.settings import ServerSettings
from voxmlx.server.transcriptions import Transcriptions
from voxmlx.server.websocket import mistral_realtime, realtime

STATIC = Path(__file__).parent / "static"
STUCK_S = 60.0
"""A device thread that has work and shows no sign of life for so long is taken for dead."""


def create_app(engine: Engine, settings: ServerSettings, metrics: Metrics) -> Starlette:
    """The application.

    Args:
        engine: Started.
        settings: How the server behaves.
        metrics: What the engine reports to.
    """
    delay_ms = engine.config.delay_ms if settings.delay_ms is None else settings.delay_ms
    model = ServedModel(settings.model_name, settings.model_aliases, delay_ms)
    app = Starlette(
        routes=[
            Route("/", _page),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
            Route("/v1/audio/transcriptions", Transcriptions(), methods=["POST"]),
            Route("/v1/models", _models),
            Route("/v1/models/{model:path}", _model),
            WebSocketRoute("/v1/realtime", realtime),
            WebSocketRoute("/v1/audio/transcriptions/realtime", mistral_realtime),
            Route("/health", _health),
            Route("/ready", _ready),
            Route("/metrics", _metrics),
            Route("/openapi.json", _openapi),
        ],
        middleware=[Middleware(SecurityMiddleware, settings=settings)],
        exception_handlers={HTTPException: handle_http_error, Exception: handle_fault},
    )
    app.state.context = Context(engine, settings, model, metrics)
    return app


def new_metrics() -> Metrics:
    """Figures that know MLX's memory."""
    return Metrics(memory_in_use)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


def _describe(context: Context) -> dict[str, Any]:
    return {
        "id": context.model.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "voxmlx",
        "transcription_delay_ms": context.model.delay_ms,
    }


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_describe(context_of(request))]})


async def _model(request: Request) -> Response:
    context = context_of(request)
    name = request.path_params["model"]
    if name not in (context.model.name, *context.model.aliases):
        raise ApiError(404, "model_not_found", f"no model {name!r} here", "model")
    return JSONResponse(_describe(context))


async def _health(request: Request) -> Response:
    engine = context_of(request).engine
    alive = engine.alive and engine.idle_s < STUCK_S
    return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)


async def _ready(request: Request) -> Response:
    context = context_of(request)
    ready = context.engine.alive and not context.drain.is_set()
    return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
    text = context_of(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4")


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi())
