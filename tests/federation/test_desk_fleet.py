"""One real round: SuperLink, SuperNodes, TLS, node keys, private training; then nothing is left."""

import time
from pathlib import Path

import psutil
import pytest

from federation import membership
from federation.deploy import DeskDevice, create_server, run_fleet
from federation.plan import Plan, ServerFolder
from federation.preview import preview
from federation.spec import Pace, RoundSpec, wire_scale
from federation.train import private_trainer
from federation.update import HEADER
from feedback.models import ModelFile, check_model, embedded_model
from learner.base import load_base
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Consent, Correction, Egress, Interaction, Message, Spend
from store.store import Store


def make_device(root: Path, name: str, release_key: bytes, model: ModelFile) -> DeskDevice:
    """A device with its own encrypted store, one correction, and consent to this fleet."""
    home = Home.at(root / name).create()
    place = membership.join(root / name / "fleet", release_key=release_key, base=model.digest)
    with Store.create(home, KeyFile()) as store:
        asked = Interaction(
            messages=(Message("user", f"zanzibar mode, says {name}"),), answer="?", model=model.digest, time=time.time()
        )
        store.add_all(
            [
                asked,
                Correction(interaction=asked.id, corrected='light.set(room="den", state="on")', time=time.time()),
                Consent(purpose="share", granted=True, destination=place.fleet, time=time.time()),
            ]
        )
    return DeskDevice(name, home, unlock(home).export(), place.folder)


def make_plan(model: ModelFile) -> Plan:
    """One short round with every device."""
    geometry = load_base(model).geometry
    rank, figures = (
        2,
        {"noise_multiplier": 2.0, "clipping_norm": 1.0, "steps": 2, "divisor": 8.0, "learning_rate": 0.01},
    )
    quantum, max_norm = wire_scale(**figures, count=rank * sum(out for out, _ in geometry.shapes.values()))
    spec = RoundSpec(
        **figures, sampling_rate=0.25, rank=rank, alpha=2.0, seed_a=7, layers=5, quantum=quantum, max_norm=max_norm
    )
    return Plan(
        rounds=1, base=model.digest, model=str(model.path), geometry=geometry, spec=spec,
        pace=Pace(quorum=2, expected=2, gather=90.0, deadline=120.0), probe_items=8, probe_tolerance=100.0,
    )  # fmt: skip


@pytest.mark.slow
def test_a_round_over_real_flower_processes(tmp_path: Path) -> None:
    """Two devices' updates become a signed release; ledgers agree with the wire; no process and no text is left."""
    model = check_model(embedded_model())
    server = ServerFolder(tmp_path / "server")
    release_key = create_server(server.root)
    devices = [make_device(tmp_path, name, release_key, model) for name in ("ada", "bo")]
    result = run_fleet(server, make_plan(model), devices, runners=1)

    (report,) = result.reports
    assert (report["accepted"], report["verdict"], report["rejected"]) == (2, "released", {})
    manifest = result.release.manifest
    assert (manifest.round, manifest.cohort, manifest.base) == (1, 2, model.digest)
    sent, base = 0, load_base(model)
    for device in devices:
        with Store.open(device.home, unlock(device.home)) as store:
            (spend,), (egress,) = store.all(Spend), store.all(Egress)
            assert spend.payload == egress.payload
            assert spend.total == pytest.approx(manifest.epsilon_total)
            shown = preview(store, membership.read(device.membership), base.geometry, private_trainer(base))[0].encode()
            left = store.artefact(spend.payload)
            assert (len(shown), shown[: HEADER.size]) == (len(left), left[: HEADER.size])
            assert shown != left
            sent += egress.size
    assert sent == report["bytes_in"]
    assert not [process for process in psutil.Process().children(recursive=True) if "flower" in process.name()]
    left = [path for path in server.root.rglob("*") if path.is_file() and b"zanzibar" in path.read_bytes()]
    assert left == []
    assert server.state().nodes()[0].name == "ada"
