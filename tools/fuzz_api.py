"""Thousands of generated requests for every operation of the gateway: `python -m tools.fuzz_api --cases 2000`.

Prints one JSON object; exits 1 when anything got a server error or an answer that is not documented.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from feedback.gateway.settings import GatewaySettings
from tests.feedback.micro import Shape, write_model
from tests.gateway.fuzz import fuzz
from tests.gateway.running import running


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="per operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="operations whose path starts so")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = write_model(folder / "micro.gguf", Shape())  # the smallest model: it is the API that is tested
        with running(folder, model=model, settings=GatewaySettings(waiting=64)) as served:
            report = fuzz(served, cases=given.cases, seed=given.seed, only=given.only)
    found = {
        "operations": len(report.cases),
        "cases": sum(report.cases.values()),
        "fewest_per_operation": min(report.cases.values()),
        "statuses": {str(status): number for status, number in sorted(report.statuses.items())},
        "failures": report.failures[:20],
        "failed": len(report.failures),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(found, indent=1))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
