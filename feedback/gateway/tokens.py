"""Who may do what: named tokens in a file for the owner's eyes only, and the page's sessions.

The file holds the tokens themselves, because programs must be given them; it is refused when others can read it.
A session is a signed cookie, so it outlives a restart; the one-time token that opens one does not.
"""

import base64
import hashlib
import hmac
import json
import secrets
import stat
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from store.errors import IntegrityError, UsageError
from store.files import write_atomic

Scope = Literal["chat", "correct", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "cg-"
DEFAULT = "default"
SESSION_SECONDS = 30 * 86400.0
TICKET_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Token:
    """One named token.

    Attributes:
        review: corrections made with it wait for the owner's word before they teach.
    """

    name: str
    scopes: tuple[Scope, ...]
    value: str
    review: bool = False
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request: a token, or the page's session (`csrf` is then what its unsafe requests must carry)."""

    name: str
    scopes: tuple[Scope, ...]
    review: bool = False
    csrf: str = ""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The tokens and the secret that signs sessions; immutable, saved as a whole."""

    path: Path
    secret: str
    tokens: tuple[Token, ...]

    @classmethod
    def load(cls, path: Path) -> "TokenFile":
        """Read the file at `path`, or start one with a token for chatting and correcting.

        Raises:
            IntegrityError: it is damaged or open to other users.
        """
        if not path.exists():
            first = Token(DEFAULT, ("chat", "correct"), PREFIX + secrets.token_urlsafe(24), created=time.time())
            made = cls(path, secrets.token_urlsafe(32), (first,))
            made.save()
            return made
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            hint = f"Run `chmod 600 {path}` and make new tokens."
            raise IntegrityError("The token file is open to other users.", hint=hint, code="tokens_exposed")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            tokens = tuple(Token(**{**one, "scopes": tuple(one["scopes"])}) for one in values["tokens"])
            return cls(path, str(values["secret"]), tokens)
        except (ValueError, KeyError, TypeError):
            hint = f"Remove {path}; the next `corrigible up` makes a new one."
            raise IntegrityError("The token file is damaged.", hint=hint, code="tokens_damaged") from None

    def save(self) -> None:
        """Write the file, mode 0600."""
        values = {"schema": 1, "secret": self.secret, "tokens": [asdict(token) for token in self.tokens]}
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self.path, [json.dumps(values, indent=1).encode()])

    def added(self, name: str, scopes: Iterable[Scope], *, review: bool = False) -> "TokenFile":
        """Return the file with one more token.

        Raises:
            UsageError: the name is taken, empty or no word (code ``bad_name``), or there is no scope.
        """
        wanted = tuple(scope for scope in SCOPES if scope in set(scopes))
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 40 or not name.isascii():
            raise UsageError("A token's name is made of letters, digits, - and _.", code="bad_name")
        if any(token.name == name for token in self.tokens):
            raise UsageError("There is a token of this name.", hint="Remove it first.", code="bad_name")
        if not wanted:
            raise UsageError("A token needs a scope.", hint=f"Scopes: {', '.join(SCOPES)}.")
        token = Token(name, wanted, PREFIX + secrets.token_urlsafe(24), review, time.time())
        return replace(self, tokens=(*self.tokens, token))

    def removed(self, name: str) -> "TokenFile":
        """Return the file without the token called `name`.

        Raises:
            UsageError: there is none (code ``not_found``).
        """
        if not any(token.name == name for token in self.tokens):
            hint = "`corrigible gateway tokens` lists them."
            raise UsageError("There is no token of this name.", hint=hint, code="not_found")
        return replace(self, tokens=tuple(token for token in self.tokens if token.name != name))


class Doorman:
    """Tells who sent a request; reads the token file again when it changes.

    Args:
        path: the token file.
        control: secret of this run, which the command line knows; may do everything.
    """

    def __init__(self, path: Path, control: str) -> None:
        self._path, self._control = path, control
        self._state = (0, 0)
        self._file = TokenFile(path, "", ())
        self._tickets: dict[str, float] = {}

    def bearer(self, value: str) -> Identity | None:
        """Return whose token this is; every comparison takes the same time."""
        found = Identity("control", SCOPES) if _same(value, self._control) else None
        for token in self._tokens().tokens:
            if _same(value, token.value):
                found = Identity(token.name, token.scopes, token.review)
        return found

    def ticket(self) -> str:
        """Return a token that opens one session, once, soon."""
        now = time.monotonic()
        self._tickets = {name: end for name, end in self._tickets.items() if end > now}
        ticket = secrets.token_urlsafe(24)
        self._tickets[_hash(ticket)] = now + TICKET_SECONDS
        return ticket

    def open_session(self, ticket: str) -> tuple[str, str] | None:
        """Return (cookie, CSRF token) of a new session, None for a ticket that is wrong, used or old."""
        if self._tickets.pop(_hash(ticket), 0.0) < time.monotonic():
            return None
        body = f"{int(time.time() + SESSION_SECONDS)}.{secrets.token_urlsafe(12)}"
        cookie = f"{body}.{self._sign('session', body)}"
        return cookie, self._sign("csrf", body)

    def session(self, cookie: str) -> Identity | None:
        """Return the page's identity when its cookie is ours and not over."""
        body, _, signature = cookie.rpartition(".")
        end = body.partition(".")[0]
        if not end.isdigit() or len(end) > 12 or not _same(signature, self._sign("session", body)):
            return None
        return Identity("page", SCOPES, csrf=self._sign("csrf", body)) if int(end) > time.time() else None

    def _tokens(self) -> TokenFile:
        """The tokens as they are now on disk."""
        try:
            found = self._path.stat()
        except OSError:
            return TokenFile(self._path, self._file.secret, ())
        state = (found.st_mtime_ns, found.st_ino)
        if state != self._state:
            self._file, self._state = TokenFile.load(self._path), state
        return self._file

    def _sign(self, purpose: str, body: str) -> str:
        """Keyed hash of a session's body, for one purpose."""
        key = self._tokens().secret.encode()
        raw = hmac.digest(key, f"{purpose}:{body}".encode(), "sha256")
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in time that does not depend on them."""
    return bool(wanted) and hmac.compare_digest(_hash(given), _hash(wanted))
