"""Features: those of the frozen part, shared by all who can use them, refused by others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import apply_affine, list_transforms
from busi_pipeline.imaging.augmentation import augment_image
from busi_pipeline.learning import device, extraction
from busi_pipeline.learning import features as features_module
from busi_pipeline.learning.device import Device
from busi_pipeline.learning.features import build_for_training
from busi_pipeline.models.backbones import BACKBONES
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation
from tests.learning_factories import BRIGHTNESS, Study

TRAINING, VALIDATION = 18, 6  # images of `study`
CPU = Device("cpu", "float32", False)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build no network: how many features are computed is all that is asked."""
    monkeypatch.setattr(features_module, "build_for_training", lambda *_: BRIGHTNESS)
    monkeypatch.setattr(features_module, "build_frozen_model", lambda *_: BRIGHTNESS.frozen)


def test_features_leave_out_the_test_images(study: Study, counting: None) -> None:
    features = study.extract()
    index = features.index
    assert features.values.dtype == np.float16
    assert len(features.values) == len(index) == TRAINING * (2 + 1) + VALIDATION
    of_split = study.split.set_index("image_id")["split"]
    parts = index["image_id"].map(of_split)
    assert set(parts[index["augmentation"] > 0]) == {"train"}
    assert set(parts[index["augmentation"] == 0]) == {"train", "validation"}


@pytest.mark.parametrize("extraction_batch_size", [7, "auto"])
def test_features_are_those_of_the_frozen_part(study: Study, extraction_batch_size: Any) -> None:
    study.change(training={"extraction_batch_size": extraction_batch_size})
    features = study.extract()
    network = build_for_training(study.settings, study.source.choose("tiny", "none"), 3, CPU)
    images = study.images.values[study.images.find_rows(study.plan["image_id"])]
    augmented = np.stack(
        [apply_affine(*pair) for pair in zip(images, list_transforms(study.plan), strict=True)]
    )
    expected = np.asarray(network.frozen(augmented))
    rows = np.arange(len(study.plan))
    scale = expected.max()
    np.testing.assert_allclose(features.values[rows] / scale, expected / scale, atol=2e-3)
    pooled = study.pool(features)
    assert pooled.values.dtype == np.float16
    assert pooled.index.equals(features.index)
    expected = np.asarray(network.tail(features.values[rows].astype(np.float32)))
    np.testing.assert_allclose(pooled.values[rows] / scale, expected / scale, atol=2e-3)


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_the_scanner_varies_in_what_the_network_sees(
    study: Study, counting: None, augment_on: str
) -> None:
    """Mean brightness stands for the network: what it sees is what `vary_scanner` makes of it."""
    study.change(
        input={"grey": True, "keep_aspect": True},
        augmentation={"scanner_variation": True},
        training={"augment_on": augment_on, "extraction_batch_size": 7},
    )
    study.plan = plan_augmentation(study.split, study.settings)
    found = study.extract().values[range(len(study.plan))][:, 0, 0, 0]
    pixels = study.images.values[study.images.find_rows(study.plan["image_id"])]
    seeds = study.plan["scanner_seed"]
    seen = [
        augment_image(*row) for row in zip(pixels, list_transforms(study.plan), seeds, strict=True)
    ]
    expected = np.array([image[..., 0].mean() for image in seen])
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.5)
    moved = [apply_affine(*pair) for pair in zip(pixels, list_transforms(study.plan), strict=True)]
    as_scanned = np.array([image[..., 0].mean() for image in moved])
    varied = (seeds > 0).to_numpy()
    assert np.abs(expected - as_scanned)[varied].mean() > 5
    np.testing.assert_array_equal(expected[~varied], as_scanned[~varied])


def test_where_nothing_is_tuned_features_are_pooled(study: Study) -> None:
    tuned = study.pool(study.extract())
    study.change(training={"fine_tuning": {"epochs": 0}})
    features = study.extract()
    assert study.pool(features) is features
    rows = np.arange(len(study.plan))
    scale = float(tuned.values[rows].max())
    np.testing.assert_allclose(features.values[rows] / scale, tuned.values[rows] / scale, atol=4e-3)


def test_features_are_shared_by_all_who_can_use_them(study: Study) -> None:
    first = study.extract()
    rows = len(first.values)
    assert first.metadata["computed"] == rows
    assert first.metadata["seconds_now"] > 0
    study.change(
        title="another experiment on the same backbone",
        training={"head_phase": {"epochs": 3}, "label_smoothing": 0.3, "class_weights": "none"},
    )
    again = study.extract()
    assert again.metadata["computed"] == again.metadata["seconds_now"] == 0
    assert again.metadata["seconds"] == pytest.approx(first.metadata["seconds"])
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.values[range(rows)], first.values[range(rows)])
    assert study.pool(first).metadata["computed"] == rows
    assert study.pool(again).metadata["computed"] == 0


def test_a_changed_split_computes_what_is_new(study: Study, counting: None) -> None:
    study.extract()
    study.split.loc[study.split.index[0], "split"] = "test"
    study.split.loc[study.split.index[4], "split"] = "train"  # a test image until now
    study.plan = plan_augmentation(study.split, study.settings)
    assert study.extract().metadata["computed"] == 2 + 1


