"""A device's view of the fleet's releases: fetched as static files, verified by The Update Framework, then chosen.

Freshness, rollback, mixing and length are the framework's checks; who signs is pinned by the root that came with the
invitation. The manifest's own signature, base and lineage are checked after it, by the membership. A device tells the
server nothing by fetching: whether it takes a release is decided here, from a random number that never leaves.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from federation.release import ADAPTER_LIMIT, MANIFEST_LIMIT
from federation.repository import names
from store.errors import NetworkError, ReleaseRejected

CHUNK = 1 << 16
TIMEOUT = 30.0
LIMITS = UpdaterConfig(max_root_rotations=64, root_max_length=64 << 10, targets_max_length=1 << 20)

Fetch = Callable[[str], Iterator[bytes]]  # path below the repository -> its bytes; FileNotFoundError when absent


@dataclass(frozen=True, slots=True)
class Offer:
    """One release that the fleet offers now."""

    id: str
    round: int
    rollout: int  # percent of devices
    manifest: TargetFile
    adapter: TargetFile


class Mirror:
    """The releases at one place, as one device sees them.

    Args:
        folder: the device's own copy of the metadata; its versions never go back.
        root: the root pinned on joining.
        fetch: gets files; from the fleet's server, any mirror of it, or a folder.
    """

    def __init__(self, folder: Path, root: bytes, fetch: Fetch) -> None:
        self._folder = folder
        self._root = root
        self._fetch = fetch

    def offers(self) -> list[Offer]:
        """Return what the fleet offers now, oldest first.

        Raises:
            ReleaseRejected: code ``repository``; the metadata does not verify, is too old, or goes back in time.
            NetworkError: it cannot be fetched.
        """
        self._updater = self._open()
        with _translated():
            self._updater.refresh()
        listed: Metadata[Targets] = Metadata.from_bytes((self._folder / "targets.json").read_bytes())
        found = listed.signed.targets
        return sorted(
            (_offer(found, name) for name, target in found.items() if "custom" in target.unrecognized_fields),
            key=lambda offer: offer.round,
        )

    def download(self, offer: Offer) -> tuple[bytes, bytes]:
        """Return the signed manifest and the adapter of an offer, as long and hashed as listed.

        Raises:
            ReleaseRejected, NetworkError: as in `offers`.
        """
        if offer.manifest.length > MANIFEST_LIMIT or offer.adapter.length > ADAPTER_LIMIT:
            raise ReleaseRejected("the release is too large", code="size")
        return self._target(offer.manifest), self._target(offer.adapter)

    def _target(self, target: TargetFile) -> bytes:
        place = self._folder / "download"
        try:
            with _translated():
                self._updater.download_target(target, str(place))
            return place.read_bytes()
        finally:
            place.unlink(missing_ok=True)

    def _open(self) -> Updater:
        """An updater bound to the pinned root."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _translated():
            return Updater(
                str(self._folder), "metadata", str(self._folder), "targets", _Fetcher(self._fetch), LIMITS,
                bootstrap=self._root,
            )  # fmt: skip


def chosen(offers: list[Offer], device_id: str) -> Offer | None:
    """Return the newest release that this device may take, None when there is none.

    Args:
        device_id: the device's random id; never sent anywhere.
    """
    return next((offer for offer in reversed(offers) if takes(offer, device_id)), None)


def takes(offer: Offer, device_id: str) -> bool:
    """Say whether this device is among the share that a release is out to; a wider share holds every narrower one."""
    drawn = hashlib.sha256(f"{offer.id}/{device_id}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") * 100 < offer.rollout << 64


def from_folder(folder: Path) -> Fetch:
    """Return a fetcher of a repository that lies in `folder`, e.g. on a stick."""

    def fetch(path: str) -> Iterator[bytes]:
        with (folder / path).open("rb") as file:
            while data := file.read(CHUNK):
                yield data

    return fetch


def from_server(client: httpx.Client) -> Fetch:
    """Return a fetcher of the repository behind `client`, whose base is the fleet's address."""

    def fetch(path: str) -> Iterator[bytes]:
        with client.stream("GET", f"/releases/{path}", timeout=TIMEOUT) as answer:
            if answer.status_code == 404:
                raise FileNotFoundError(path)
            answer.raise_for_status()
            yield from answer.iter_bytes(CHUNK)

    return fetch


class _Fetcher(FetcherInterface):
    """The framework's view of a `Fetch`."""

    def __init__(self, fetch: Fetch) -> None:
        self._from = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._from(url)
        except FileNotFoundError as error:
            raise DownloadHTTPError(f"no {url}", 404) from error
        except (OSError, httpx.HTTPError) as error:
            raise DownloadError(f"no {url}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the framework's errors into ours."""
    try:
        yield
    except RepositoryError as error:
        raise ReleaseRejected(
            f"the list of releases was refused ({type(error).__name__})",
            hint="Ask the operator; nothing was changed on this device.",
            code="repository",
        ) from error
    except DownloadError as error:
        raise NetworkError("the releases cannot be fetched", hint="Try again later.") from error


def _offer(targets: dict[str, TargetFile], name: str) -> Offer:
    """One listed release.

    Raises:
        ReleaseRejected: the list contradicts itself.
    """
    value: dict[str, Any] = targets[name].unrecognized_fields["custom"]
    try:
        number, rollout = int(value["round"]), int(value["rollout"])
        manifest, adapter = names(number)
        if name != manifest:
            raise ValueError(name)
        return Offer(str(value["id"]), number, rollout, targets[manifest], targets[adapter])
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseRejected("the list of releases contradicts itself", code="repository") from error
