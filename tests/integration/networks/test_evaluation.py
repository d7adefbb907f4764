"""Evaluation: validation images choose, test images are scored, the model says the same."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from busi_pipeline.config.experiments import name_item
from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.evaluation.nodes import (
    average_experiments,
    average_predictions,
    calibrate_linear_probe,
    calibrate_predictions,
    deliver_model,
    predict_images,
    score_linear_probe,
    score_predictions,
)
from busi_pipeline.stats.calibration import Calibration, apply_calibration
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.metrics import score_classification
from busi_pipeline.stats.scoring import probability_columns, select_test
from tests.evaluation_factories import CLASS_SETS, THREE
from tests.factories import make_manifest, make_settings, store_array

EVALUATION = EvaluationSettings(
    target_sensitivity=0.9, threshold_rule="conformal", prevalence=0.05, n_resamples=30, seed=0
)
KEYS = ["image_id", "group", "label", "split", "repeat", "fold"]
every_class_set = pytest.mark.parametrize("classes", CLASS_SETS, ids=len)


def make_uncalibrated(
    classes: Classes = THREE, skill: float = 2.0, folds: int = 1, seed: int = 0, count: int = 240
) -> pd.DataFrame:
    """Return predictions of folds, too certain; every third image is for validation.

    Images and labels are the same whatever skill and seed; two images share a group.
    """
    rng = np.random.default_rng(seed)
    number = np.arange(count)
    label = number // 2 % len(classes)
    seen = skill * np.eye(len(classes))[label] + rng.normal(size=(count, len(classes)))
    logits = 3 * skill * seen  # three times as certain as is right
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in number],
            "group": [f"g{n // 2}" for n in number],
            "label": np.array(classes.names)[label],
            "split": np.where(number // 2 % 5 == 0, "validation", "test"),
            "repeat": 1,
            "fold": number * folds // count + 1,
        }
    )
    exponents = np.exp(logits)
    table[probability_columns(classes, uncalibrated=True)] = exponents / exponents.sum(
        axis=1, keepdims=True
    )
    return table


class Recorder:
    """A model that remembers what it was shown and predicts by brightness."""

    def __init__(self, classes: int) -> None:
        self.shown: list[np.ndarray] = []
        self._classes = classes

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        assert images.dtype == np.uint8
        return np.eye(self._classes, dtype=np.float32)[images[:, 0, 0, 0] % self._classes]


@every_class_set
def test_validation_and_test_images_are_predicted(classes: Classes) -> None:
    split = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "label": [classes.names[n % len(classes)] for n in range(6)],
            "split": ["train", "test", "validation", "test", "train", "test"],
            "group": list("aacdef"),
        }
    )
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    images = store_array(list("abcdef"), pixels)
    model: Any = Recorder(len(classes))
    settings = make_settings(training={"extraction_batch_size": 3})
    table = predict_images(model, images, split, settings, classes)
    assert list(table["image_id"]) == ["b", "c", "d", "f"]
    assert [len(batch) for batch in model.shown] == [3, 1]
    assert np.concatenate(model.shown)[:, 0, 0, 0].tolist() == [1, 2, 3, 5]
    assert list(table.columns) == [*KEYS, *probability_columns(classes, uncalibrated=True)]
    assert list(table["group"]) == ["a", "c", "d", "f"]
    assert set(table["repeat"]) == set(table["fold"]) == {1}
    found = table[probability_columns(classes, uncalibrated=True)].to_numpy().argmax(axis=1)
    assert [classes.names[position] for position in found] == table["label"].tolist()


@pytest.mark.parametrize("folds", [1, 2])
@every_class_set
def test_only_validation_images_choose(classes: Classes, folds: int) -> None:
    uncalibrated = make_uncalibrated(classes, folds=folds)
    predictions, record = calibrate_predictions(uncalibrated, EVALUATION, classes)
    swapped = uncalibrated.copy()
    is_test = swapped["split"] == "test"
    swapped.loc[is_test, "label"] = np.roll(swapped.loc[is_test, "label"], 2)
    again = calibrate_predictions(swapped, EVALUATION, classes)
    assert again.operating_point == record
    for column in ("threshold", "temperature"):
        assert list(again.predictions[column]) == list(predictions[column])
        assert predictions.groupby("fold")[column].nunique().tolist() == [1] * folds
        assert predictions[column].nunique() == folds, "each fold has its own"
    assert predictions["temperature"].min() > 1.1, "these probabilities are too certain"


@every_class_set
def test_the_flag_is_by_the_score_and_its_threshold(classes: Classes) -> None:
    predictions, record = calibrate_predictions(make_uncalibrated(classes), EVALUATION, classes)
    point = record["operating_point"]
    assert point.keys() == {
        *("temperature", "offsets", "threshold", "expected_sensitivity", "chosen_on"),
        *("target_sensitivity", "threshold_rule", "positive_classes", "lesion_free_classes"),
    }
    assert point["positive_classes"] == list(classes.positive)
    assert (point["target_sensitivity"], point["threshold_rule"]) == (0.9, "conformal")
    score = predictions[[f"p_{name}" for name in classes.positive]].sum(axis=1)
    assert (predictions["flagged"] == (score >= point["threshold"] - 1e-12)).all()
    validation = predictions[predictions["split"] == "validation"]
    positives = validation[validation["label"].isin(classes.positive)]
    assert positives["flagged"].mean() >= 0.9
    likeliest = predictions[probability_columns(classes)].to_numpy().argmax(axis=1)
    assert predictions["predicted"].tolist() == [classes.names[n] for n in likeliest]
    assert (predictions["correct"] == (predictions["predicted"] == predictions["label"])).all()


def test_the_point_of_several_folds_is_their_median() -> None:
    predictions, record = calibrate_predictions(make_uncalibrated(folds=3), EVALUATION, THREE)
    thresholds = predictions.groupby("fold")["threshold"].first()
    assert record["operating_point"]["threshold"] == np.median(thresholds)
    assert "temperature" not in record["operating_point"]
    assert 0 < record["operating_point"]["expected_sensitivity"] <= 1


@pytest.mark.parametrize(
    ("folds", "target", "warning"),
    [
        (1, 0.9, None),
        (1, 0.99, "too few malignant validation images to promise a sensitivity of 0.99"),
        (2, 0.95, "in 2 of 2 folds too few malignant validation images"),
        (2, 0.85, None),
    ],
)
def test_too_few_positives_to_promise_are_said(
    folds: int, target: float, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = EVALUATION.updated({"target_sensitivity": target})
    _, record = calibrate_predictions(make_uncalibrated(folds=folds), evaluation, THREE)
    assert (warning in caplog.text) if warning else (caplog.text == "")
    if folds == 1 and warning:
        assert record["operating_point"]["expected_sensitivity"] == pytest.approx(16 / 17)


def test_no_positive_validation_image_is_one_line() -> None:
    table = make_uncalibrated()
    gone = (table["split"] == "validation") & (table["label"] == "malignant")
    with pytest.raises(BadInputError, match="none of the 32 validation images is malignant"):
        calibrate_predictions(table[~gone], EVALUATION, THREE)


def score(
    uncalibrated: pd.DataFrame, classes: Classes = THREE, **settings: Any
) -> tuple[pd.DataFrame, Any]:
    predictions = calibrate_predictions(uncalibrated, EVALUATION, classes).predictions
    scores = score_predictions(
        predictions,
        make_settings("T", **settings),
        {"training": {"seconds": {"total": 12.5}}},
        {"weights": "none"},
        {"split_sha256": "abc"},
        EVALUATION,
        classes,
    )
    return predictions, scores


def list_shares(scores: dict[str, Any], path: str = "") -> dict[str, tuple[float, ...]]:
    """Return every share with its interval; counts have none."""
    found = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            found |= list_shares(value, f"{path}{name}.")
        elif isinstance(value, float) and "_ci_" not in name:
            found[path + name] = (scores[f"{name}_ci_low"], value, scores[f"{name}_ci_high"])
        elif isinstance(value, int):
            assert f"{name}_ci_low" not in scores, "a count"
    return found


@every_class_set
def test_parts_are_scored_apart_with_intervals(classes: Classes) -> None:
    predictions, (metrics, per_class) = score(
        make_uncalibrated(classes, skill=1.0), classes, baseline_of="vgg16"
    )
    test = select_test(predictions)
    expected = score_classification(
        classes.positions(test["label"]), test[probability_columns(classes)].to_numpy(), classes
    )
    found = metrics["test"]
    for name in (*classes, "positive"):
        alone = {key: value for key, value in found[name].items() if "_ci_" not in key}
        assert alone == pytest.approx(expected[name], nan_ok=True)
    missed = test["label"].isin(classes.positive) & ~test["flagged"]
    assert found["flag"]["missed"] == missed.sum()
    assert metrics["validation"]["loss"] != found["loss"]
    calibration = metrics["validation"]["calibration"]
    assert calibration["calibrated"]["brier"] < calibration["uncalibrated"]["brier"]
    shares = list_shares(found)
    assert len(shares) > 30
    for name, (low, value, high) in shares.items():
        assert low <= value <= high, name
    assert (metrics["repeats"], metrics["folds"]) == (1, 1)
    assert metrics["training_seconds"] == 12.5
    assert metrics["depends_on"] == {"split_sha256": "abc", "weights": "none"}
    assert metrics["experiment"] == {"title": "T", "baseline_of": "vgg16"}
    table = per_class.set_index("class")
    assert list(table.index) == list(classes)
    first = classes.names[0]
    assert table.loc[first, "missed"] == expected[first]["missed"]


def test_permuted_labels_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    right = make_uncalibrated(folds=3)
    score(right)
    assert "by chance" not in caplog.text
    permuted = np.random.default_rng(3).permutation(right["label"])
    score(right.assign(label=permuted))
    assert "it is not shown that malignant is ranked better than by chance, AUC 0." in caplog.text
    assert "labels that do not belong to their images look like this" in caplog.text


def test_several_folds_are_scored_out_of_fold() -> None:
    _, (metrics, _) = score(make_uncalibrated(folds=3))
    assert "validation" not in metrics
    assert metrics["folds"] == 3
    assert metrics["test"]["images"] == 192


def test_repeats_do_not_pass_for_more_images() -> None:
    once = make_uncalibrated(folds=2, skill=1.0)
    thrice = pd.concat([once.assign(repeat=n) for n in (1, 2, 3)], ignore_index=True)
    one, three = (score(table)[1].metrics for table in (once, thrice))
    assert (one["repeats"], three["repeats"], three["folds"]) == (1, 3, 2)
    assert three["test"]["images"] == 3 * one["test"]["images"]
    for end in ("accuracy_ci_low", "accuracy_ci_high"):
        assert three["test"][end] == pytest.approx(one["test"][end])


def test_the_linear_probe_is_scored_as_networks_are() -> None:
    uncalibrated = make_uncalibrated(folds=2)
    probe = calibrate_linear_probe(uncalibrated, EVALUATION, THREE)
    predictions, (metrics, _) = score(uncalibrated)
    pd.testing.assert_frame_equal(probe, predictions)
    assert score_linear_probe(probe, EVALUATION, THREE) == {"linear_probe": metrics["test"]}


@every_class_set
def test_the_delivered_model_says_what_the_table_says(classes: Classes) -> None:
    """Calibration, score and flag of the model are those of predictions.csv, image by image."""
    uncalibrated = make_uncalibrated(classes, skill=1.0)
    columns = probability_columns(classes, uncalibrated=True)
    # A model whose answers lie in the image, in steps of a 65535th.
    codes = np.round(uncalibrated[columns].to_numpy() * 65535).astype(int)
    pixels = np.zeros((len(codes), 1, len(classes), 3), dtype=np.uint8)
    pixels[:, 0, :, 0], pixels[:, 0, :, 1] = codes // 256, codes % 256
    given = keras.Input((1, len(classes), 3), dtype="uint8")
    values = keras.ops.cast(given, "float32")
    code = values[:, 0, :, 0] * 256.0 + values[:, 0, :, 1]
    answers = code / keras.ops.sum(code, axis=1, keepdims=True)
    trained = keras.Model(given, answers, name="trained")
    uncalibrated[columns] = np.asarray(trained(pixels)).astype(float)
    predictions, record = calibrate_predictions(uncalibrated, EVALUATION, classes)
    settings = make_settings("T")
    manifest = make_manifest({"benign": 3}).assign(site="main")
    split = manifest[["image_id"]].assign(split=["train", "validation", "test"])
    tags = ({f"{name}_sha256": name} for name in ("data", "split", "training"))
    delivered = deliver_model(trained, record, settings, classes, manifest, split, *tags)
    answer = delivered.model(pixels)
    table = predictions[probability_columns(classes)].to_numpy()
    np.testing.assert_allclose(answer["probabilities"], table, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(answer["flagged"]), predictions["flagged"])
    assert 0 < predictions["flagged"].sum() < len(predictions)
    np.testing.assert_allclose(answer["positive_score"], classes.positive_score(table), atol=1e-5)
    assert delivered.description == {
        "title": "T",
        "image_size": settings.image_size,
        "classes": list(classes.names),
        "positive_classes": list(classes.positive),
        **record["operating_point"],
        "sites": ["main"],
        "data_sha256": "data",
        "split_sha256": "split",
        "training_sha256": "training",
        "input": settings.input.model_dump(mode="json"),
    }
    assert delivered.training_pixels == set(manifest["pixel_sha256"][:2]), "not of test images"


def name_experiments(tables: list[pd.DataFrame], backbones: list[str]) -> dict[str, Any]:
    """Return the arguments of `average_experiments`."""
    given: dict[str, Any] = {}
    for number, (table, backbone) in enumerate(zip(tables, backbones, strict=True)):
        items = {
            "predictions": table,
            "settings": make_settings(backbone=backbone),
            "report": {"training": {"seconds": {"total": 10.0 * (number + 1)}}},
            "tags": {"weights": "none", "training_sha256": str(number)},
        }
        given |= {name_item(f"experiment_{number}", key): value for key, value in items.items()}
    return given


@every_class_set
def test_an_ensemble_averages_and_ranks_better(classes: Classes) -> None:
    tables = [make_uncalibrated(classes, 0.5, folds=2, seed=seed) for seed in range(4)]
    shuffled = [tables[0], *(table.sample(frac=1, random_state=1) for table in tables[1:])]
    backbones = ["vgg16", "resnet50", "inception_v3", "inception_v3"]
    given = name_experiments(shuffled, backbones)
    mean, report, tags = average_experiments(classes, **given)
    columns = probability_columns(classes, uncalibrated=True)
    assert list(mean.columns) == [*KEYS, *columns]
    a, b, c, d = (table.set_index("image_id")[columns] for table in tables)
    expected = (a + b + (c + d) / 2) / 3
    found = mean.set_index("image_id")[columns]
    pd.testing.assert_frame_equal(found, expected.loc[found.index], check_exact=False)
    labels = mean.set_index("image_id")["label"]
    assert labels.equals(tables[0].set_index("image_id")["label"].loc[labels.index])
    assert report == {"training": {"seconds": {"total": 100.0}}}
    assert tags == {"weights": "none"}, "what all of them share"
    probes = {key: value for key, value in given.items() if "report" not in key}
    pd.testing.assert_frame_equal(average_predictions(classes, **probes), mean)

    def rank(table: pd.DataFrame) -> float:
        score = classes.positive_score(table[columns].to_numpy())
        return float(roc_auc_score(classes.is_positive(table["label"]), score))

    assert rank(mean) > max(rank(table) for table in tables)


def test_members_of_one_backbone_count_as_two() -> None:
    """As in the model that joins them, in which each is a member."""
    tables = [make_uncalibrated(THREE, 0.5, folds=2, seed=seed) for seed in range(3)]
    given = name_experiments(tables, ["vgg16", "vgg16", "resnet50"])
    of_members = {key: value for key, value in given.items() if not key.endswith("settings")}
    probes = {name_item(f"experiment_{n}", "predictions"): t for n, t in enumerate(tables[::-1])}
    mean, report, tags = average_experiments(THREE, **of_members)
    probe = average_predictions(THREE, **probes)
    columns = probability_columns(THREE, uncalibrated=True)
    expected = sum(table.set_index("image_id")[columns] for table in tables) / 3
    for found in (mean, probe):
        own = found.set_index("image_id")[columns]
        pd.testing.assert_frame_equal(own, expected.loc[own.index], check_exact=False)
    assert report == {"training": {"seconds": {"total": 60.0}}}
    assert tags == {"weights": "none"}


def test_experiments_of_other_folds_make_no_ensemble() -> None:
    table = make_uncalibrated(folds=2)
    given = name_experiments([table, table.assign(fold=3 - table["fold"])], ["vgg16", "resnet50"])
    with pytest.raises(BadInputError, match="different folds: run") as caught:
        average_experiments(THREE, **given)
    assert "\n" not in str(caught.value)


def test_calibration_keeps_what_it_is_of() -> None:
    uncalibrated = make_uncalibrated(folds=2).sample(frac=1, random_state=0)
    predictions, _ = calibrate_predictions(uncalibrated, EVALUATION, THREE)
    assert sorted(predictions["image_id"]) == sorted(uncalibrated["image_id"])
    first = predictions[predictions["fold"] == 1]
    columns = probability_columns(THREE, uncalibrated=True)
    again = calibrate_predictions(first.drop(columns=["threshold"]), EVALUATION, THREE)
    point = again.operating_point["operating_point"]
    assert point["threshold"] == first["threshold"].iloc[0]
    calibration = Calibration(point["temperature"], tuple(point["offsets"]))
    expected = apply_calibration(first[columns].to_numpy(), calibration)
    np.testing.assert_allclose(first[probability_columns(THREE)], expected)
