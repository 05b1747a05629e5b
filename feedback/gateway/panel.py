"""The page's own routes: what is served, learned, spent and sent, and the few things the owner can do about it."""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from feedback.gateway.access import needs
from feedback.gateway.ask import chat_ask
from feedback.gateway.corrections import Corrections
from feedback.gateway.documents import EVENTS, errors
from feedback.gateway.errors import ApiError
from feedback.gateway.schema import ChatRequest
from feedback.gateway.state import Gateway
from feedback.gateway.tokens import Identity
from store.base import StoreBase, corrected
from store.egress import folded
from store.records import Consent, Correction, Egress, Interaction, LiveVerdict, Purpose, Receipt, Slot, Spend, Verdict

router = APIRouter(prefix="/api", tags=["page"])
Admin = Annotated[Identity, Depends(needs("admin"))]
COMMON = errors(400, 401, 403, 404, 408, 409, 413, 415, 431, 502, 503)
PURPOSES: tuple[Purpose, ...] = ("log", "learn", "share", "upstream")
EXAMPLES = 20  # shown per run
HELD_OUT = "held-out"  # the slice of a verdict that the curve shows


class Rollback(BaseModel):
    """Which slot goes back."""

    slot: Slot


class Word(BaseModel):
    """The owner's word on a purpose."""

    purpose: Purpose
    granted: bool


@router.get("/status", responses=COMMON)
def status(request: Request, _: Admin) -> dict[str, Any]:
    """What is stored, served and waiting; whether answers are recorded."""
    gateway = _gateway(request)
    logging, (growing, waiting) = gateway.journal.state, gateway.desk.load
    found = gateway.above.status()
    found["model"]["name"] = gateway.catalogue.name
    return {
        **found,
        "version": version("corrigible"),
        "learner": gateway.above.learner(),
        "logging": {"on": logging.on, "reason": logging.reason},
        "answers": {"growing": growing, "waiting": waiting},
        "models": gateway.catalogue.ids,
        "upstream": gateway.upstream.state if gateway.upstream else None,
    }


@router.get("/interactions", responses=COMMON)
def interactions(
    request: Request,
    _: Admin,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=200, description="Completion id of the last one seen.")] = None,
) -> dict[str, Any]:
    """The answers recorded, newest first, with what the owner said of each."""
    found = Corrections(_gateway(request).store).interactions(before)
    page = list(islice(found, limit))
    return {"data": page, "has_more": next(found, None) is not None}


@router.delete("/interactions/{completion_id}", responses=COMMON)
def forget(request: Request, completion_id: str, _: Admin) -> dict[str, Any]:
    """Remove an answer and all that hangs on it, for good."""
    gateway = _gateway(request)
    gateway.store.remove(gateway.journal.interaction(completion_id).id)
    return {"deleted": True}


@router.get("/learning", responses=COMMON)
def learning(request: Request, _: Admin) -> dict[str, Any]:
    """Every learning run with its evidence, the error over time, and what serves."""
    gateway = _gateway(request)
    store, doing = gateway.store, gateway.above.learner()
    verdicts = store.all(Verdict)
    words, receipts = _words(store, verdicts), {one.run: one for one in store.all(Receipt)}
    return {
        "runs": [_run(one, words, receipts.get(one.id)) for one in reversed(verdicts)],
        "live": [asdict(one) for one in reversed(store.all(LiveVerdict))],
        "running": doing if doing["state"] in ("running", "paused") and doing.get("steps") else None,
        "curve": [point for one in verdicts if (point := _point(one)) is not None],
        "active": {slot: store.active(slot) for slot in ("shared", "personal")},
    }


@router.post("/learning/run", status_code=202, responses=COMMON)
def learn(request: Request, _: Admin) -> dict[str, Any]:
    """Learn now; the outcome arrives as an event."""
    return _gateway(request).above.learn()


@router.post("/adapters/rollback", responses=COMMON)
def rollback(request: Request, body: Rollback, _: Admin) -> dict[str, Any]:
    """Serve what was served before, at once."""
    gateway = _gateway(request)
    done = gateway.above.rollback(body.slot)
    gateway.catalogue.refresh()
    return done


