"""HTTP errors in the shape that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status.
        code: Short name of what is wrong.
        message: One sentence for people.
        param: The field at fault.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.code = code
        self.param = param


def error_body(status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
    """The body of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: HTTPException) -> JSONResponse:
    """An error as an answer."""
    code = error.code if isinstance(error, ApiError) else None
    param = error.param if isinstance(error, ApiError) else None
    body = error_body(error.status_code, code, str(error.detail), param)
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Answer a refused request."""
    if not isinstance(error, HTTPException):
        raise error
    return error_response(error)


async def handle_fault(request: Request, error: Exception) -> Response:
    """Answer a request that met a bug, without telling its details."""
    return JSONResponse(error_body(500, "internal_error", "internal error", None), 500)
