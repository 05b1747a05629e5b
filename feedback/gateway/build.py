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
from feedback.upstream.client import Upstream
from feedback.upstream.policy import UpstreamPolicy
from store.base import StoreBase


def build_gateway(
    settings: GatewaySettings,
    engine: Engine,
    store: StoreBase,
    above: Above,
    *,
    tokens: Path,
    control: str,
    upstream: UpstreamPolicy | None = None,
    default_tokens: int = 256,
) -> Gateway:
    """Return a gateway over an engine and an open store; it starts when its application does.

    Args:
        tokens: the token file.
        control: this run's secret, which may do everything.
        upstream: when a bigger model may be asked; None: never.
        default_tokens: longest answer when a request names none.
    """
    catalogue = Catalogue(engine, above.serving, above.trial, upstream=upstream is not None)
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
        upstream=Upstream(upstream, store) if upstream is not None else None,
        default_tokens=default_tokens,
    )
