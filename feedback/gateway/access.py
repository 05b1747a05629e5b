"""Who may call a route: the dependency that every route names."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from feedback.gateway.errors import ApiError
from feedback.gateway.guard import SAFE
from feedback.gateway.tokens import Doorman, Identity, Scope

COOKIE = "corrigible_session"

_bearer = HTTPBearer(auto_error=False, description="A token of `corrigible gateway tokens`.")
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def needs(scope: Scope) -> Callable[[Request, Given], Awaitable[Identity]]:
    """Return a dependency that lets through whoever holds `scope`, by token or by the page's session.

    Raises (in the dependency):
        ApiError: 401 without a valid one, 403 without the scope or, for the page, without its CSRF token.
    """

    async def check(request: Request, given: Given) -> Identity:
        identity = identify(request, given.credentials if given else None)
        if scope not in identity.scopes:
            raise ApiError(403, f"This token has no scope {scope!r}.", code="insufficient_scope")
        return identity

    return check


def identify(request: Request, token: str | None) -> Identity:
    """Return who sent a request."""
    doorman: Doorman = request.app.state.gateway.doorman
    cookie = request.cookies.get(COOKIE, "")
    found = doorman.session(cookie) if token is None else doorman.bearer(token)
    if found is None:
        hint = "Send `Authorization: Bearer TOKEN`; `corrigible gateway tokens` shows it."
        raise ApiError(401, f"A valid token is needed. {hint}", code="invalid_api_key",
                       headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
    if found.csrf and request.method not in SAFE and request.headers.get("x-csrf-token") != found.csrf:
        raise ApiError(403, "The page's request lacks its CSRF token.", code="csrf")
    return found
