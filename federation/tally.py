"""What became of a round's replies: counts, bytes and seconds, nothing of any single device."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one round."""

    asked: int = 0
    accepted: int = 0
    used: int = 0  # of the accepted, those the rule kept
    declined: Counter[str] = field(default_factory=Counter)  # the device said no, by word
    rejected: Counter[str] = field(default_factory=Counter)  # we said no, by reason
    bytes_in: int = 0
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """Devices that never answered."""
        return self.asked - self.accepted - self.declined.total() - self.rejected.total()

    def figures(self) -> dict[str, object]:
        """Return everything as plain JSON values."""
        return {
            "asked": self.asked,
            "accepted": self.accepted,
            "used": self.used,
            "declined": dict(self.declined),
            "rejected": dict(self.rejected),
            "missing": self.missing,
            "bytes_in": self.bytes_in,
            "seconds": round(self.seconds, 3),
        }
