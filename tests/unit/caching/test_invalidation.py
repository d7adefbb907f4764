"""What makes cached features and trainings stale, and what does not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Fingerprint, Step
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.learning import features as features_module
from busi_pipeline.learning.device import Device
from busi_pipeline.learning.features import extract_features, pool_features
from busi_pipeline.learning.training import TRAINING, identify_training
from busi_pipeline.learning.training_data import prepare_training_data
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation
from busi_pipeline.stats.classes import Classes
from tests.factories import CLASSES, load_parameters, store_array

WEIGHTS = PretrainedWeights("file.h5", {"weights_sha256": "a" * 64})
RANDOM_WEIGHTS = PretrainedWeights(None, {"weights_sha256": "none"})
NEW = {"experiments": {"new": {"title": "New", "backbone": "new", "training": {"seed": 1}}}}


class FingerprintsOnly(Cache):
    """A cache that computes nothing: its arrays have fingerprint and keys, and zeros for rows."""

    def compute_array(
        self,
        fingerprint: Fingerprint,
        index: pd.DataFrame,
        keys: Sequence[str],
        dtype: str,
        compute: Callable[[np.ndarray], Iterable[np.ndarray]],
        metadata: dict[str, Any] | None = None,
    ) -> StoredArray:
        return StoredArray(index, np.zeros((len(keys), 1)), keys, fingerprint, metadata or {})


SPLIT = pd.DataFrame(
    {
        "image_id": [f"i{n}" for n in range(9)],
        "label": list(CLASSES) * 3,
        "split": ["train"] * 6 + ["validation"] * 3,
    }
)


def make_images(windows: int) -> StoredArray:
    column = {"window": np.repeat(np.arange(windows), len(SPLIT))} if windows > 1 else {}
    values = np.zeros((windows * len(SPLIT), 2, 2, 3), np.uint8)
    return store_array(list(SPLIT["image_id"]) * windows, values, **column)


def identify(
    settings: ExperimentSettings,
    weights: PretrainedWeights = WEIGHTS,
    classes: Classes = CLASSES,
) -> dict[str, Fingerprint | list[str]]:
    """Return what an experiment's features, rows of features, and training are cached under."""
    cache = FingerprintsOnly(Path("nowhere"))
    count = len(classes)
    plan = plan_augmentation(SPLIT, settings)
    images = make_images(len(settings.input.windows))
    features = extract_features(images, plan, settings, weights, count, cache)
    pooled = pool_features(features, settings, weights, count, cache)
    data = prepare_training_data(features, SPLIT, settings, classes)
    values = identify_training(features, data, settings, Device("CPU", "float32", False), classes)
    return {
        "features": features.fingerprint,
        "rows": list(features.keys),
        "pooled": pooled.fingerprint,
        "training": TRAINING.fingerprint(**values),
    }


def identify_all(*changes: Mapping[str, Any]) -> dict[str, dict[str, Fingerprint | list[str]]]:
    """Return this of every network of conf/base, with `changes` laid over the parameters."""
    experiments = load_parameters(*changes)["experiments"]
    return {
        name: identify(settings)
        for name, settings in experiments.items()
        if isinstance(settings, ExperimentSettings)
    }


