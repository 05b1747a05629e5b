"""Private training as a round asks for it: the learner's DP-SGD behind the device's `Trainer`."""

from collections.abc import Sequence

from federation.device import Trainer
from federation.spec import RoundSpec
from federation.update import MECHANISM
from learner.base import Base
from learner.lora import LoraWeights
from learner.private import PrivateDelta, PrivateSpec, train_private
from store.records import Example


def private_trainer(base: Base) -> Trainer:
    """Return a trainer over `base`, which stays loaded from round to round."""

    def train(examples: Sequence[Example], spec: RoundSpec, start: LoraWeights) -> PrivateDelta:
        mechanism = PrivateSpec(**{name: getattr(spec, name) for name in MECHANISM})
        return train_private(base, examples, mechanism, start=start)

    return train
