"""Who gets in: forged requests, tokens and scopes, the page's session, limits, slow clients, where it may listen."""

import itertools
import socket
import time
from pathlib import Path

import httpx
import pytest

from feedback.gateway.settings import GatewaySettings, check_bind
from feedback.gateway.tokens import Doorman, TokenFile
from store.errors import IntegrityError, UsageError
from tests.gateway.running import CONTROL, Running, running

EVIL = "https://evil.example"
HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost.evil.example",
         "0.0.0.0:{port}", "127.0.0.1:1", "localhost", "[::1]", "127.0.0.1:{port}@evil.example",
         "169.254.169.254"]  # fmt: skip
ORIGINS = [EVIL, "null", "http://127.0.0.1:1", "http://localhost.evil.example:{port}", "https://127.0.0.1:{port}",
           "http://127.0.0.1:{port}.evil.example", "file://", "chrome-extension://abc"]  # fmt: skip
SITES = ["cross-site", "same-site"]
TARGETS = [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("DELETE", "/v1/corrections/x")]


def forged() -> list[tuple[str, str, dict[str, str]]]:
    """Sixty requests as a hostile web page, or a rebound name, would send them, each with a valid token."""
    by_host = [(m, p, {"Host": host}) for host, (m, p) in itertools.product(HOSTS, TARGETS)]
    by_origin = [(m, p, {"Origin": origin}) for origin, (m, p) in itertools.product(ORIGINS, TARGETS)]
    by_site = [(m, p, {"Sec-Fetch-Site": site}) for site, (m, p) in itertools.product(SITES, TARGETS)]
    return [*by_host, *by_origin, *by_site]


def test_no_forged_request_reaches_a_handler(served: Running) -> None:
    """Sixty of them, with the strongest token there is: DNS rebinding, cross-site requests, opaque origins."""
    attempts = forged()
    assert len(attempts) == 60
    with served.admin() as client:
        for method, path, headers in attempts:
            ours = {name: value.format(port=served.port) for name, value in headers.items()}
            answer = client.request(
                method,
                path,
                headers={**ours, "Content-Type": "application/json"},
                content=b"{}" if method == "POST" else None,
            )
            assert answer.status_code == 403, headers
            assert answer.json()["error"]["code"] in ("host_refused", "origin_refused")
            assert "access-control-allow-origin" not in answer.headers


