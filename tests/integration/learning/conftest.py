"""A study whose network is trained."""

from pathlib import Path

import pytest

from tests.learning_factories import Study, register_tiny_backbone


@pytest.fixture(scope="module", autouse=True)
def without_graphs(eager: None) -> None:
    """Every test here computes step by step."""


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_backbone(monkeypatch)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "cache")
