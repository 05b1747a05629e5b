"""What a fleet server counts, for Prometheus: read from the state at every scrape, so that a restart loses nothing.

Counts and public figures only; nothing of any single device.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from federation.server import HALTED
from federation.state import FleetState

Families = CounterMetricFamily | GaugeMetricFamily


class FleetCollector(Collector):
    """Turns the state, and the front's counts, into metric families."""

    def __init__(self, state: FleetState, answers: Mapping[tuple[str, int], int]) -> None:
        self._state = state
        self._answers = answers

    def collect(self) -> Iterator[Families]:
        """Yield every family."""
        yield from self._of_rounds()
        yield from self._of_releases()
        nodes = Counter("revoked" if node.revoked else "enrolled" for node in self._state.nodes())
        yield _family(GaugeMetricFamily, "corrigible_devices", "Devices by standing.", "standing", nodes)
        halted = GaugeMetricFamily("corrigible_halted", "1 while the operator has stopped all rounds.")
        halted.add_metric([], float(bool(self._state.get(HALTED))))
        yield halted
        front = CounterMetricFamily("corrigible_front_answers", "Answers to devices.", labels=["verb", "status"])
        for (verb, status), count in sorted(self._answers.items()):
            front.add_metric([verb, str(status)], count)
        yield front

    def _of_rounds(self) -> Iterator[Families]:
        """Verdicts, updates by outcome and reason, bytes, age of the last round."""
        verdicts: Counter[str] = Counter()
        updates: Counter[tuple[str, str]] = Counter()
        size, last = 0, 0.0
        for entry in self._state.rounds():
            report = entry.report
            verdicts[entry.verdict] += 1
            size, last = size + int(report.get("bytes_in", 0)), max(last, entry.begun)
            updates["accepted", ""] += int(report.get("accepted", 0))
            updates["missing", ""] += int(report.get("missing", 0))
            for outcome in ("declined", "rejected"):
                for reason, count in dict(report.get(outcome, {})).items():
                    updates[outcome, reason] += int(count)
        yield _family(CounterMetricFamily, "corrigible_rounds", "Rounds by verdict.", "verdict", verdicts)
        family = CounterMetricFamily("corrigible_updates", "Replies by outcome.", labels=["outcome", "reason"])
        for (outcome, reason), count in sorted(updates.items()):
            family.add_metric([outcome, reason], count)
        yield family
        yield CounterMetricFamily("corrigible_update_bytes", "Bytes of updates taken in.", value=size)
        if last:
            age = GaugeMetricFamily("corrigible_last_round_age_seconds", "Since the last round began.")
            age.add_metric([], time.time() - last)
            yield age

    def _of_releases(self) -> Iterator[Families]:
        """How far each release is out."""
        family = GaugeMetricFamily(
            "corrigible_release_rollout_percent", "Devices a release reaches.", labels=["round", "status"]
        )
        for row in self._state.releases():
            family.add_metric([str(row.number), row.status], 0 if row.status == "withdrawn" else row.percent)
        yield family


def exposition(state: FleetState, answers: Mapping[tuple[str, int], int]) -> bytes:
    """Return all metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(state, answers))
    return generate_latest(registry)


def _family(kind: type[Families], name: str, words: str, label: str, counts: Mapping[str, int]) -> Families:
    """A family with one label."""
    family = kind(name, words, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
