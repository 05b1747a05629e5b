"""The operator's view of a running fleet, on loopback: a page of pictures, metrics, health. It changes nothing.

No script, no request to anywhere; pictures are SVG in the page itself. Whoever may log in to the machine may look.
"""

from collections.abc import Callable, Mapping
from html import escape

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from federation.charter import Charter
from federation.claim import terms
from federation.metrics import exposition
from federation.overview import Overview, overview
from federation.pictures import COLOURS, bars, curve, stacked
from federation.plan import ServerFolder
from federation.state import FleetState
from store.errors import CorrigibleError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .5rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #d8dee6}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#a3231f}.facts{display:flex;gap:2rem;flex-wrap:wrap}
.facts b{display:block;font-size:1.3rem}svg{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{background:#14181e;color:#dfe5ec}th,td{border-color:#333c47}.bad{color:#ff8a80}}
"""


class Console:
    """The handlers.

    Args:
        folder: the server's folder.
        charter: the operator's settings.
        answers: the front's counts.
        healthy: says whether Flower answers.
    """

    def __init__(
        self,
        folder: ServerFolder,
        charter: Charter,
        answers: Mapping[tuple[str, int], int],
        healthy: Callable[[], bool],
    ) -> None:
        self._charter = charter
        self._answers = answers
        self._healthy = healthy
        self._folder = folder
        self._state: FleetState = folder.state()

    def app(self) -> Starlette:
        """Return the ASGI application; foreign Host headers (DNS rebinding) are refused."""
        routes = [
            Route("/", self._page),
            Route("/state.json", self._json),
            Route("/metrics", self._metrics),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
        ]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        return Starlette(routes=routes, middleware=[hosts])

    async def _page(self, _request: Request) -> Response:
        view = await run_in_threadpool(overview, self._folder, self._state)
        return HTMLResponse(page(self._charter, view), headers={"Content-Security-Policy": POLICY})

    async def _json(self, _request: Request) -> Response:
        view = await run_in_threadpool(overview, self._folder, self._state)
        return JSONResponse(view.figures())

    async def _metrics(self, _request: Request) -> Response:
        data = await run_in_threadpool(exposition, self._state, self._answers)
        return Response(data, media_type="text/plain; version=0.0.4")

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, _request: Request) -> Response:
        """Ready when Flower and the database answer."""
        try:
            await run_in_threadpool(self._state.get, "ready?")
            flower = await run_in_threadpool(self._healthy)
        except CorrigibleError as error:
            return PlainTextResponse(error.code, 503)
        return PlainTextResponse("ok") if flower else PlainTextResponse("superlink", 503)


def page(charter: Charter, view: Overview) -> str:
    """Return the operator's page."""
    rounds = view.rounds
    numbers = [str(one["round"]) for one in rounds]
    cohorts = {
        "accepted": [float(one.get("accepted", 0)) for one in rounds],
        "declined": [float(sum(dict(one.get("declined", {})).values())) for one in rounds],
        "rejected": [float(sum(dict(one.get("rejected", {})).values())) for one in rounds],
        "missing": [float(one.get("missing", 0)) for one in rounds],
    }
    reach = {f"round {one.round}": 0 if one.status == "withdrawn" else one.rollout for one in reversed(view.releases)}
    parts = [
        f"<h1>{escape(charter.operator)}: fleet {escape(view.fleet.removeprefix('sha256:')[:12])}</h1>",
        _facts(view),
        "<h2>Rounds: devices by outcome</h2>",
        stacked(numbers, cohorts) if rounds else "<p>No round yet.</p>",
        "<h2>Refusals by reason</h2>",
        bars(view.rejects) if view.rejects else "<p>None.</p>",
        "<h2>Privacy: epsilon of all rounds so far, per release</h2>",
        curve([(one.round, one.epsilon_total) for one in view.releases], _unit(view)),
        "<h2>Rollout: devices that a release reaches</h2>",
        bars(reach, top=100, unit=" %", colour=COLOURS[0]) if reach else "<p>No release yet.</p>",
        f"<h2>Releases, epsilon {_unit(view)}</h2>",
        _releases(view),
    ]
    title = f"<title>Fleet of {escape(charter.operator)}</title>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>'
    return head + "<body><main>" + "\n".join(parts) + "</main></body></html>"


def _unit(view: Overview) -> str:
    """What an epsilon on this page is of."""
    return f"at delta {view.delta:g} per {view.unit} ({terms(view.unit)})"


def _facts(view: Overview) -> str:
    """The figures at the top."""
    log = f"{view.audit} entries, whole" if view.audit_whole else "CHANGED"
    facts = {
        "devices": f"{view.enrolled} enrolled, {view.revoked} revoked",
        "rounds": f"{len(view.rounds)}" + (" (halted)" if view.halted else ""),
        "newest release": f"round {view.releases[-1].round}" if view.releases else "none",
        f"epsilon {_unit(view)}": f"{view.epsilon_total:.2f}",
        "audit log": log,
    }
    return (
        '<div class="facts">' + "".join(f"<div>{name}<b>{escape(value)}</b></div>" for name, value in facts.items())
    ) + "</div>"


def _releases(view: Overview) -> str:
    """Releases with their reach."""
    head = "<tr><th>round</th><th>release</th><th>devices averaged</th><th>epsilon so far</th><th>reach</th></tr>"
    rows = "".join(
        f'<tr><td class="n">{one.round}</td><td>{escape(one.id.removeprefix("sha256:")[:12])}</td>'
        f'<td class="n">{one.cohort}</td><td class="n">{one.epsilon_total:.3f}</td>'
        f"<td{'' if one.status != 'withdrawn' else ' class=bad'}>"
        f"{'withdrawn' if one.status == 'withdrawn' else f'{one.rollout} % of devices'}</td></tr>"
        for one in reversed(view.releases)
    )
    return f"<table>{head}{rows}</table>"
