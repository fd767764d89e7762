"""The description of the HTTP interface, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from voxmlx.config import SUPPORTED_DELAYS_MS
from voxmlx.server.transcription_form import FORMATS, GRANULARITIES
from voxmlx.version import __version__

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "language": {"type": "string", "description": "A label; the model listens for itself."},
        "prompt": {"type": "string", "description": "Accepted and not used."},
        "response_format": {"type": "string", "enum": [*FORMATS], "default": "json"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "default": 0},
        "stream": {"type": "boolean", "default": False},
        "timestamp_granularities": {
            "type": "array",
            "items": {"type": "string", "enum": [*GRANULARITIES]},
        },
        "include": {"type": "array", "items": {"type": "string"}},
        "keywords": _STRINGS,
        "delay_ms": {"type": "integer", "enum": [*SUPPORTED_DELAYS_MS]},
    },
}


def _errors(*statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": "Refused", "content": content} for status in statuses}


def _ok(media_types: tuple[str, ...], description: str, schema: dict[str, Any]) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {"200": {"description": description, "content": content}}


def _get(summary: str, media_type: str, schema: dict[str, Any], *errors: int) -> dict[str, Any]:
    responses = {**_ok((media_type,), summary, schema), **_errors(*errors)}
    return {"get": {"summary": summary, "responses": responses}}


def openapi() -> dict[str, Any]:
    """The whole description."""
    json_type, an_object = "application/json", {"type": "object"}
    status = {"type": "object", "required": ["status"]}
    model = {
        "parameters": [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    }
    transcription = {
        "summary": "Transcribe a recording",
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _FORM}},
        },
        "responses": {
            "200": {
                "description": "The text, in the format asked for",
                "content": {
                    json_type: {"schema": {"type": "object", "required": ["text"]}},
                    "text/plain": {"schema": {"type": "string"}},
                    "application/x-subrip": {"schema": {"type": "string"}},
                    "text/vtt": {"schema": {"type": "string"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            **_errors(400, 401, 403, 404, 413, 415, 429, 500, 503),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "voxmlx", "version": __version__},
        "security": [{"bearer": []}, {}],
        "paths": {
            "/v1/audio/transcriptions": {"post": transcription},
            "/v1/models": _get("The served model", json_type, an_object, 401, 403),
            "/v1/models/{model}": {
                **_get("The served model", json_type, an_object, 401, 403, 404),
                **model,
            },
            "/health": _get("The process lives", json_type, status, 503),
            "/ready": _get("Requests are taken", json_type, status, 503),
            "/metrics": _get("Figures for Prometheus", "text/plain", {"type": "string"}, 401, 403),
            "/openapi.json": _get("This description", json_type, an_object),
        },
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
