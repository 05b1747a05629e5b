"""Releases by The Update Framework: twelve attacks on the way to a device, staged rollout, withdrawal, a full disk."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Signed, TargetFile

from federation import membership, pki, repository
from federation import release as releases
from federation.deploy import create_server
from federation.mirror import Mirror, Offer, chosen, from_folder, takes
from federation.plan import ServerFolder
from federation.release import Release
from federation.repository import Standing, publish
from store.errors import NetworkError, ReleaseRejected
from store.records import digest
from tests.federation.desk import BASE
from tests.federation.test_release import make_release


@dataclass
class Publisher:
    """A fleet that publishes, and a device of it."""

    folder: ServerFolder
    device: membership.Membership
    made: list[Release]

    @property
    def key(self) -> Ed25519PrivateKey:
        """The release key."""
        return pki.load_signing_key(self.folder.release_key)

    @property
    def online(self) -> Ed25519PrivateKey:
        """The online key."""
        return pki.load_signing_key(self.folder.online_key)

    def release(self, **changes: object) -> Release:
        """Make the next release and publish all."""
        number = len(self.made) + 1
        parent = self.made[-1].manifest.id if self.made else None
        self.made.append(make_release(key=self.key, **{"round": number, "parent": parent, **changes}))
        publish(self.folder, [Standing(one, 100) for one in self.made], self.key)
        return self.made[-1]

    def receive(self) -> Release:
        """What the device does: list, choose, download, verify, remember."""
        mirror = Mirror(
            self.device.folder / "tuf", repository.root_of(self.folder), from_folder(self.folder.repository)
        )
        offer = chosen(mirror.offers(), "a device")
        assert offer is not None
        return self.device.accept(*mirror.download(offer))

    def edit(self, name: str, change: Callable[[Signed], None], key: Ed25519PrivateKey | None = None) -> None:
        """Change a metadata file in place; sign it with `key`, or leave the old signature."""
        path = self.folder.metadata / name
        metadata: Metadata[Signed] = Metadata.from_bytes(path.read_bytes())
        change(metadata.signed)
        if key is not None:
            metadata.sign(CryptoSigner(key))
        path.write_bytes(metadata.to_bytes())

    def newest(self, role: str) -> str:
        """File name of the newest targets or snapshot."""
        return max(
            (path.name for path in self.folder.metadata.glob(f"*.{role}.json")),
            key=lambda name: int(name.split(".")[0]),
        )

    def relist(self, change: Callable[[Signed], None], key: Ed25519PrivateKey) -> None:
        """Change the list of releases, and let snapshot and timestamp follow under the online key."""
        self.edit(self.newest("targets"), change, key)
        repository._write_current(self.folder, self.online)


@pytest.fixture
def fleet(tmp_path: Path) -> Publisher:
    """Two releases out, the device has the first."""
    key = create_server(tmp_path / "server")
    device = membership.join(tmp_path / "device", release_key=key, base=BASE)
    made = Publisher(ServerFolder(tmp_path / "server"), device, [])
    made.release()
    made.receive()
    made.release()
    return made


def old(signed: Signed) -> None:
    """Let a role be over since yesterday."""
    signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


def later(signed: Signed) -> None:
    """Count a role's version on."""
    signed.version += 1


