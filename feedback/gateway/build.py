"""Puts a gateway together."""

from pathlib import Path

from feedback.engine import Engine
from feedback.gateway.catalogue import Catalogue
from feedback.gateway.desk import Desk
from feedback.gateway.events import Watcher
from feedback.gateway.journal import Journal
from feedback.gateway.settings import GatewaySettings
from feedback.gateway.state import Above, Gateway
from feedback.gateway.tokens import Doorman
from store.base import StoreBase


def build_gateway(
    settings: GatewaySettings,
    engine: Engine,
    store: StoreBase,
    above: Above,
    *,
    tokens: Path,
    control: str,
    default_tokens: int = 256,
) -> Gateway:
    """Return a gateway over an engine and an open store; it starts when its application does.

    Args:
        tokens: the token file.
        control: this run's secret, which may do everything.
        default_tokens: longest answer when a request names none.
    """
    catalogue = Catalogue(engine, above.serving, above.trial, upstream=False)
    catalogue.refresh()

    def changed(topics: set[str]) -> None:
        if "adapter" in topics:
            catalogue.refresh()

    return Gateway(
        settings=settings,
        engine=engine,
        store=store,
        catalogue=catalogue,
        desk=Desk(settings.parallel, settings.waiting),
        journal=Journal(store),
        doorman=Doorman(tokens, control),
        watcher=Watcher(store, changed, lambda: str(above.learner())),
        above=above,
        default_tokens=default_tokens,
    )
