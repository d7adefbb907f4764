"""A study of few images, whose network is built but never trained."""

import shutil
from pathlib import Path

import pytest

from busi_pipeline.pipelines.preprocessing.nodes import plan_all_images
from tests.learning_factories import Study, register_tiny_backbone


@pytest.fixture(scope="module", autouse=True)
def without_graphs(eager: None) -> None:
    """Every test here computes step by step."""


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_backbone(monkeypatch)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "cache", per_class=10)


@pytest.fixture(scope="module")
def features_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache with the features of all images of `study`, augmented and not."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patched:
        register_tiny_backbone(patched)
        study = Study(folder, per_class=10)
        study.plan = plan_all_images(study.split, study.settings)
        study.pool(study.extract())
    return folder


@pytest.fixture
def study_with_features(features_folder: Path, tmp_path: Path) -> Study:
    """`study` with a cache of its own, in which its features are."""
    shutil.copytree(features_folder, tmp_path / "cache")
    return Study(tmp_path / "cache", per_class=10)
