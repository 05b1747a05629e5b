"""From a signed release to an offer: mended after a crash in between, widened, withdrawn, seen by devices."""

from dataclasses import replace
from pathlib import Path

import pytest

from federation import membership, repository
from federation import release as releases
from federation.mirror import from_folder
from federation.pki import public_bytes
from federation.publishing import promote, sync, withdraw
from federation.reception import look
from federation.release import Release
from federation.server import Operator
from store.memory import MemoryStore
from store.records import Adapter
from tests.federation.desk import BASE, Fleet, make_fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A server with the empty release and two more."""
    made = make_fleet(tmp_path, 0)
    operator(made)._start()
    for _ in range(2):
        publish_next(made)
    return made


def operator(fleet: Fleet) -> Operator:
    """The server's own publisher."""
    return Operator.open(fleet.folder, fleet.plan, fleet.folder.state(), None)


def signed_next(fleet: Fleet) -> Release:
    """The next release, signed and not published."""
    newest = operator(fleet)._start()
    number = newest.manifest.round + 1
    manifest = replace(newest.manifest, round=number, parent=newest.manifest.id, cohort=3 + number)
    return releases.sign(manifest, newest.adapter, fleet.key)


def publish_next(fleet: Fleet) -> Release:
    """One more release."""
    made = signed_next(fleet)
    return operator(fleet)._publish(made.manifest, made.adapter)


def device(fleet: Fleet, folder: Path) -> membership.Membership:
    """A device that joined by a link."""
    return membership.join(
        folder, release_key=public_bytes(fleet.key), base=BASE, root=repository.root_of(fleet.folder), url="https://x"
    )


def offered(fleet: Fleet, place: membership.Membership, store: MemoryStore | None = None) -> int | None:
    """Round of what a device gets at a look."""
    news = look(store or MemoryStore(), place, from_folder(fleet.folder.repository))
    return None if news.release is None else news.release.manifest.round


def test_a_release_signed_before_a_crash_is_published_after_it(fleet: Fleet, tmp_path: Path) -> None:
    """On disk, but neither on the list nor in the repository: the next start mends that, once."""
    place = device(fleet, tmp_path / "device")
    releases.save(signed_next(fleet), fleet.folder.releases)
    assert offered(fleet, place) == 2
    for _ in range(2):
        sync(fleet.folder, fleet.folder.state(), fleet.key)
        assert offered(fleet, place) == 3
    assert [row.number for row in fleet.folder.state().releases()] == [0, 1, 2, 3]


def test_a_withdrawn_release_stops_being_served_and_the_line_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    """A device that serves it drops it at its next look and is offered the adapter before it as the newest release."""
    place, store = device(fleet, tmp_path / "device"), MemoryStore()
    news = look(store, place, from_folder(fleet.folder.repository))
    assert news.release is not None
    assert news.fresh
    data = news.release.adapter
    kept, name = store.put_artefact(data), news.release.manifest.id
    store.add(Adapter(digest=kept, slot="shared", base=BASE, release=name, time=1))
    store.activate("shared", kept, "adopted")
    assert look(store, place, from_folder(fleet.folder.repository)).fresh is False
    going, again = withdraw(fleet.folder, fleet.folder.state(), "2")
    assert [row.number for row in going] == [2]
    assert (again.manifest.round, again.manifest.cohort) == (3, 4)
    news = look(store, place, from_folder(fleet.folder.repository))
    assert news.withdrawn == kept
    assert store.active("shared") is None
    assert news.release == again
    assert publish_next(fleet).manifest.parent == again.manifest.id
    assert offered(fleet, place) == 4


def test_a_staged_release_waits_for_its_share(fleet: Fleet, tmp_path: Path) -> None:
    """At 0 percent nobody is offered it, at 100 everybody."""
    place, state = device(fleet, tmp_path / "device"), fleet.folder.state()
    made = signed_next(fleet)
    releases.save(made, fleet.folder.releases)
    row = next(one for one in state.releases() if one.number == 2)
    state.set_release(replace(row, id=made.manifest.id, number=3, percent=0, status="staged"))
    sync(fleet.folder, state, fleet.key)
    assert offered(fleet, place) == 2
    promote(fleet.folder, state, "3", 100)
    assert offered(fleet, place) == 3
    assert state.verify() > 0
