"""A fleet small enough for unit tests: one-layer geometry, numpy-made private deltas, an in-process Grid."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Error, Message, RecordDict

from federation import membership, pki
from federation.deploy import create_server
from federation.device import Device
from federation.plan import Plan, ServerFolder
from federation.spec import Limits, Pace, RoundSpec, wire_scale
from federation.state import FleetState, Node
from federation.update import MECHANISM, Expected
from learner.base import Geometry
from learner.lora import LoraWeights
from learner.private import PrivateDelta, PrivateSpec
from store.memory import MemoryStore
from store.records import Consent, Correction, Example, Interaction, digest
from store.records import Message as Turn

BASE = digest(b"a base model")
WIDTH, WIDE, RANK = 16, 32, 4
GEOMETRY = Geometry(
    "llama",
    1,
    2,
    2,
    {
        **{f"model.layers.0.self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"},
        "model.layers.0.mlp.gate_proj": (WIDE, WIDTH),
        "model.layers.0.mlp.up_proj": (WIDE, WIDTH),
        "model.layers.0.mlp.down_proj": (WIDTH, WIDE),
    },
)
LAYOUT = tuple((path, GEOMETRY.shapes[path][0], RANK) for path in sorted(GEOMETRY.shapes))
COUNT = sum(outputs * rank for _, outputs, rank in LAYOUT)


def make_spec(**changes: object) -> RoundSpec:
    """A mechanism at about epsilon 2 a round."""
    figures = {"noise_multiplier": 2.0, "clipping_norm": 1.0, "steps": 10, "divisor": 8.0, "learning_rate": 0.5}
    quantum, max_norm = wire_scale(**figures, count=COUNT)
    fields = {
        **figures, "sampling_rate": 0.25, "rank": RANK, "alpha": 8.0, "seed_a": 7, "layers": 1, "quantum": quantum,
        "max_norm": max_norm,
    }  # fmt: skip
    return RoundSpec(**{**fields, **changes})


def make_delta(spec: RoundSpec, fill: Callable[[tuple[int, int]], np.ndarray]) -> PrivateDelta:
    """A delta as private training would return it, with numbers of our own."""
    mechanism = PrivateSpec(**{name: getattr(spec, name) for name in MECHANISM})
    return PrivateDelta({name: fill((out, rank)).astype(np.float32) for name, out, rank in LAYOUT}, mechanism)


def make_expected(spec: RoundSpec | None = None, **changes: object) -> Expected:
    """What a round-1 update must say."""
    return replace(Expected(BASE, digest(b"release 0"), 1, spec or make_spec(), LAYOUT), **changes)


@dataclass
class Owner:
    """One device of the test fleet and what its trainer was given."""

    node_id: int
    device: Device
    taught: list[list[Example]] = field(default_factory=list)


def constant_trainer(owner_taught: list[list[Example]], value: float) -> Callable[..., PrivateDelta]:
    """A trainer whose noised change is `value` everywhere."""

    def train(examples: list[Example], spec: RoundSpec, _start: LoraWeights) -> PrivateDelta:
        owner_taught.append(list(examples))
        return make_delta(spec, lambda shape: np.full(shape, value))

    return train


@dataclass
class Fleet:
    """A server folder and enrolled devices, all in this process."""

    folder: ServerFolder
    plan: Plan
    owners: list[Owner]

    @property
    def key(self) -> Ed25519PrivateKey:
        """The fleet's release key."""
        return pki.load_signing_key(self.folder.release_key)

    @property
    def roster(self) -> dict[int, str]:
        """Node id -> device key."""
        return self.state.admitted()

    @property
    def state(self) -> FleetState:
        """What the server remembers."""
        return self.folder.state()


def add_correction(store: MemoryStore, text: str, *, share: bool = True) -> None:
    """Let the owner of `store` correct one answer."""
    asked = Interaction(messages=(Turn("user", text),), answer="wrong", model=BASE, time=time.time())
    store.add(asked)
    store.add(Correction(interaction=asked.id, corrected=f"right {text}", share=share, time=time.time()))


def make_fleet(root: Path, count: int = 3, *, values: Iterable[float] = (), limits: Limits | None = None) -> Fleet:
    """`count` devices with one correction each, consented and enrolled; device i changes B by values[i]."""
    release_key = create_server(root / "server")
    folder = ServerFolder(root / "server")
    plan = Plan(
        denoise=False,  # the changes here are made up and smaller than the noise their spec speaks of
        rounds=1,
        base=BASE,
        model="none",
        geometry=GEOMETRY,
        spec=make_spec(),
        pace=Pace(quorum=2, expected=count, gather=0.2, deadline=120.0, poll=0.01),
    )
    owners = []
    for number, value in zip(range(count), [*values, *[0.01] * count], strict=False):
        place = membership.join(root / f"device{number}", release_key=release_key, base=BASE, limits=limits)
        store = MemoryStore()
        add_correction(store, f"question {number}")
        store.add(Consent(purpose="share", granted=True, destination=place.fleet, time=time.time()))
        taught: list[list[Example]] = []
        device = Device(store, place, place.signing_key(), GEOMETRY, constant_trainer(taught, value))
        key = pki.public_bytes(device.key).hex()
        folder.state().enroll(Node(node_id=1000 + number, name=f"device{number}", device=key))
        owners.append(Owner(1000 + number, device, taught))
    return Fleet(folder, plan, owners)


def error_reply(message: Message) -> Message:
    """What Flower itself answers for a node that went away."""
    return Message(Error(code=5, reason="Node Unavailable"), reply_to=message)


def record_reply(message: Message, **records: object) -> Message:
    """A reply with these records."""
    return Message(RecordDict(records), reply_to=message)
