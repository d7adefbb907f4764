"""A study whose network is trained."""

from pathlib import Path

import pytest

from tests.learning_factories import Study, register_tiny_backbone


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_backbone(monkeypatch)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "cache")
