"""Random histories on the real store and its twin in memory: they must never differ."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.base import StoreBase
from store.errors import CorrigibleError
from store.keys import unlock
from store.memory import MemoryStore
from store.paths import Home
from store.records import Correction, Interaction, Rating, Record
from store.retention import DAY, RetentionPolicy, apply_retention
from store.store import Store
from tests.store.samples import correction, interaction, rating

NUMBERS = st.integers(0, 7)
TEXTS = st.sampled_from(["lamp on", "Lámp off", "küche hell", "naïve café", "", "lamp", "a-b c_d", "x" * 50])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), NUMBERS, TEXTS),
        st.tuples(st.just("correct"), NUMBERS, TEXTS),
        st.tuples(st.just("rate"), NUMBERS, st.sampled_from([-1, 1])),
        st.tuples(st.just("remove"), NUMBERS, TEXTS),
        st.tuples(st.just("retain"), NUMBERS, st.just("")),
        st.tuples(st.just("reopen"), NUMBERS, st.just("")),
    ),
    max_size=25,
)


def take(store: StoreBase, step: tuple[str, int, object]) -> object:
    """One step; what it returned, or the code of its refusal."""
    what, number, with_ = step
    about = interaction(number, str(with_)).id if what == "remove" else interaction(number).id
    try:
        if what == "say":
            return store.add(interaction(number, str(with_)))
        if what == "correct":
            return store.add_all([interaction(number), correction(about, number, str(with_))])
        if what == "rate":
            return store.add(rating(about, 1 if with_ == 1 else -1, number))
        if what == "remove":
            return sorted(store.remove(about))
        if what == "retain":
            return sorted(apply_retention(store, RetentionPolicy(interactions=1), 1000.0 + number + 1 * DAY))
    except CorrigibleError as error:
        return error.code
    return None


def seen(store: StoreBase) -> object:
    """All that a reader can ask."""
    kinds: tuple[type[Record], ...] = (Interaction, Correction, Rating)
    searches = [store.search(text, limit=5) for text in ("lamp", "lam", "KUCHE hell", "cafe", "x")]
    return [store.all(kind) for kind in kinds], store.examples(), searches, store.last(Rating, value=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_twins_never_differ(steps: list[tuple[str, int, object]], empty_home: Path) -> None:
    """Same answers, same refusals, same contents after any history, closing and reopening included."""
    twin = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder) / "home")
        shutil.copytree(empty_home, home.root)
        store = Store.open(home, unlock(home))
        for step in steps:
            if step[0] == "reopen":
                store.close()
                store = Store.open(home, unlock(home))
            else:
                assert take(store, step) == take(twin, step)
        assert seen(store) == seen(twin)
        assert store.verify().ok
        store.close()
