"""Write the OpenAPI document that the gateway publishes: `python -m tools.openapi`."""

import json
from pathlib import Path

from feedback.gateway.app import build_app

DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"


def main() -> None:
    """Write it."""
    text = json.dumps(build_app(None).openapi(), indent=1, ensure_ascii=False)
    DOCUMENT.write_text(text + "\n", encoding="utf-8")
    print(f"{DOCUMENT.name}: {len(text)} bytes")


if __name__ == "__main__":
    main()
