"""Errors as OpenAI's clients read them, and which HTTP status each of our own errors has."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from store.errors import CorrigibleError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    502: "upstream_error",
    503: "service_unavailable_error",
}
STATUS = {  # codes of our own errors whose family does not say it
    "not_found": 404,
    "ambiguous": 404,
    "bad_id": 404,
    "too_long": 413,
    "too_large": 413,
    "busy": 503,
    "locked": 503,
    "engine": 503,
    "disk_full": 503,
    "read_only": 503,
    "io_error": 503,
    "no_consent": 409,
    "nothing_served": 409,
    "nothing_to_roll_back": 409,
    "not_configured": 409,
}
FAMILIES = {2: 400, 10: 503, 11: 503, 12: 503, 13: 503, 14: 409, 15: 409, 16: 503, 17: 502, 18: 502}  # by exit code
NAMES = {"context_length": "context_length_exceeded"}


class ApiError(Exception):
    """A refusal with its HTTP status.

    Args:
        status: the HTTP status.
        message: one sentence, without any text of the owner.
        code: stable word; `param` names the field that is wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body, self.status, self.headers)


def of(error: CorrigibleError) -> ApiError:
    """Return one of our own errors as the API tells it."""
    status = STATUS.get(error.code) or FAMILIES.get(error.exit_code, 500)
    message = f"{error.message} {error.hint}".strip()
    headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return ApiError(status, message, code=NAMES.get(error.code, error.code), headers=headers)


def unsupported(param: str, message: str) -> ApiError:
    """Return the refusal of a parameter that this server cannot honour."""
    return ApiError(400, message, code="unsupported_parameter", param=param)
