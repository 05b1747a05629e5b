"""What the gateway gets from the rooms above it: adapters, status, the learner, consents."""

import threading
import time
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cli.background import holder
from cli.output import failure_of, log_frames
from cli.session import Session
from feedback import presence
from store.base import StoreBase
from store.errors import CorrigibleError, Locked, NotEligible, UsageError
from store.keys import Keys
from store.records import Consent, Purpose, Slot, Verdict

if TYPE_CHECKING:
    from feedback.engine import Adapters, Engine
    from feedback.gateway.state import Above
    from learner.daemon import News

LEARNER = "daemon"  # the lock of whoever learns in the background


class Wiring:
    """Lends the rooms above to the gateway; a context manager that ends the background learner."""

    def __init__(self, session: Session, store: StoreBase, keys: Keys, engine: "Engine") -> None:
        self._session, self._store, self._keys, self._engine = session, store, keys, engine
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._reason = "not started"

    def __enter__(self) -> "Wiring":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)

    def above(self) -> "Above":
        """Everything the gateway asks for."""
        from feedback.gateway.state import Above

        return Above(
            serving=self.serving,
            trial=self.trial,
            asked=lambda: presence.mark(self._session.home),
            status=self.status,
            health=self.health,
            learner=self.learner,
            learn=self.learn_now,
            rollback=self.rollback,
            budget=self.budget,
            preview=self.preview,
            consent=self.consent,
            log=self.log,
        )

    def serving(self) -> dict[str, tuple[str, bytes]]:
        """The adapters that serve on this model, by slot."""
        from learner.material import served

        now = served(self._store, self._engine)
        slots = {"shared": now.shared, "personal": now.personal}
        return {slot: adapter for slot, adapter in slots.items() if adapter is not None}

    def trial(self) -> "tuple[float, Adapters] | None":
        """The adapter that is proving itself, with the shared one below it, and its share of the requests."""
        from learner.live import running_trial, stack_for
        from learner.material import served

        trial = running_trial(self._store)
        if trial is None:
            return None
        return trial.share, stack_for(self._store, served(self._store, self._engine), 0.0).stack

    def status(self) -> dict[str, Any]:
        """What `corrigible status` holds."""
        from cli.chat import turns_kept
        from cli.status import overview

        found, settings = overview(self._session, self._store), self._session.config
        found["chat"] = {"turns": turns_kept(self._session), "max_tokens": settings.chat.max_tokens}
        return found

    def health(self) -> list[dict[str, Any]]:
        """What `corrigible doctor` finds."""
        from cli.doctor import examine_machine, examine_store

        checks = [*examine_machine(self._session), *examine_store(self._session, self._store)]
        return [{"name": one.name, "level": one.state, "text": one.says, "fix": one.remedy} for one in checks]

    def learner(self) -> dict[str, Any]:
        """What the background learner does."""
        from learner.state import read

        home = self._session.home
        now = read(home) if holder(home.lock(f"job-{LEARNER}")) is not None else None
        if now is not None:
            return asdict(now)
        state = "off" if holder(home.lock("job-learn")) is None else "running"
        return {"state": state, "reason": self._reason, "next_look": None}

    def start_learner(self) -> None:
        """Learn in the background whenever enough new corrections have come."""
        self._spawn(self._watch)

    def learn_now(self) -> dict[str, Any]:
        """Start a learning run, unless one is going on."""
        if holder(self._session.home.lock("job-learn")) is not None:
            raise Locked("A learning run is going on.", hint="Wait for it.", code="busy")
        self._store.require_whole()
        self._spawn(self._run_once)
        return {"started": True}

    def rollback(self, slot: Slot) -> dict[str, Any]:
        """Serve what was served before the newest adoption."""
        from learner.lineage import rollback

        before = self._store.active(slot)
        return {"slot": slot, "before": before, "after": rollback(self._store, slot)}

    def budget(self) -> dict[str, Any]:
        """The privacy budget: what is spent of what."""
        from cli.status import spent

        limits, total = self._session.config.privacy, spent(self._store)
        return {
            **{name: total[name] for name in ("unit", "adjacency", "trust")},
            "epsilon_spent": total["epsilon"],
            "epsilon_cap": limits.epsilon_cap,
            "delta": limits.delta if total["delta"] is None else total["delta"],
            "period": "year",
        }

    def preview(self) -> dict[str, Any]:
        """A readable account of the next update."""
        from cli.status import consents

        if not consents(self._store)["share"]:
            hint = "No update is made and nothing leaves this device."
            raise NotEligible("Sharing is off.", hint=hint, code="not_joined")
        from cli.previewing import preview_in_child

        return preview_in_child(self._session, self._keys)

    def consent(self, purpose: Purpose, granted: bool) -> None:
        """Record the owner's word."""
        from cli.privacy import TERMS, destination

        if purpose not in TERMS:
            raise UsageError("There is nothing to consent to for this purpose.", code="not_configured")
        where = destination(self._session, purpose)
        self._store.add(
            Consent(purpose=purpose, granted=granted, destination=where, terms=TERMS[purpose], time=time.time())
        )

    def log(self, error: BaseException) -> None:
        """Keep the frames of an unexpected error."""
        log_frames(error, self._session.home.state / "logs")

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a method
        """Run in a thread; what goes wrong is kept and ends only that thread."""
        thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, work: Any) -> None:  # noqa: ANN401
        try:
            work()
        except Exception as error:
            folder = self._session.home.state / "logs"
            self._reason = failure_of(error, lambda unknown: log_frames(unknown, folder)).message

    def _watch(self) -> None:
        """The background loop, in one thread."""
        from learner import daemon
        from learner.policy import LearnPolicy

        session, model = self._session, self._engine.model.path
        settings = session.config
        duty = daemon.Duty(
            self._store, session.home, self._keys, model, LearnPolicy(), settings.learner,
            retention=settings.retention.policy(),
        )  # fmt: skip
        daemon.run(duty, stop=self._stop, tell=self._tell)

    def _run_once(self) -> None:
        """One run, in a child process."""
        from learner.worker import run_in_child

        policy = self._session.learn_policy()
        self._tell(run_in_child(self._session.home, self._keys, self._engine.model.path, policy))

    def _tell(self, news: "News") -> None:
        """Remember how the last run ended; what the learner waits for is in its published state."""
        if isinstance(news, Verdict):
            self._reason = f"{news.decision}: {news.reason}"
        elif isinstance(news, CorrigibleError):
            self._reason = news.message