def find_changed(
    before: dict[str, Fingerprint | list[str]], after: dict[str, Fingerprint | list[str]]
) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.fixture
def new_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more entry in the table of backbones."""
    monkeypatch.setitem(BACKBONES, "new", replace(BACKBONES["resnet50"], minimum_size=48))


def test_one_more_entry_invalidates_nothing(request: pytest.FixtureRequest) -> None:
    """A backbone and an experiment of it leave the fingerprints of all others as they are."""
    before = identify_all()
    request.getfixturevalue("new_backbone")
    after = identify_all(NEW)
    assert set(after) - set(before) == {"new"}
    assert {name: after[name] for name in before} == before


@pytest.mark.usefixtures("new_backbone")
def test_experiments_share_what_is_the_same() -> None:
    """A new experiment on a known backbone finds the features of the others."""
    experiments = load_parameters(
        {"experiments": {"twin": {"backbone": "resnet50", "training": {"seed": 7}}}}
    )["experiments"]
    twin, resnet50 = (identify(experiments[name]) for name in ("twin", "resnet50"))
    assert find_changed(twin, resnet50) == {"training"}


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Another title"},
        {"in_default": False},
        {"baseline_of": "vgg16"},
        {"published": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_names_and_comparisons_invalidate_nothing(change: dict[str, Any]) -> None:
    change = {"experiments": {"resnet50": change}}
    before, after = (
        identify(load_parameters(*changes)["experiments"]["resnet50"]) for changes in ([], [change])
    )
    assert find_changed(before, after) == set()


def test_other_groups_of_parameters_invalidate_nothing() -> None:
    groups = ("evaluation", "split", "cross_validation")
    assert identify_all({group: {"seed": 99} for group in groups}) == identify_all()


ALL = {"features", "pooled", "training"}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"training": {"fine_tuning": {"epochs": 3}}}, {"training"}),
        ({"training": {"fine_tuning": {"optimizer": {"learning_rate": 0.5}}}}, {"training"}),
        ({"training": {"class_weights": "none"}}, {"training"}),
        ({"training": {"label_smoothing": 0.2}}, {"training"}),
        ({"training": {"head": {"dropout": 0.4}}}, {"training"}),
        ({"training": {"head": {"pool_intermediate": False}}}, {"pooled", "training"}),
        ({"truncate_at": "conv5_block1_out"}, {"pooled", "training"}),
        ({"augmentation": {"seed": 1}}, {"rows", "training"}),
        ({"augmentation": {"zoom": 0.2}}, {"rows", "training"}),
        ({"image_size": 192}, ALL),
        ({"freeze_until": "conv3_block4_out"}, ALL),
        ({"training": {"fine_tuning": {"epochs": 0}}}, ALL),
        ({"training": {"augment_on": "device"}}, ALL),
        ({"training": {"precision": "mixed_bfloat16"}}, ALL),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_settings_invalidate_what_they_decide(change: dict[str, Any], stale: set[str]) -> None:
    base = {"training": {"precision": "float32"}}
    before, after = (
        identify(load_parameters(base, *changes)["experiments"]["resnet50"])
        for changes in ([], [{"experiments": {"resnet50": change}}])
    )
    assert find_changed(before, after) == stale


def test_the_resolved_backbone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_parameters()["experiments"]["resnet50"]
    before = identify(settings)
    preset = BACKBONES["resnet50"]
    for changed in (
        replace(preset, builder="ResNet50V2"),
        replace(preset, preprocessing=BACKBONES["inception_v3"].preprocessing),
    ):
        monkeypatch.setitem(BACKBONES, "resnet50", changed)
        assert find_changed(before, identify(settings)) == ALL
    # What is only a default, or finds the download, is in the settings or in the weights' hash.
    other = replace(preset, image_size=96, imagenet_file="other", minimum_size=40)
    monkeypatch.setitem(BACKBONES, "resnet50", other)
    assert find_changed(before, identify(settings)) == set()


def test_the_weights_decide() -> None:
    settings = load_parameters()["experiments"]["resnet50"]
    other = PretrainedWeights("file.h5", {"weights_sha256": "b" * 64})
    assert find_changed(identify(settings), identify(settings, other)) == ALL
    moved = PretrainedWeights("elsewhere.h5", WEIGHTS.tags)
    assert find_changed(identify(settings), identify(settings, moved)) == set()


def test_the_order_of_the_classes_decides() -> None:
    settings = load_parameters()["experiments"]["resnet50"]
    other_order = Classes(tuple(reversed(CLASSES.names)), CLASSES.positive)
    stale = find_changed(identify(settings), identify(settings, classes=other_order))
    assert stale == {"training"}


def test_the_seed_of_random_weights_decides() -> None:
    one, other = (
        load_parameters({"training": {"seed": seed}})["experiments"]["resnet50"] for seed in (1, 2)
    )
    assert find_changed(identify(one), identify(other)) == {"training"}
    assert find_changed(identify(one, RANDOM_WEIGHTS), identify(other, RANDOM_WEIGHTS)) == ALL


def test_a_new_version_of_a_step_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_parameters()["experiments"]["resnet50"]
    before = identify(settings)
    step: Step = features_module.FEATURES
    monkeypatch.setattr(features_module, "FEATURES", replace(step, version=step.version + 1))
    assert find_changed(before, identify(settings)) == ALL
