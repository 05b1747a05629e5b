"""How the page gets in: a one-time token becomes a session cookie."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from feedback.gateway.access import COOKIE, identify, needs
from feedback.gateway.documents import errors
from feedback.gateway.errors import ApiError
from feedback.gateway.schema import Lenient
from feedback.gateway.state import Gateway
from feedback.gateway.tokens import SESSION_SECONDS, Identity

router = APIRouter(prefix="/auth", tags=["page"])
COMMON = errors(400, 401, 403, 408, 413, 415, 431, 503)


class Ticket(Lenient):
    """A one-time token."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class SessionView(BaseModel):
    """What the page's unsafe requests must carry in X-CSRF-Token."""

    csrf: str


@router.post("/session", response_model=SessionView, responses=COMMON)
def open_session(request: Request, body: Ticket) -> Any:  # noqa: ANN401
    """Turn a one-time token into a session."""
    gateway: Gateway = request.app.state.gateway
    opened = gateway.doorman.open_session(body.token)
    if opened is None:
        raise ApiError(401, "This link is used or old; `corrigible open` makes a new one.", code="invalid_ticket")
    cookie, csrf = opened
    answer = JSONResponse({"csrf": csrf})
    answer.set_cookie(COOKIE, cookie, max_age=int(SESSION_SECONDS), httponly=True, samesite="strict",
                      secure=gateway.settings.tls, path="/")  # fmt: skip
    return answer


@router.get("/session", response_model=SessionView, responses=COMMON)
def session(request: Request) -> dict[str, str]:
    """Tell a page that was reloaded its CSRF token."""
    return {"csrf": identify(request, None).csrf}


@router.delete("/session", status_code=204, response_class=Response, responses=COMMON)
def close_session(_: Annotated[Identity, Depends(needs("chat"))]) -> Response:
    """Forget the session in this browser."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.post("/ticket", responses=COMMON)
def ticket(request: Request, _: Annotated[Identity, Depends(needs("admin"))]) -> dict[str, str]:
    """Make a one-time token for a new session; what `corrigible open` asks."""
    gateway: Gateway = request.app.state.gateway
    return {"token": gateway.doorman.ticket()}