def changed_bytes(fleet: Publisher) -> None:
    """Arbitrary software: the adapter's bytes are others."""
    path = next(fleet.folder.targets.glob("*.00002.gguf"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def old_timestamp(fleet: Publisher) -> None:
    """Rollback: the whole repository of yesterday, after the device has seen today's."""
    saved = fleet.folder.root / "yesterday"
    shutil.copytree(fleet.folder.repository, saved)
    fleet.release()
    fleet.receive()
    shutil.rmtree(fleet.folder.repository)
    saved.rename(fleet.folder.repository)


def old_list(fleet: Publisher) -> None:
    """Rollback of the list alone: the first list again, under a new snapshot of the online key."""
    fleet.receive()
    metadata = fleet.folder.metadata
    version = int(fleet.newest("targets").split(".")[0])
    for path in metadata.glob("*.targets.json"):
        if path.name != "2.targets.json":
            path.unlink()
    repository._write_current(fleet.folder, fleet.online)
    assert version > 2


def frozen(fleet: Publisher) -> None:
    """Freeze: a timestamp that is over is served for ever."""
    fleet.edit("timestamp.json", old, fleet.online)


def frozen_list(fleet: Publisher) -> None:
    """A list of releases that is over, under a fresh timestamp."""
    fleet.relist(old, fleet.key)


def mixed(fleet: Publisher) -> None:
    """Mix and match: the snapshot names today's list, yesterday's is served in its place."""
    metadata = fleet.folder.metadata
    yesterday = f"{int(fleet.newest('targets').split('.')[0]) - 1}.targets.json"
    shutil.copy(metadata / yesterday, metadata / fleet.newest("targets"))


def endless(fleet: Publisher) -> None:
    """Endless data: an adapter that does not stop."""
    path = next(fleet.folder.targets.glob("*.00002.gguf"))
    path.write_bytes(path.read_bytes() + bytes(1 << 20))


def stranger(fleet: Publisher) -> None:
    """A timestamp signed by somebody else."""
    fleet.edit("timestamp.json", later, Ed25519PrivateKey.generate())


def stolen_online_key(fleet: Publisher) -> None:
    """Whoever has the online key alone lists a release of his own."""
    fleet.relist(later, fleet.online)


def new_root(fleet: Publisher) -> None:
    """A root that the old root did not sign hands the keys to somebody else."""
    path = fleet.folder.metadata / "2.root.json"
    shutil.copy(fleet.folder.metadata / "1.root.json", path)
    fleet.edit("2.root.json", later, Ed25519PrivateKey.generate())


def unsigned(fleet: Publisher) -> None:
    """A list without any signature."""
    path = fleet.folder.metadata / fleet.newest("targets")
    value = json.loads(path.read_bytes())
    value["signatures"] = []
    path.write_text(json.dumps(value))
    repository._write_current(fleet.folder, fleet.online)


def swapped(fleet: Publisher) -> None:
    """A listed name leads to another release's adapter."""

    def change(signed: Signed) -> None:
        signed.version += 1
        data = next(fleet.folder.targets.glob("*.00001.gguf")).read_bytes()
        signed.targets["00002.gguf"] = TargetFile.from_data("00002.gguf", data + b"\0", ["sha256"])
        (fleet.folder.targets / f"{signed.targets['00002.gguf'].hashes['sha256']}.00002.gguf").write_bytes(data + b"\0")

    fleet.edit(fleet.newest("targets"), change, fleet.key)
    newest = fleet.folder.metadata / fleet.newest("targets")
    newest.rename(fleet.folder.metadata / f"{int(newest.name.split('.')[0]) + 1}.targets.json")
    repository._write_current(fleet.folder, fleet.online)


def wrong_base(fleet: Publisher) -> None:
    """A genuine release of the fleet for another base model."""
    fleet.release(base=digest(b"another model"))


def forked(fleet: Publisher) -> None:
    """Two servers with one key: a second release of a round the device has."""
    fleet.receive()
    fleet.made.pop()
    fleet.release(cohort=99)


ATTACKS = {
    name: (attack, code)
    for attack, code in (
        (changed_bytes, "repository"),
        (old_timestamp, "repository"),
        (old_list, "repository"),
        (frozen, "repository"),
        (frozen_list, "repository"),
        (mixed, "repository"),
        (endless, "network"),
        (stranger, "repository"),
        (stolen_online_key, "repository"),
        (new_root, "repository"),
        (unsigned, "repository"),
        (swapped, "adapter"),
        (wrong_base, "base"),
        (forked, "fork"),
    )
    for name in (attack.__name__,)
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_the_way_to_a_device_is_refused_ten_times_in_ten(fleet: Publisher, name: str) -> None:
    """Nothing is accepted, the word for it is ours, and what the device had before it still has."""
    attack, code = ATTACKS[name]
    attack(fleet)
    before = fleet.device.newest()
    for _ in range(10):
        with pytest.raises((ReleaseRejected, NetworkError)) as refused:
            fleet.receive()
        assert refused.value.code == code
    assert fleet.device.newest() == before


def test_without_an_attack_the_newest_release_is_taken(fleet: Publisher) -> None:
    """Also again, also after a root rotation that the old root signed."""
    assert fleet.receive() == fleet.made[-1]
    assert fleet.receive() == fleet.made[-1]
    shutil.copy(fleet.folder.metadata / "1.root.json", fleet.folder.metadata / "2.root.json")
    fleet.edit("2.root.json", later, pki.load_signing_key(fleet.folder.root_key))
    assert fleet.receive() == fleet.made[-1]


def test_a_withdrawn_release_is_no_longer_offered(fleet: Publisher) -> None:
    """The device then takes the next one that stands; a later release continues the line."""
    publish(fleet.folder, [Standing(fleet.made[0], 100)], fleet.key)
    assert fleet.receive() == fleet.made[0]
    assert fleet.release().manifest.round == 3
    assert fleet.receive() == fleet.made[-1]


def test_publishing_the_same_again_changes_nothing(fleet: Publisher) -> None:
    """A server that starts again does not make devices download anything."""
    before = {path.name for path in fleet.folder.repository.rglob("*")}
    assert publish(fleet.folder, [Standing(one, 100) for one in fleet.made], fleet.key) is False
    assert {path.name for path in fleet.folder.repository.rglob("*")} == before


def test_what_is_about_to_expire_is_signed_again(fleet: Publisher) -> None:
    """Half of its time before the end."""

    def soon(signed: Signed) -> None:
        signed.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    assert repository.refresh(fleet.folder) is False
    fleet.edit("timestamp.json", soon, fleet.online)
    assert repository.refresh(fleet.folder) is True
    assert fleet.receive() == fleet.made[-1]


@pytest.mark.parametrize("percent", [0, 1, 25, 60, 100])
def test_a_staged_rollout_reaches_its_share_and_only_grows(percent: int) -> None:
    """Of 4,000 devices about `percent` take it; whoever takes it at a share takes it at every larger one."""
    target = TargetFile(1, {"sha256": "0" * 64}, "x")

    def takers(share: int) -> set[int]:
        offer = Offer("sha256:" + "a" * 64, 3, share, target, target)
        return {number for number in range(4000) if takes(offer, f"device {number}")}

    mine = takers(percent)
    assert abs(len(mine) - 40 * percent) <= 150
    assert mine <= takers(min(100, percent + 10))
    if percent in (0, 100):
        assert len(mine) == 40 * percent


def test_another_release_reaches_another_share() -> None:
    """Nobody is always first."""
    target = TargetFile(1, {"sha256": "0" * 64}, "x")
    one, other = (Offer(f"sha256:{name * 64}", 3, 50, target, target) for name in "ab")
    shares = [{number for number in range(1000) if takes(offer, f"device {number}")} for offer in (one, other)]
    assert 150 < len(shares[0] & shares[1]) < 350


FULL = """
import resource, sys
from pathlib import Path
from federation import pki
from federation.plan import ServerFolder
from federation.repository import Standing, publish
from federation.release import load, newest
from store.errors import CorrigibleError
folder = ServerFolder(Path(sys.argv[1]))
key = pki.load_signing_key(folder.release_key)
one = load(newest(folder.releases), release_key=pki.public_bytes(key), base=sys.argv[2])
for room in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        publish(folder, [Standing(one, 100)], key)
    except CorrigibleError as error:
        print(error.code)
"""


def test_a_disk_that_is_full_at_signing_leaves_what_was_published(fleet: Publisher) -> None:
    """The publisher says so, devices still get the old state, and with room again the next attempt succeeds."""
    third = make_release(key=fleet.key, round=3, parent=fleet.made[-1].manifest.id)
    releases.save(third, fleet.folder.releases)
    words = subprocess.run(
        [sys.executable, "-c", FULL, str(fleet.folder.root), BASE, "0", "300", "700", "2000"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert words.stdout.split() == ["io_error"] * 4, words.stderr
    assert fleet.receive() == fleet.made[-1]
    fleet.made.append(third)
    publish(fleet.folder, [Standing(one, 100) for one in fleet.made], fleet.key)
    assert fleet.receive() == third


def test_a_mirror_that_is_away_is_a_network_error(fleet: Publisher) -> None:
    """Nothing is concluded from silence."""

    def silent(_path: str) -> Iterator[bytes]:
        raise ConnectionError
        yield b""

    mirror = Mirror(fleet.device.folder / "tuf", repository.root_of(fleet.folder), silent)
    with pytest.raises(NetworkError):
        mirror.offers()