def test_the_own_page_and_programs_are_let_through(served: Running) -> None:
    """Every name of this machine, with the page's origin or none."""
    with served.client() as client:
        for name in ("127.0.0.1", "localhost", "[::1]"):
            own = f"{name}:{served.port}"
            assert client.get("/v1/models", headers={"Host": own}).status_code == 200
            page = {"Host": own, "Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}
            assert client.get("/v1/models", headers=page).status_code == 200


def test_two_hosts_are_refused(served: Running) -> None:
    """A second Host header could speak to another check than the first."""
    request = f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nHost: evil.example\r\n\r\n"
    assert b" 400 " in _raw(served, request.encode()).partition(b"\r\n")[0]


def test_a_listed_origin_may_call_and_no_other(tmp_path: Path) -> None:
    """The preflight is answered before any token is asked for; other origins get no permission."""
    with running(tmp_path, settings=GatewaySettings(origins=("https://app.example",))) as served:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        with httpx.Client(base_url=served.url) as client:
            good = client.options("/v1/chat/completions", headers={"Origin": "https://app.example", **asked})
            bad = client.options("/v1/chat/completions", headers={"Origin": EVIL, **asked})
            listed = client.get("/v1/models", headers={"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site",
                                                       "Authorization": f"Bearer {served.token}"})  # fmt: skip
        assert (good.status_code, good.headers["access-control-allow-origin"]) == (204, "https://app.example")
        assert (bad.status_code, "access-control-allow-origin" in bad.headers) == (403, False)
        assert (listed.status_code, listed.headers["access-control-allow-origin"]) == (200, "https://app.example")


@pytest.mark.parametrize("token", ["", "wrong", "cg-", "cg-" + "x" * 32, "control-secret-of-this-ru"])
def test_no_token_or_a_wrong_one_is_401(served: Running, token: str) -> None:
    """On every route that holds anything."""
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {token}"} if token else {}) as client:
        for method, path in [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/v1/corrections"),
                             ("GET", "/api/status"), ("GET", "/api/events"), ("POST", "/auth/ticket")]:  # fmt: skip
            answer = client.request(
                method, path, json={"messages": [{"role": "user", "content": "x"}]} if method == "POST" else None
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_chat_token_can_neither_correct_nor_administer(served: Running) -> None:
    """Two hundred tries to teach the model with a token that may only talk: all 403, nothing kept."""
    made = TokenFile.load(served.tokens).added("talker", ["chat"])
    made.save()
    before = len(served.store.corrections())
    completion = served.ask("turn off the kitchen light").json()["id"]
    with served.client(made.tokens[-1].value) as client:
        assert client.get("/v1/models").status_code == 200
        for number in range(200):
            body = {"completion_id": completion, "corrected": f"poison {number}"}
            assert client.post("/v1/corrections", json=body).status_code == 403
        for path in ("/v1/corrections", "/api/status", "/api/privacy", "/api/interactions"):
            assert client.get(path).status_code == 403
        assert client.post("/auth/ticket").status_code == 403
    assert len(served.store.corrections()) == before
    made.removed("talker").save()
    with served.client(made.tokens[-1].value) as client:
        assert client.get("/v1/models").status_code == 401


def test_the_token_file_is_for_the_owner_alone(tmp_path: Path) -> None:
    """Made 0600; one that others can read is refused, as is a damaged one."""
    path = tmp_path / "tokens.json"
    TokenFile.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(IntegrityError, match="other users"):
        TokenFile.load(path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(IntegrityError, match="damaged"):
        TokenFile.load(path)


def test_the_page_gets_in_once_with_a_ticket_and_needs_its_csrf_token(served: Running) -> None:
    """The cookie is not for scripts nor for other sites; unsafe requests without the token are refused."""
    with served.admin() as admin:
        ticket = admin.post("/auth/ticket").json()["token"]
    with httpx.Client(base_url=served.url) as page:
        opened = page.post("/auth/session", json={"token": ticket})
        cookie = opened.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/"))
        csrf = opened.json()["csrf"]
        assert page.get("/auth/session").json() == {"csrf": csrf}
        assert page.get("/api/status").status_code == 200
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        for headers, status in (({}, 403), ({"X-CSRF-Token": "x"}, 403), ({"X-CSRF-Token": csrf}, 200)):
            assert page.post("/v1/chat/completions", json=body, headers=headers).status_code == status
    with httpx.Client(base_url=served.url) as other:
        assert other.post("/auth/session", json={"token": ticket}).status_code == 401


def test_a_session_cannot_be_made_up_or_stretched(tmp_path: Path) -> None:
    """Any change to the cookie makes it worthless; it outlives a restart but not the token file."""
    path = tmp_path / "tokens.json"
    TokenFile.load(path)
    doorman = Doorman(path, CONTROL)
    opened = doorman.open_session(doorman.ticket())
    assert opened is not None
    cookie, csrf = opened
    found = Doorman(path, "another run").session(cookie)
    assert found is not None
    assert found.csrf == csrf
    end, rest = cookie.split(".", 1)
    for forged_cookie in (f"{int(end) + 1}.{rest}", cookie[:-1], cookie + "A", "", "..", f"{'9' * 20}.x.y"):
        assert doorman.session(forged_cookie) is None
    path.unlink()
    TokenFile.load(path)
    assert Doorman(path, CONTROL).session(cookie) is None


def test_answers_carry_the_headers_that_bind_a_browser(served: Running) -> None:
    """Errors, too."""
    with httpx.Client(base_url=served.url) as client:
        for path in ("/healthz", "/v1/models", "/nothing"):
            headers = client.get(path).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers


def test_too_many_headers_and_a_huge_head_are_refused(served: Running) -> None:
    """A hundred fields and 64 KiB are plenty."""
    start = f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    many = start + "".join(f"X-{i}: y\r\n" for i in range(120)) + "\r\n"
    assert b" 431 " in _raw(served, many.encode()).partition(b"\r\n")[0]
    huge = start + "X: " + "y" * 100_000 + "\r\n\r\n"
    assert _raw(served, huge.encode()).partition(b"\r\n")[0].split()[1] in (b"400", b"431")


def test_slow_clients_are_dropped(tmp_path: Path) -> None:
    """One that never ends its head, one that never ends its body, one that never reads: each loses its connection."""
    with running(tmp_path, settings=GatewaySettings(patience=0.4)) as served:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        body = (
            f"Authorization: Bearer {served.token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        )
        started = time.monotonic()
        assert _raw(served, head.encode()) == b""
        assert b" 408 " in _raw(served, (head + body).encode()).partition(b"\r\n")[0]
        assert time.monotonic() - started < 15
        assert served.ask("hello", max_tokens=2).status_code == 200


@pytest.mark.parametrize(
    ("settings", "exposed", "tokens", "allowed"),
    [
        ({"host": "127.0.0.1"}, False, 0, True),
        ({"host": "::1"}, False, 0, True),
        ({"host": "0.0.0.0"}, False, 1, False),
        ({"host": "0.0.0.0"}, True, 1, False),
        ({"host": "0.0.0.0", "certificate": Path("c"), "key": Path("k")}, False, 1, False),
        ({"host": "192.0.2.1", "certificate": Path("c"), "key": Path("k")}, True, 0, False),
        ({"host": "example.org", "certificate": Path("c")}, True, 1, False),
        ({"host": "0.0.0.0", "certificate": Path("c"), "key": Path("k")}, True, 1, True),
    ],
)
def test_listening_beyond_this_machine_needs_word_tls_and_token(
    settings: dict[str, object], exposed: bool, tokens: int, allowed: bool
) -> None:
    """All three, or it is refused."""
    value = GatewaySettings(**settings)  # type: ignore[arg-type]
    if allowed:
        check_bind(value, exposed=exposed, tokens=tokens)
        return
    with pytest.raises(UsageError) as caught:
        check_bind(value, exposed=exposed, tokens=tokens)
    assert caught.value.code == "exposed"


def test_nothing_outside_the_page_folder_is_served(served: Running) -> None:
    """However the path is written."""
    with httpx.Client(base_url=served.url) as client:
        for name in ("../gateway/app.py", "..%2fgateway%2fapp.py", "%2e%2e/recorder.py", ".gitignore", "x\0y", "a/b"):
            assert client.get(f"/page/{name}".replace("\0", "%00")).status_code in (404, 403)


def _raw(served: Running, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the connection ends; a reset counts as an end."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
                if b"\r\n\r\n" in received and b" 408 " not in received:
                    break
        except ConnectionResetError:
            pass
    return received
