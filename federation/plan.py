"""What a fleet server is told to do, and the folder it keeps its things in."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from federation.aggregate import Rule
from federation.spec import Pace, RoundSpec
from federation.state import FleetState
from learner.base import Geometry
from store.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """Where a fleet server keeps its keys, registry, releases and reports."""

    root: Path

    @property
    def authority(self) -> Path:
        """Certificate of the fleet's own authority."""
        return self.root / "ca.crt"

    @property
    def release_key(self) -> Path:
        """The Ed25519 key that signs orders and releases."""
        return self.root / "release.key"

    @property
    def charter(self) -> Path:
        """The operator's settings."""
        return self.root / "charter.json"

    @property
    def root_key(self) -> Path:
        """The key that vouches for all other keys of the releases; belongs off the server."""
        return self.root / "root.key"

    @property
    def online_key(self) -> Path:
        """The key that says which releases are current."""
        return self.root / "online.key"

    @property
    def repository(self) -> Path:
        """The signed releases as static files, for devices and mirrors."""
        return self.root / "repository"

    @property
    def metadata(self) -> Path:
        """The repository's signed lists."""
        return self.repository / "metadata"

    @property
    def targets(self) -> Path:
        """The repository's manifests and adapters, named by their hashes."""
        return self.repository / "targets"

    @property
    def secret(self) -> Path:
        """Shared between SuperLink and the executor of the server app."""
        return self.root / "superexec.secret"

    @property
    def database(self) -> Path:
        """Flower's own state."""
        return self.root / "superlink.db"

    @property
    def state_url(self) -> str:
        """Where the server's state is: what the operator wrote into ``state.url``, else an SQLite file here."""
        named = self.root / "state.url"
        return named.read_text().strip() if named.exists() else f"sqlite:///{self.root / 'fleet.db'}"

    def state(self) -> FleetState:
        """Open the server's state: enrolled devices, rounds, releases, audit log."""
        return FleetState.open(self.state_url)

    @property
    def plan(self) -> Path:
        """What the next run shall do."""
        return self.root / "plan.json"

    @property
    def releases(self) -> Path:
        """Signed releases, one pair of files each."""
        return self.root / "releases"

    @property
    def logs(self) -> Path:
        """Logs of the last run's processes."""
        return self.root / "logs"

    def read_reports(self) -> list[dict[str, Any]]:
        """Return the reports of all rounds tried so far, oldest first."""
        return [dict(entry.report) for entry in self.state().rounds()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run of the server app does; public."""

    rounds: int
    base: str  # tagged hash of the base GGUF
    model: str  # path of the base GGUF, for the operator's probe set
    geometry: Geometry
    spec: RoundSpec
    pace: Pace
    delta: float = 1e-6
    rule: Rule = "mean"
    trim: float = 0.2  # share of values left out at each end, for the rule "trimmed"
    denoise: bool = True  # shrink the part of a round's mean that is only noise
    probe_items: int = 240  # 0: no probe set
    probe_tolerance: float = 0.7  # points the last release may lose against the base model alone
    spread: int = 1  # rounds that what may be lost is spread over
    triggers: str = ""  # path of JSONL pairs whose answers must not become likely
    trigger_tolerance: float = 5.0  # points they may gain against the base model alone

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Load what `write` saved.

        Raises:
            IntegrityError: the file is missing or damaged.
        """
        try:
            value: dict[str, Any] = json.loads(path.read_text())
            geometry = value["geometry"]
            shapes = {name: (int(out), int(wide)) for name, (out, wide) in geometry["shapes"].items()}
            parts = {
                "geometry": Geometry(**{**geometry, "shapes": shapes}),
                "spec": RoundSpec.parse(value["spec"]),
                "pace": Pace(**value["pace"]),
            }
            return cls(**{**value, **parts})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError("the fleet's plan cannot be read") from error
