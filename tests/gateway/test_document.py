"""The published OpenAPI document is the program's, and what it promises holds for whatever is thrown at it."""

import json
from pathlib import Path

import pytest

from feedback.gateway.app import build_app
from tests.feedback.micro import Shape, write_model
from tests.gateway.fuzz import fuzz, operations
from tests.gateway.running import running

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
CASES = 3  # per operation here; `python -m tools.fuzz_api` runs thousands


def test_the_published_document_is_the_programs() -> None:
    """`python -m tools.openapi` writes it anew."""
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == build_app(None).openapi()


def test_every_error_is_documented_with_the_error_object() -> None:
    """And nothing is documented as pydantic's own error."""
    document = build_app(None).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                assert status != "422", (path, method)
                if status.startswith("4") or status.startswith("5"):
                    reference = answer["content"]["application/json"]["schema"]["$ref"]
                    assert reference.endswith("/ErrorBody"), (path, method, status)


def test_no_generated_request_gets_a_server_error_or_an_undocumented_answer(tmp_path: Path) -> None:
    """Valid and invalid requests for every operation, made from the document by schemathesis."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
    model = write_model(tmp_path / "micro.gguf", Shape())
    with running(tmp_path, model=model) as served:
        report = fuzz(served, cases=CASES, seed=1)
    assert report.failures == []
    assert set(report.cases) == set(operations(build_app(None).openapi()))
    assert min(report.cases.values()) >= CASES