@router.get("/privacy", responses=COMMON)
def privacy(request: Request, _: Admin) -> dict[str, Any]:
    """Consents, budget, everything that left, and a receipt for each private update."""
    gateway = _gateway(request)
    spends = gateway.store.all(Spend)
    return {
        "consents": consents(gateway.store),
        "budget": gateway.above.budget(),
        "egress": [
            {
                "time": one.time,
                "purpose": one.purpose,
                "destination": one.destination,
                "bytes": one.size,
                "digest": one.payload,
                "epsilon": one.epsilon,
            }
            for one in reversed(folded(gateway.store.all(Egress)))
        ],
        "receipts": [{**asdict(one), "id": one.id} for one in reversed(spends)],
    }


@router.get("/privacy/preview", responses=COMMON)
def preview(request: Request, _: Admin) -> dict[str, Any]:
    """A readable account of the next update; nothing is sent or spent."""
    return _gateway(request).above.preview()


@router.post("/upstream/preview", responses=COMMON)
def upstream_preview(request: Request, body: ChatRequest, _: Admin) -> dict[str, Any]:
    """Show what would be sent to the upstream for a conversation, redacted; nothing is sent."""
    gateway = _gateway(request)
    ask = chat_ask(body, takes_tools=False, default_tokens=gateway.default_tokens)
    if gateway.upstream is None or ask.messages is None:
        raise ApiError(409, "There is no upstream, or the conversation is not plain text.", code="not_configured")
    return asdict(gateway.upstream.preview(ask.messages, ask.sampling))


@router.put("/privacy/consents", responses=COMMON)
def consent(request: Request, body: Word, _: Admin) -> dict[str, Any]:
    """Give or withdraw the owner's word on one purpose."""
    gateway = _gateway(request)
    gateway.above.consent(body.purpose, body.granted)
    gateway.journal.look_again()
    return {"consents": consents(gateway.store)}


@router.get("/health", responses=COMMON)
def health(request: Request, _: Admin) -> dict[str, Any]:
    """What the doctor finds."""
    return {"checks": _gateway(request).above.health()}


@router.get(
    "/events",
    response_class=Response,
    responses={200: {"content": EVENTS}, **COMMON},
)
async def events(request: Request, _: Admin) -> Response:
    """Server-sent events: `correction`, `learning`, `adapter`, `privacy`, `health`, without data."""
    return StreamingResponse(_gateway(request).watcher.listen(), media_type="text/event-stream")


def consents(store: StoreBase) -> dict[str, bool]:
    """Return the owner's newest word per purpose; with several destinations, whether any has a yes."""
    newest = {(one.purpose, one.destination): one.granted for one in store.all(Consent)}
    return {purpose: any(granted for key, granted in newest.items() if key[0] == purpose) for purpose in PURPOSES}


def _run(verdict: Verdict, words: dict[str, dict[str, str | None]], paid: Receipt | None) -> dict[str, Any]:
    """One learning run as the page shows it."""
    return {
        "id": verdict.id,
        "time": verdict.time,
        "decision": verdict.decision,
        "reason": verdict.reason,
        "gain": verdict.gain,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "evidence": verdict.evidence,
        "slices": [asdict(one) for one in verdict.slices],
        "fixed": [words[id] for id in verdict.fixed if id in words][:EXAMPLES],
        "broken": [words[id] for id in verdict.broken if id in words][:EXAMPLES],
        "adapter": verdict.adapter or None,
        "receipt": {"seconds": verdict.seconds, **(asdict(paid) if paid else {})},
    }


def _point(verdict: Verdict) -> dict[str, Any] | None:
    """Error on held-out corrections before and after a run, in points; None where none were judged."""
    held = next((one for one in verdict.slices if one.name == HELD_OUT), None)
    if held is None:
        return None
    return {"time": verdict.time, "error_before": 100 - held.before, "error_after": 100 - held.after}


def _words(store: StoreBase, verdicts: Iterable[Verdict]) -> dict[str, dict[str, str | None]]:
    """Request, answer before and answer wanted of every example that a verdict names and that still exists."""
    named = {id for one in verdicts for id in (*one.fixed, *one.broken)}
    if not named:
        return {}
    found = {one.id: one for one in store.all(Interaction)}
    examples = [(corrected(found[one.interaction], one), found[one.interaction])
                for one in store.all(Correction) if one.interaction in found]  # fmt: skip
    approved = [(one, None) for one in store.examples() if one.rejected is None]
    return {
        example.id: {
            "request": example.messages[-1].content,
            "before": interaction.answer if interaction else example.answer,
            "after": example.answer if interaction else None,
        }
        for example, interaction in [*examples, *approved]
        if example.id in named
    }


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
