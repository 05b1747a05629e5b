"""What the configuration says about the local endpoint: its settings, its tokens, and a bigger model above it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.session import Session


def gateway_settings(session: Session, port: int | None) -> Any:  # noqa: ANN401 - GatewaySettings, imported late
    """Return the gateway's settings, with the port given by hand."""
    from feedback.gateway.settings import GatewaySettings

    values = asdict(session.config.gateway)
    return GatewaySettings(**(values if port is None else {**values, "port": port}))


def upstream_policy(session: Session) -> Any:  # noqa: ANN401 - UpstreamPolicy or None, imported late
    """Return when a bigger model may be asked; None: never."""
    from feedback.upstream.policy import UpstreamPolicy

    settings = session.config.upstream
    return UpstreamPolicy(**asdict(settings)) if settings.url else None


def token_path(session: Session) -> Path:
    """Return where the tokens are."""
    return session.home.data / "tokens.json"