@pytest.mark.parametrize(
    ("changed", "computed"),
    [
        ({"freeze_until": "block2_out", "truncate_at": "block3_out"}, "all"),
        ({"training": {"fine_tuning": {"epochs": 0}}}, "all"),
        ({"training": {"precision": "mixed_bfloat16"}}, "all"),
        ({"training": {"augment_on": "device"}}, "all"),
        ({"training": {"seed": 7}}, "all"),  # of random weights
        ({"augmentation": {"seed": 7}}, "augmented"),
        ({"augmentation": {"per_image": 3}}, "new"),
        ({"training": {"tta_horizontal_flip": True}}, "flips"),
    ],
)
def test_what_features_depend_on_computes_them(
    study: Study, counting: None, changed: dict[str, Any], computed: str
) -> None:
    study.extract()
    study.change(**changed)
    study.plan = plan_augmentation(study.split, study.settings)
    features = study.extract()
    numbers = features.index["augmentation"]
    expected = {
        "all": len(numbers),
        "augmented": (numbers > 0).sum(),
        "new": (numbers == 3).sum(),
        "flips": (numbers < 0).sum(),
    }[computed]
    assert features.metadata["computed"] == expected > 0


def test_other_images_have_other_features(study: Study, counting: None) -> None:
    features = study.extract()
    other = replace(study.images, fingerprint=Fingerprint("images", {"size": 33}))
    study.images = other
    assert study.extract().metadata["computed"] == len(features.values)
    keys = list(other.keys)
    keys[0] = "another picture"
    study.images = replace(other, keys=keys)
    assert study.extract().metadata["computed"] == 2 + 1


@pytest.mark.parametrize("change", [{"preprocessing": BACKBONES["vgg16"].preprocessing}])
def test_a_changed_entry_of_a_backbone_computes_anew(
    study: Study, counting: None, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    features = study.extract()
    monkeypatch.setitem(BACKBONES, "tiny", replace(BACKBONES["tiny"], **change))
    with pytest.raises(BadInputError, match="were made with backbone"):
        study.pool(features)
    assert study.extract().metadata["computed"] == len(features.values)


def test_another_entry_of_a_backbone_changes_nothing(
    study: Study, counting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = study.extract().fingerprint
    monkeypatch.setitem(BACKBONES, "new", replace(BACKBONES["resnet50"], builder="ResNet101"))
    monkeypatch.setitem(BACKBONES, "tiny", replace(BACKBONES["tiny"], imagenet_file="other"))
    assert study.extract().fingerprint == fingerprint


def test_augmenting_on_the_device_gives_nearly_the_same(study: Study) -> None:
    one_by_one = study.extract()
    study.change(training={"augment_on": "device"})
    at_once = study.extract()
    rows = range(len(one_by_one.values))
    assert at_once.metadata["computed"] == len(rows), "augmented otherwise, so not shared"
    one, other = (f.values[rows].astype(float).mean(axis=(1, 2, 3)) for f in (one_by_one, at_once))
    assert np.corrcoef(one, other)[0, 1] > 0.99
    originals = (one_by_one.index["augmentation"] == 0).to_numpy()
    np.testing.assert_allclose(other[originals], one[originals], rtol=1e-3)


@pytest.mark.parametrize(
    ("asked", "is_gpu", "expected"),
    [
        ("auto", False, "opencv"),
        ("auto", True, "keras"),
        ("cpu", True, "opencv"),
        ("device", False, "keras"),
    ],
)
def test_images_are_augmented_on_the_gpu_there_is(
    study: Study,
    counting: None,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    is_gpu: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(device, "prepare_device", lambda _: Device("x", "float32", is_gpu))
    study.change(training={"augment_on": asked})
    assert study.extract().fingerprint.values["augmented_by"] == expected


def test_nothing_is_built_where_nothing_is_computed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.pool(study.extract())
    monkeypatch.setattr(features_module, "build_network", None)
    assert study.pool(study.extract()).metadata["computed"] == 0


def test_features_beyond_float16_are_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Louder:
        name = "frozen"

        def __init__(self, frozen: Any):
            self._frozen = frozen

        def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
            return np.asarray(self._frozen.predict_on_batch(batch)) + 1e5

    original = extraction.compute_features
    monkeypatch.setattr(
        extraction, "compute_features", lambda frozen, batches: original(Louder(frozen), batches)
    )
    with (
        np.errstate(over="ignore"),
        pytest.raises(BadInputError, match="cut tiny elsewhere than after block1_out") as caught,
    ):
        study.extract()
    assert "do not fit float16" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 64}, "were made with image_size 32, the settings have 64"),
        ({"freeze_until": "block2_out"}, "with cut 'block1_out', the settings have 'block2_"),
        ({"augmentation": {"zoom": 0.2}}, "were made with augmentation"),
        ({"training": {"seed": 7}}, "were made with random_weights_seed 42"),
    ],
)
def test_features_of_other_settings_are_refused(
    study: Study, counting: None, changed: dict[str, Any], message: str
) -> None:
    features = study.extract()
    study.change(**changed)
    with pytest.raises(BadInputError, match=message) as caught:
        study.pool(features)
    assert "without --from-nodes" in str(caught.value)
    assert "\n" not in str(caught.value)
