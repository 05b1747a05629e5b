"""`corrigible model`: which model files may be served and taught, and which one is."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Group
from cli.output import Report, facts, short, table
from cli.session import Session
from store.errors import CorrigibleError, IntegrityError

if TYPE_CHECKING:
    from feedback.models import ModelFile
    from feedback.shelf import Shelf

EMBEDDED = "embedded"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group, examples=["corrigible model add ~/models/qwen3-0.6b.gguf", "corrigible model use qwen3-0.6b"])
def model() -> None:
    """Add, list, check and choose model files."""


@model.command(examples=["corrigible model add ~/models/qwen3-0.6b.gguf"], exits=[13])
@click.argument("path", type=FILE)
@click.pass_obj
def add(session: Session, path: Path) -> Report:
    """Check a GGUF and add it to the list; one that is not served as it is trained is refused."""
    file = session.model(path)
    figures = _figures(file)
    if not figures["fits"]:
        hint = f"`corrigible model check {path.name}` shows by how much."
        raise IntegrityError("Training and serving do not agree on this model.", hint=hint, code="parity")
    one = _shelf(session).put(file, figures)
    data = asdict(one) | {"next": f"corrigible model use {one.name}"}
    return Report(data, lambda: facts({"added": one.name, **_words(figures), "next": data["next"]}))


@model.command("list", examples=["corrigible model list"], exits=[13])
@click.pass_obj
def list_(session: Session) -> Report:
    """List the embedded model and those added, and say which one is used."""
    from feedback.models import embedded_model

    used = session.config.model.path
    found = [{"name": EMBEDDED, "path": str(embedded_model()), "architecture": "llama", "state": "as shipped"}]
    for one in _shelf(session).models.values():
        found.append({"name": one.name, "path": one.path, "architecture": one.architecture, "state": _state(one)})
    for view in found:
        view["used"] = "used" if (Path(view["path"]) == used or (used is None and view["name"] == EMBEDDED)) else ""
    rows = [[view["name"], view["architecture"], view["state"], view["used"]] for view in found]
    return Report({"models": found}, lambda: table("name", "architecture", "file", "", rows=rows))


@model.command(examples=["corrigible model check", "corrigible model check qwen3-0.6b.gguf"], exits=[13])
@click.argument("path", type=FILE, required=False)
@click.pass_obj
def check(session: Session, path: Path | None) -> Report:
    """Compare training and serving on a model: tokens of random texts, logits of base and adapter."""
    file = session.model(path)
    figures = _figures(file)
    data = {"model": file.digest, "architecture": file.architecture, **figures}
    rows = {"model": file.name, "digest": short(file.digest), **_words(figures)}
    return Report(data, lambda: facts(rows), 0 if figures["fits"] else IntegrityError.exit_code)


@model.command(examples=["corrigible model use qwen3-0.6b", f"corrigible model use {EMBEDDED}"], exits=[13])
@click.argument("name")
@click.pass_obj
def use(session: Session, name: str) -> Report:
    """Serve and teach another model of the list from now on; adapters belong to the model they were made for."""
    from cli.config import set_model

    path = None if name == EMBEDDED else _unchanged(session, name)
    set_model(session.home.config, path)
    data = {"name": name, "path": str(path) if path else None}
    return Report(data, lambda: facts({"model": name, "settings": str(session.home.config)}))


def _shelf(session: Session) -> "Shelf":
    """The owner's list, beside the settings."""
    from feedback.shelf import Shelf

    return Shelf(session.home.config.with_name("models.json"))


def _unchanged(session: Session, name: str) -> Path:
    """The place of a listed model whose file is what was added."""
    one = _shelf(session).find(name)
    if session.model(Path(one.path)).digest != one.digest:
        hint = "Check and add it again with `corrigible model add`."
        raise IntegrityError("The model file was changed since it was added.", hint=hint, code="model_changed")
    return Path(one.path)


def _state(one: Any) -> str:  # noqa: ANN401 - a Shelved, whose module is not loaded yet
    """Whether the file is still what was added."""
    from feedback.models import check_model

    try:
        return "as added" if check_model(Path(one.path)).digest == one.digest else "changed"
    except CorrigibleError as error:
        return "missing" if error.code == "model_missing" else "damaged"


def _figures(file: "ModelFile") -> dict[str, Any]:
    """Examine the file; the figures as a program reads them."""
    from learner.fitness import examine

    found = examine(file)
    return {
        "fits": found.fits,
        "logits_base": found.base.max_abs_logit_diff,
        "logits_adapted": found.adapted.max_abs_logit_diff,
        "logits_plain": found.plain.max_abs_logit_diff,
        "kl_plain": found.plain.kl,
        "strings": found.strings,
        "strings_differ": found.differ,
        "seconds": round(found.seconds, 1),
    }


def _words(figures: dict[str, Any]) -> dict[str, str]:
    """The same for a person."""
    return {
        "verdict": "may be taught" if figures["fits"] else "training and serving do not agree",
        "same rounding": f"logits within {max(figures['logits_base'], figures['logits_adapted']):.1g}",
        "as served": f"logits within {figures['logits_plain']:.2g}, next tokens within {figures['kl_plain']:.2g} nat",
        "tokens": f"{figures['strings_differ']} of {figures['strings']} random texts differ",
    }
