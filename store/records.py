"""Immutable records, named by the hash of their canonical form.

Values only: equality is content. Sequence numbers, chaining and encryption are the store's business.
Importing this module loads nothing beyond the standard library.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

HASH_TAG = "sha256:"
TRANSPORT = "transport"  # purpose of an egress that counts an encrypted stream; what it carried has an entry of its own

Role = Literal["system", "user", "assistant"]
Slot = Literal["personal", "shared"]
Decision = Literal["adopt", "wait", "reject"]
Purpose = Literal["log", "learn", "share", "upstream"]  # what an owner agrees to, or takes back
Agreed = Literal["log", "learn", "share", "upstream", "join"]  # join: asking a fleet for its terms
State = Literal["pending", "accepted", "discarded"]
SignalKind = Literal["regenerate", "edit_resend", "copy_after_edit"]


def digest(data: bytes) -> str:
    """Return the tagged SHA-256 of `data`, e.g. ``sha256:9f86d0…`` (64 hex digits)."""
    return HASH_TAG + hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the canonical JSON of `value`: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: a number is NaN or infinite.
        UnicodeEncodeError: a string holds a lone surrogate.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all records; `id` is the tagged hash of kind and content."""

    @property
    def id(self) -> str:
        """Tagged SHA-256 over the record's kind and canonical content."""
        return digest(canonical([type(self).__name__, asdict(self)]))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction(Record):
    """One request and the answer that was served."""

    messages: tuple[Message, ...]  # the conversation up to and with the request; the last one is the user's
    answer: str
    model: str  # tagged hash of the base GGUF
    stack: tuple[str, ...] = ()  # adapters that answered, in order of application
    time: float  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Record):
    """What the owner says the answer should have been."""

    interaction: str
    corrected: str
    reason: str = ""
    share: bool = True  # False: may teach the personal adapter, never a shared update
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating(Record):
    """Thumbs: +1 approves the served answer, -1 rejects it without saying what is right."""

    interaction: str
    value: Literal[-1, 1]
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Record):
    """How an interaction was answered over HTTP: what its client may call it, and how sure the device was."""

    interaction: str
    name: str  # the completion id that the client was given
    model: str  # the model id that the client asked for
    confidence: float | None = None  # mean log-probability of the device's own answer; None: it made none
    source: str = ""  # who answered: the upstream's address; empty for the device
    fallback: str = ""  # why the upstream was asked and did not answer
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Review(Record):
    """The owner's word on a correction after it was made; the newest one counts.

    Only accepted corrections teach; without a word a correction is accepted.
    """

    interaction: str
    correction: str
    state: State
    share: bool
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(Record):
    """Weak evidence on an answer that is not the owner's word; never learned from as if it were."""

    interaction: str
    kind: SignalKind
    text: str = ""  # what was sent or copied instead, where there is such
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Record):
    """What training sees: a request, the answer wanted and, for corrections, the answer refused.

    Derived from an interaction and its correction or approval; never stored a second time.
    """

    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None  # None: an approved answer, used for replay
    share: bool = True
    time: float = 0.0

    @property
    def request(self) -> str:
        """Tagged hash of the conversation alone: repeats of one request share it."""
        return digest(canonical([asdict(message) for message in self.messages]))

    @property
    def said(self) -> bool:
        """Whether an owner said it; a pair that came with the base model has no time."""
        return self.time > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter(Record):
    """A LoRA adapter and its parents; its bytes are the artefact named by `digest`."""

    digest: str  # tagged hash of the GGUF bytes, which is also the artefact's name
    slot: Slot
    base: str  # tagged hash of the base GGUF
    shared: str | None = None  # digest of the shared release it was trained on top of
    parent: str | None = None  # digest of the adapter it was continued from
    examples: tuple[str, ...] = ()  # ids of the examples it learned from
    release: str | None = None  # id of the release manifest, for a shared adapter
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Mean score of one group of held-out items before and after, on a scale of 0 to 100 points."""

    name: str
    count: int
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """The gate's decision on one adapter, with its evidence."""

    adapter: str  # digest of the adapter judged
    decision: Decision
    reason: str
    gain: float  # mean gain on held-out corrections, points
    lower: float  # lower end of the paired-bootstrap 95 % interval of the gain, points
    upper: float
    evidence: int  # distinct held-out requests behind the gain
    slices: tuple[Slice, ...] = ()
    fixed: tuple[str, ...] = ()  # example ids now answered exactly that were not before
    broken: tuple[str, ...] = ()
    seconds: float = 0.0
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Record):
    """What one learning run has cost, over all processes that worked on it."""

    run: str  # id of its verdict; empty when it failed
    outcome: Literal["adopt", "wait", "reject", "failed"]
    code: str = ""  # of the error it failed with
    wall: float  # seconds
    cpu: float  # seconds
    peak: int  # bytes resident at most
    joules: float | None = None  # of the whole machine meanwhile; None: it does not tell
    energy: str = ""  # where the joules come from
    tokens: int = 0  # trained on
    steps: int = 0
    attempts: int = 1  # processes that worked on it
    corrections: int = 0  # newly learned
    fixed: int = 0
    broken: int = 0
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(Record):
    """From this moment `slot` serves `adapter` (None: nothing). The newest one counts."""

    slot: Slot
    adapter: str | None
    reason: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record):
    """From this moment `adapter` answers a share of the requests beside `champion`, until a `LiveVerdict`."""

    adapter: str  # digest of the personal adapter on trial
    champion: str | None  # what serves the other requests
    share: float  # of the requests, drawn at random
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVerdict(Record):
    """What the owner's own corrections say of an adapter in use, against the one before it."""

    adapter: str
    champion: str | None
    decision: Literal["keep", "rollback"]
    evidence: float  # e-value against "it is corrected no more often"; 20 refutes that at 5 %
    share: float  # of the requests it answered; 1: all, compared with those before it
    requests: int  # it answered
    corrections: int  # of these
    champion_requests: int
    champion_corrections: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure(Record):
    """The signed receipt of what was forgotten; it holds counts and names of adapters, nothing of what was said."""

    body: str  # canonical JSON
    signature: str  # Ed25519 over `body`, hex
    key: str  # the store's public key for receipts, hex
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent(Record):
    """The owner's word on one purpose; the newest one per purpose and destination counts."""

    purpose: Agreed
    granted: bool
    destination: str = ""  # for sharing: the fleet's identity
    terms: str = ""  # what was shown when the owner agreed
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend(Record):
    """Privacy budget spent by one private run, written before its update leaves.

    One DP-SGD run: `steps` compositions of the Poisson-subsampled Gaussian mechanism.
    Adjacency is add/remove one unit.
    """

    run: str  # names the run or round; unique per release attempt
    unit: Literal["correction", "device"]
    noise_multiplier: float
    sampling_rate: float
    steps: int
    clipping_norm: float
    delta: float
    epsilon: float  # of this run alone, at `delta`
    total: float  # of the device's whole life with this run included, at `delta`
    payload: str = ""  # digest of the bytes about to leave
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress(Record):
    """One message that left the device."""

    purpose: str
    destination: str
    consent: str  # id of the consent it rests on
    size: int  # bytes
    payload: str  # digest of the bytes
    epsilon: float = 0.0
    time: float


RECORD_TYPES: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        Interaction,
        Correction,
        Rating,
        Completion,
        Review,
        Signal,
        Adapter,
        Verdict,
        Receipt,
        Activation,
        Trial,
        LiveVerdict,
        Erasure,
        Consent,
        Spend,
        Egress,
    )
}
