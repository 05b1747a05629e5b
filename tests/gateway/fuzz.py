"""Requests made from the OpenAPI document and sent to a running gateway."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests

from feedback.gateway.app import build_app
from tests.gateway.running import CONTROL, Running


@dataclass
class Report:
    """Cases sent per operation, and what was wrong."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def operations(document: dict[str, Any]) -> list[str]:
    """The operations of a document that end by themselves: all but the stream of events."""
    return [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if path != "/api/events"
    ]


def fuzz(served: Running, *, cases: int, seed: int, only: str = "") -> Report:
    """Send at least `cases` requests per operation and check every answer against the document.

    Args:
        only: send to operations whose path starts so.
    """
    import schemathesis
    from schemathesis import GenerationMode

    logging.getLogger("schemathesis").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    report, session = Report(), requests.Session()
    schema = schemathesis.openapi.from_dict(build_app(None).openapi())
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == "/api/events" or not operation.path.startswith(only):
            continue
        name = f"{operation.method.upper()} {operation.path}"
        send = _sender(report, session, served.url, name)
        if not _takes_input(operation):
            for _ in range(cases):
                send(operation.Case())
            continue
        strategy = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        strategy |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        settings = hypothesis.settings(
            max_examples=cases,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        round_ = 0
        while report.cases[name] < cases:  # hypothesis ends early where it finds nothing new
            hypothesis.seed(seed + round_)(settings(hypothesis.given(strategy)(send)))()
            round_ += 1
    return report


def _sender(report: Report, session: requests.Session, base: str, name: str) -> Callable[[Any], None]:
    """Return what sends one case and notes what was wrong with the answer."""
    checks, headers = _checks(), {"Authorization": f"Bearer {CONTROL}"}

    def send(case: Any) -> None:  # noqa: ANN401 - schemathesis' own
        answer = case.call(session=session, base_url=base, headers=headers, timeout=120)
        report.cases[name] += 1
        report.statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=checks)
        except BaseException as error:
            report.failures.append(f"{name}: {answer.status_code}: {error}"[:800])

    return send


def _checks() -> Sequence[Any]:
    """No server error, no undocumented status, type or shape."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    return [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def _takes_input(operation: Any) -> bool:  # noqa: ANN401
    """Whether a request to it can differ from another."""
    definition = operation.definition.raw
    return bool(definition.get("parameters") or definition.get("requestBody"))
