"""What the published OpenAPI document says beyond the routes' own types: every error that a route can give."""

from typing import Any

from feedback.gateway.schema import ErrorBody

TEXTS = {
    400: "The request cannot be used as given.",
    401: "No valid token.",
    403: "The token has no such scope, or the request comes from another site.",
    404: "There is no such thing.",
    408: "The request did not come in time.",
    409: "Not possible in this state.",
    413: "Too large.",
    415: "Not JSON.",
    429: "Too many requests; Retry-After says when.",
    431: "Too many header fields.",
    502: "The upstream failed and the device could not answer.",
    503: "The store or the model cannot be used now.",
}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """Return the documentation of some errors."""
    return {status: {"model": ErrorBody, "description": TEXTS[status]} for status in statuses}


EVERY = (400, 401, 403, 404, 408, 409, 413, 415, 429, 431, 502, 503)
EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
EVENTS = {"text/event-stream": {"schema": EVENT}}
STREAMED: Responses = {
    200: {"description": "The answer, whole or as events.", "content": EVENTS},
    **errors(*EVERY),
}
