"""The feedback API: corrections with their states, ratings, and weak signals kept apart from both."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from feedback.gateway.access import needs
from feedback.gateway.documents import errors
from feedback.gateway.errors import ApiError, of
from feedback.gateway.schema import (
    CorrectionChange,
    CorrectionList,
    CorrectionView,
    NewCorrection,
    NewRating,
    NewSignal,
    RatingView,
    SignalView,
)
from feedback.gateway.state import Gateway
from feedback.gateway.tokens import Identity
from feedback.recorder import correct, rate, storable
from store.base import StoreBase, corrected
from store.errors import UsageError
from store.records import Adapter, Completion, Correction, Interaction, Rating, Review, Signal, State

router = APIRouter(prefix="/v1", tags=["feedback"])
Corrector = Annotated[Identity, Depends(needs("correct"))]
COMMON = errors(400, 401, 403, 404, 408, 413, 415, 431, 503)


@router.post("/corrections", status_code=201, response_model=CorrectionView, responses=COMMON)
def create(request: Request, body: NewCorrection, identity: Corrector) -> Any:  # noqa: ANN401
    """Say what an answer should have been.

    Made with a token whose corrections are reviewed, it waits as `pending`; else it is `accepted` at once.
    """
    gateway = _gateway(request)
    interaction = gateway.journal.interaction(body.completion_id)
    made = correct(gateway.store, interaction.id, body.corrected, reason=body.reason, share=body.share)
    if identity.review:
        gateway.store.add(_review(made, "pending", made.share))
    return Corrections(gateway.store).view(made)


@router.get("/corrections", response_model=CorrectionList, responses=COMMON)
def listing(
    request: Request,
    _: Corrector,
    q: Annotated[str | None, Query(max_length=1000)] = None,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=100, description="Id of the last correction seen.")] = None,
) -> Any:  # noqa: ANN401
    """List corrections, newest first; `q` searches requests, answers and corrections."""
    found = Corrections(_gateway(request).store).matching(q, state, before)
    page = list(islice(found, limit))
    return {"data": page, "has_more": next(found, None) is not None}


@router.get("/corrections/{id}", response_model=CorrectionView, responses=COMMON)
def show(request: Request, id: str, _: Corrector) -> Any:  # noqa: ANN401
    """Show one correction."""
    store = _gateway(request).store
    return Corrections(store).view(store.get(Correction, id))


@router.patch("/corrections/{id}", response_model=CorrectionView, responses=COMMON)
def change(request: Request, id: str, body: CorrectionChange, identity: Corrector) -> Any:  # noqa: ANN401
    """Accept, discard, mark as never to be shared, or take the newest such word back."""
    if identity.review:
        raise ApiError(403, "Corrections of this token are reviewed by the owner.", code="insufficient_scope")
    if body.undo and (body.state is not None or body.share is not None):
        raise ApiError(400, "undo goes alone.", code="invalid_value", param="undo")
    store = _gateway(request).store
    correction = store.get(Correction, id)
    past = [one for one in store.all(Review) if one.correction == correction.id]
    now = past[-1] if past else _review(correction, "accepted", correction.share)
    if body.undo:
        before = past[-2] if len(past) > 1 else _review(correction, "accepted", correction.share)
        wanted = _review(correction, before.state, before.share)
    else:
        wanted = _review(correction, body.state or now.state, now.share if body.share is None else body.share)
    store.add(wanted)
    return Corrections(store).view(correction)


@router.delete("/corrections/{id}", status_code=204, response_class=Response, responses=COMMON)
def remove(request: Request, id: str, _: Corrector) -> Response:
    """Remove a correction for good; the answer it speaks of stays."""
    store = _gateway(request).store
    store.remove(store.get(Correction, id).id)
    return Response(status_code=204)


@router.post("/ratings", status_code=201, response_model=RatingView, responses=COMMON)
def rating(request: Request, body: NewRating, _: Corrector) -> Any:  # noqa: ANN401
    """Approve or reject an answer."""
    gateway = _gateway(request)
    interaction = gateway.journal.interaction(body.completion_id)
    kept = rate(gateway.store, interaction.id, 1 if body.rating == "up" else -1)
    return {"id": kept.id, "completion_id": body.completion_id, "rating": body.rating}


@router.post("/signals", status_code=201, response_model=SignalView, responses=COMMON)
def signal(request: Request, body: NewSignal, _: Corrector) -> Any:  # noqa: ANN401
    """Keep weak evidence: the answer was regenerated, the request edited and sent again, or a copy edited."""
    gateway = _gateway(request)
    interaction = gateway.journal.interaction(body.completion_id)
    storable(body.text, "text")
    kept = Signal(interaction=interaction.id, kind=body.kind, text=body.text, time=time.time())
    gateway.store.add(kept)
    return {"id": kept.id, "completion_id": body.completion_id, "kind": body.kind}


class Corrections:
    """Reads corrections with what they correct, their state, and whether the serving adapter learned from them."""

    def __init__(self, store: StoreBase) -> None:
        self._store = store
        self._reviews = store.reviews()
        serving = store.active("personal")
        adapter = store.last(Adapter, digest=serving) if serving else None
        self._learned = set(adapter.examples) if adapter else set()

    def matching(self, q: str | None, state: State | None, before: str | None) -> Iterator[dict[str, Any]]:
        """Yield corrections, newest first, that have the words of `q` and this state, from after `before` on."""
        wanted = {one.id for one in self._store.search(q, limit=10_000)} if q and q.strip() else None
        corrections = self._store.all(Correction)[::-1]
        if before is not None:
            places = [i for i, one in enumerate(corrections) if one.id == before]
            if not places:
                raise of(UsageError("There is no correction with this id.", code="not_found"))
            corrections = corrections[places[0] + 1 :]
        for one in corrections:
            if (wanted is None or one.interaction in wanted) and (state is None or self._state(one) == state):
                yield self.view(one)

    def view(self, correction: Correction) -> dict[str, Any]:
        """One correction as the API tells it."""
        interaction = self._store.get(Interaction, correction.interaction)
        completion = self._store.last(Completion, interaction=interaction.id)
        review = self._reviews.get(correction.id) or self._store.last(Review, correction=correction.id)
        return {
            "id": correction.id,
            "completion_id": completion.name if completion else interaction.id,
            "request": interaction.messages[-1].content if interaction.messages else "",
            "answer": interaction.answer,
            "corrected": correction.corrected,
            "reason": correction.reason,
            "state": review.state if review else "accepted",
            "share": review.share if review else correction.share,
            "created": correction.time,
            "model": completion.model if completion else interaction.model,
            "learned": bool(self._learned) and self._example(correction, interaction) in self._learned,
        }

    def interactions(self, before: str | None) -> Iterator[dict[str, Any]]:
        """Yield answers, newest first, from after the completion `before` on, with what the owner said of each."""
        corrections = {one.interaction: one for one in self._store.all(Correction)}
        ratings = {one.interaction: one for one in self._store.all(Rating)}
        completions = {one.interaction: one for one in self._store.all(Completion)}
        waiting = before is not None
        for one in reversed(self._store.all(Interaction)):
            completion = completions.get(one.id)
            name = completion.name if completion else one.id
            if not waiting:
                found = self._answered(one, name, corrections.get(one.id), ratings.get(one.id))
                found |= {"source": completion.source, "fallback": completion.fallback} if completion else {}
                yield found
            waiting = waiting and name != before

    def _answered(
        self, one: Interaction, name: str, correction: Correction | None, rating: Rating | None
    ) -> dict[str, Any]:
        """One answer as the page shows it."""
        view = self.view(correction) if correction else None
        return {
            "completion_id": name,
            "request": one.messages[-1].content if one.messages else "",
            "answer": one.answer,
            "created": one.time,
            "model": one.model,
            "stack": list(one.stack),
            "corrected": view["corrected"] if view else None,
            "correction_id": view["id"] if view else None,
            "state": view["state"] if view else None,
            "share": view["share"] if view else None,
            "learned": bool(view and view["learned"]),
            "rating": None if rating is None else "up" if rating.value > 0 else "down",
        }

    def _state(self, correction: Correction) -> State:
        review = self._reviews.get(correction.id)
        return review.state if review else "accepted"

    def _example(self, correction: Correction, interaction: Interaction) -> str:
        """Id of the example that learning makes of it."""
        review = self._reviews.get(correction.id)
        share = review.share if review else correction.share
        return corrected(interaction, replace(correction, share=share)).id


def _review(correction: Correction, state: Literal["pending", "accepted", "discarded"], share: bool) -> Review:
    """A word on a correction, now."""
    return Review(
        interaction=correction.interaction, correction=correction.id, state=state, share=share, time=time.time()
    )


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
