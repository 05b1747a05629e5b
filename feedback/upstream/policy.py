"""When a bigger model may be asked: the owner's written policy as values. Sends nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from store.errors import UsageError

Trigger = Literal["request", "too_long", "unsure"]
TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)
LEAST_WRONG = 20  # corrected answers that a threshold rests on


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamPolicy:
    """One OpenAI-compatible endpoint and when it may be asked.

    Attributes:
        url: its base address, ending in /v1.
        model: the model id to ask it for.
        when: on request (model id NAME@upstream), when a prompt does not fit the device model's context, when the
            device model is unsure.
        threshold: mean log-probability per token under which an answer is unsure.
        timeout: seconds for the whole exchange.
        key_file: file with the endpoint's API key; None: none is sent.
        authorities: PEM file of the authorities that its certificate must come from; None: the system's.
    """

    url: str
    model: str
    when: tuple[Trigger, ...] = ("request",)
    threshold: float | None = None
    timeout: float = 20.0
    key_file: Path | None = None
    authorities: Path | None = None

    def __post_init__(self) -> None:
        """Refuse an address that cannot be used.

        Raises:
            UsageError: not http or https, or HTTP beyond this machine (code ``config``).
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError("The upstream's url must be http(s)://HOST[:PORT]/v1.", code="config")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            hint = "Use https; plain http only reaches this machine."
            raise UsageError("The upstream's url must be https.", hint=hint, code="config")
        if unknown := [one for one in self.when if one not in TRIGGERS]:
            raise UsageError(f"Unknown trigger {unknown[0]!r}.", hint=f"Known: {', '.join(TRIGGERS)}.", code="config")
        if "unsure" in self.when and self.threshold is None:
            hint = "`corrigible gateway calibrate` finds one on your corrections."
            raise UsageError("The trigger unsure needs a threshold.", hint=hint, code="config")

    @property
    def origin(self) -> str:
        """Scheme, host and port: what consent is given for."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{port}"

    def unsure(self, confidence: float) -> bool:
        """Whether an answer of this mean log-probability should be asked upstream."""
        return "unsure" in self.when and self.threshold is not None and confidence < self.threshold


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what it does on the answers it was found on.

    Attributes:
        threshold: mean log-probability per token.
        caught: share of the corrected answers that lie under it.
        sent: share of all answers that lie under it.
        auc: probability that a corrected answer is less sure than one that stood.
    """

    threshold: float
    caught: float
    sent: float
    auc: float
    right: int
    wrong: int


def calibrate(right: Sequence[float], wrong: Sequence[float]) -> Calibration:
    """Find the threshold that separates answers that stood from corrected ones best (Youden's J).

    Args:
        right: mean log-probabilities of answers that stood.
        wrong: of answers that the owner corrected.

    Raises:
        UsageError: too few of either (code ``too_little_evidence``).
    """
    if len(wrong) < LEAST_WRONG or len(right) < LEAST_WRONG:
        message = f"{len(wrong)} corrected answers and {len(right)} that stood; {LEAST_WRONG} of each are needed."
        raise UsageError(message, hint="Correct more answers first.", code="too_little_evidence")

    def below(values: Sequence[float], threshold: float) -> float:
        return sum(value < threshold for value in values) / len(values)

    candidates = sorted({*right, *wrong})
    best = max(candidates, key=lambda one: below(wrong, one) - below(right, one))
    pairs = sum((bad < good) + 0.5 * (bad == good) for bad in wrong for good in right)
    sent = below([*right, *wrong], best)
    return Calibration(best, below(wrong, best), sent, pairs / (len(wrong) * len(right)), len(right), len(wrong))
