"""Whatever the OpenAPI document allows, and what it does not, is answered without a failure."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode, checks

from tests.integration.services import start
from tests.package_factories import write_tiny_package

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = [
    *("POST /v1/predictions", "POST /v1/overlays", "GET /v1/model"),
    *("GET /healthz", "GET /readyz", "GET /metrics"),
    *("GET /v2", "GET /v2/health/live", "GET /v2/health/ready"),
    *("GET /v2/models/{name}", "GET /v2/models/{name}/ready", "POST /v2/models/{name}/infer"),
]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    models = tmp_path_factory.mktemp("models")
    write_tiny_package(models / "tiny" / "package", locates=True)
    with start(models, "--max-files", "2") as service:
        yield schemathesis.openapi.from_url(f"{service.address}/openapi.json")


def test_every_operation_is_asked(document: Any) -> None:
    found = [found.ok() for found in document.get_all_operations()]
    assert sorted(f"{own.method.upper()} {own.path}" for own in found) == sorted(OPERATIONS)


ALLOWED = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
OTHERS = [(operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if "POST" in operation]


@pytest.mark.parametrize(("operation", "mode"), [*ALLOWED, *OTHERS])
def test_no_request_makes_the_service_fail(
    operation: str, mode: GenerationMode, document: Any
) -> None:
    method, path = operation.split()
    cases = document[path][method].as_strategy(generation_mode=mode)

    @settings(max_examples=20, deadline=None, database=None, derandomize=True)
    @given(case=cases)
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
