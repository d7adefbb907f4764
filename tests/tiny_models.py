"""Fixtures: a folder with one model that looks at lesions, and the model."""

from pathlib import Path

import pytest

from busi_pipeline.models.packaged import PackagedModel, load_package
from tests.package_factories import write_tiny_package


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_package(folder / "tiny" / "package", locates=True)
    return folder


@pytest.fixture(scope="module")
def model(models: Path) -> PackagedModel:
    return load_package(models / "tiny" / "package")
