"""Cross-validation: who is judged when, what is kept, what is chosen where, the ensemble."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.datasets.folds import FoldsDataset, TrainedFold
from busi_pipeline.errors import BadInputError
from busi_pipeline.config.experiments import name_item, resolve_experiment
from busi_pipeline.stats.scoring import probability_columns
from busi_pipeline.imaging.affine import FLIPPED, ORIGINAL
from busi_pipeline.pipelines.cross_validation import nodes
from busi_pipeline.pipelines.splitting.folds import (
    Fold,
    assign_folds,
    list_folds,
    select_fold,
)
from busi_pipeline.pipelines.leakage.nodes import (
    plot_leakage,
    measure_leakage,
    report_leakage,
)
from busi_pipeline.pipelines.cross_validation.nodes import (
    judge_folds,
    predict_with_linear_probe,
    score_folds,
)
from busi_pipeline.pipelines.cross_validation.plots import draw_fold_confusion_matrix
from busi_pipeline.pipelines.ensembling.nodes import average_rows
from busi_pipeline.learning.features import find_evaluation_rows
from busi_pipeline.learning.predicting import predict_rows
from tests.conftest import CLASSES, run_project, write_tiny_environment
from tests.pipelines.test_split import GROUPED, RANDOM, resample_groups
from tests.test_experiments import shared  # noqa: F401  # a fixture

CHOICE = {"folds": 5, "repeats": 2, "seed": 7, "validation": 0.12}
JUDGING = {
    "target_sensitivity": 0.95,
    "threshold_rule": "conformal",
    "prevalence": 0.05,
    "n_resamples": 30,
    "seed": 0,
}


@settings(max_examples=25, deadline=None)
@given(images=resample_groups(), seed=st.integers(0, 2**31), keep=st.booleans())
def test_groups_never_cross_whatever_the_seed(images: pd.DataFrame, seed: int, keep: bool) -> None:
    choice = CHOICE | {"seed": seed}
    split = GROUPED | {"mixed_labels": "keep" if keep else "exclude"}
    folds, tags = assign_folds(images, images, split, choice)
    expected = images if keep else images[~images["mixed_labels"]]
    assert sorted(folds["image_id"]) == sorted(expected["image_id"])
    assert tags["folds_method"] == "grouped"
    judged = []
    for fold in list_folds(folds):
        parts = select_fold(folds, fold, choice)
        assert set(parts["split"]) == {"train", "validation", "test"}
        assert parts.groupby("group")["split"].nunique().max() == 1
        judged.append(parts.loc[parts["split"] == "test"].assign(repeat=fold.repeat))
    table = pd.concat(judged)
    for _, repeat in table.groupby("repeat"):
        assert sorted(repeat["image_id"]) == sorted(folds["image_id"]), "each once a repeat"
    assert folds["repeat_1"].tolist() != folds["repeat_2"].tolist()


def test_folds_of_busi_keep_the_shares(manifest: pd.DataFrame) -> None:
    alone = manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)
    folds = assign_folds(manifest, alone, GROUPED, CHOICE).fold_manifest
    assert [f.name for f in list_folds(folds)][:6] == [
        *(f"repeat_1_fold_{n}" for n in range(1, 6)),
        "repeat_2_fold_1",
    ]
    parts = select_fold(folds, Fold(1, 1), CHOICE)
    counts = pd.crosstab(parts["split"], parts["label"])
    assert counts.loc["test", "malignant"] == 42
    assert counts.loc["validation"].sum() == pytest.approx(0.12 * 780, abs=10)
    assert counts.loc["validation", "malignant"] == pytest.approx(0.12 * 210, abs=3)


def test_random_folds_part_copies_and_judge_the_same_images(manifest: pd.DataFrame) -> None:
    pairs = np.arange(len(manifest)) // 2
    groups = manifest[["image_id"]].assign(group=[f"g{i}" for i in pairs], mixed_labels=pairs < 2)
    grouped, random = (
        assign_folds(manifest, groups, split, CHOICE).fold_manifest for split in (GROUPED, RANDOM)
    )
    assert list(random["image_id"]) == list(grouped["image_id"])
    assert list(random["group"]) == list(grouped["group"]), "the bootstrap still n_resamples groups"
    assert len(random) == len(manifest) - 4, "mixed groups are left out of both"
    parts = select_fold(random, Fold(1, 1), CHOICE)
    assert parts.groupby("group")["split"].nunique().max() > 1
    assert grouped.groupby("group")["repeat_1"].nunique().max() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"repeats": 0}, "repeats at least 1"),
        ({"folds": 200}, "folds is 200, but the smallest class has 133"),
        ({"validation": 0.7}, "leaves nothing to train on"),
    ],
)
def test_impossible_folds_are_refused(
    manifest: pd.DataFrame, change: dict[str, Any], message: str
) -> None:
    alone = manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)

    def deal() -> None:
        folds = assign_folds(manifest, alone, GROUPED, CHOICE | change).fold_manifest
        select_fold(folds, Fold(1, 1), CHOICE | change)

    with pytest.raises(BadInputError, match=message):
        deal()


def store_features(image_ids: list[str], values: np.ndarray) -> StoredArray:
    """Two views an image, plain and mirrored, of the given pooled features (n, channels)."""
    index = pd.DataFrame(
        {
            "image_id": [*image_ids, *image_ids],
            "view": [ORIGINAL] * len(image_ids) + [FLIPPED] * len(image_ids),
        }
    )
    return StoredArray(index, np.concatenate([values, values + 0.5]).astype(np.float16))


class _Echo:
    """A model that answers with its input, of which its weight is added to the first class."""

    def __init__(self) -> None:
        self._weights = [np.zeros(1)]

    def get_weights(self) -> list[np.ndarray]:
        return self._weights

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self._weights = weights

    def predict_on_batch(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values + self._weights[0] * np.eye(3)[0])


def test_images_are_judged_by_plain_and_mirrored_view() -> None:
    ids = [f"i{n}" for n in range(50)]
    values = np.eye(3)[np.arange(50) % 3]
    features = store_features(ids, values)
    wanted = pd.Series(["i40", "i3"])
    views = find_evaluation_rows(features, wanted, mirror=True)
    assert views.tolist() == [[40, 90], [3, 53]]
    assert find_evaluation_rows(features, wanted, mirror=False).tolist() == [[40], [3]]
    everything = find_evaluation_rows(features, pd.Series(ids), mirror=True)
    model: Any = _Echo()
    predicted = predict_rows(model, None, features, everything)
    np.testing.assert_allclose(predicted, (values + 0.25) / 1.75)
    with_start = predict_rows(model, [np.array([1e9])], features, everything)
    np.testing.assert_allclose(with_start, (predicted + np.eye(3)[0]) / 2, atol=1e-6)
    assert model.get_weights() == [0], "left as it came"


def make_raw(rng: np.random.Generator, skill: float, noise_seed: int = 0) -> pd.DataFrame:
    """Predictions of two folds, with a signal of the given strength."""
    noise = np.random.default_rng(noise_seed)
    count = 240
    label = rng.integers(0, 3, count)
    logits = skill * np.eye(3)[label] + noise.normal(size=(count, 3))
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "group": [f"g{n // 2}" for n in range(count)],
            "label": np.array(CLASSES)[label],
            "split": np.where(np.arange(count) % 3 == 0, "validation", "test"),
            "repeat": 1,
            "fold": np.where(np.arange(count) < count // 2, 1, 2),
        }
    )
    exponents = np.exp(logits)
    table[probability_columns(CLASSES, raw=True)] = exponents / exponents.sum(axis=1, keepdims=True)
    return table


def test_threshold_and_temperature_know_nothing_of_the_test(rng: np.random.Generator) -> None:
    raw = make_raw(rng, 2.0)
    judged = judge_folds(raw, JUDGING, CLASSES)
    lied = raw.copy()
    is_test = lied["split"] == "test"
    lied.loc[is_test, "label"] = np.roll(lied.loc[is_test, "label"], 1)
    lied_judged = judge_folds(lied, JUDGING, CLASSES)
    for column in ("threshold", "temperature"):
        assert list(judged[column]) == list(lied_judged[column])
        assert judged.groupby("fold")[column].nunique().tolist() == [1, 1]
        assert judged[column].nunique() == 2, "each fold has its own"
    validation = judged[(judged["split"] == "validation") & (judged["label"] == "malignant")]
    assert validation.groupby("fold")["flagged"].mean().min() >= 0.95


@pytest.mark.parametrize(("target", "told"), [(0.95, "in 2 of 2 folds"), (0.8, None)])
def test_folds_with_too_few_cancers_are_told(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture, target: float, told: str | None
) -> None:
    raw = make_raw(rng, 2.0)
    cancers = raw[(raw["split"] == "validation") & (raw["label"] == "malignant")]
    assert cancers.groupby("fold").size().between(4, 18).all()
    judge_folds(raw, JUDGING | {"target_sensitivity": target}, CLASSES)
    assert (told in caplog.text) if told else (caplog.text == "")


def name_rows(tables: list[pd.DataFrame], backbones: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for number, (table, backbone) in enumerate(zip(tables, backbones, strict=True)):
        given[name_item(f"row_{number}", "predictions")] = table
        given[name_item(f"row_{number}", "settings")] = {"backbone": backbone}
    return given


def test_ensemble_averages_and_ranks_better(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    rows = []
    for seed in range(4):
        rng.bit_generator.state = state  # the same labels, other noise
        rows.append(judge_folds(make_raw(rng, 1.0, seed), JUDGING, CLASSES))
    shuffled = [rows[0], *(table.sample(frac=1, random_state=1) for table in rows[1:])]
    ensemble = average_rows(JUDGING, CLASSES, **name_rows(shuffled, ["a", "b", "c", "c"]))
    first = ensemble.set_index("image_id").loc["i5"]
    a, b, c, d = (t.set_index("image_id").loc["i5", "raw_malignant"] for t in rows)
    expected = (a + b + (c + d) / 2) / 3
    assert first["raw_malignant"] == pytest.approx(expected), "a backbone counts once"

    def rank(table: pd.DataFrame) -> float:
        return float(roc_auc_score(table["label"] == "malignant", table["p_malignant"]))

    assert rank(ensemble) > max(rank(table) for table in rows)


def test_rows_of_other_folds_make_no_ensemble(rng: np.random.Generator) -> None:
    table = judge_folds(make_raw(rng, 1.0), JUDGING, CLASSES)
    with pytest.raises(BadInputError, match="different folds: run"):
        average_rows(
            JUDGING, CLASSES, **name_rows([table, table.assign(fold=3 - table["fold"])], ["a", "b"])
        )


def test_repeats_do_not_pass_for_more_images(rng: np.random.Generator) -> None:
    once = judge_folds(make_raw(rng, 1.5), JUDGING, CLASSES)
    thrice = pd.concat([once.assign(repeat=n) for n in (1, 2, 3)], ignore_index=True)
    tags = {"folds_sha256": "a"}
    found = [score_folds(t, t, {"title": "x"}, tags, JUDGING, CLASSES) for t in (once, thrice)]
    one, three = (metrics["cross_validation"] for metrics in found)
    assert (one["repeats"], three["repeats"], three["folds"]) == (1, 3, 2)
    assert three["test"]["images"] == 3 * one["test"]["images"]
    for end in ("accuracy_ci_low", "accuracy_ci_high"):
        assert three["test"][end] == pytest.approx(one["test"][end])
    drawn_once, drawn_thrice = (
        draw_fold_confusion_matrix(t, metrics, CLASSES).get_suptitle()
        for t, metrics in zip((once, thrice), found, strict=True)
    )
    assert f"each of {one['test']['images']} images judged 3 times" in " ".join(
        drawn_thrice.split()
    )
    assert "judged" not in drawn_once


@pytest.fixture
def resnet_settings(shared: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:  # noqa: F811
    return resolve_experiment({"backbone": "resnet50"}, *shared).model_dump(exclude_none=True)


def test_probe_learns_from_the_frozen_base(
    manifest: pd.DataFrame, resnet_settings: dict[str, Any], rng: np.random.Generator
) -> None:
    alone = manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)
    choice = CHOICE | {"repeats": 1}
    folds = assign_folds(manifest, alone, GROUPED, choice).fold_manifest
    positions = folds["label"].map(CLASSES.index).to_numpy()
    signal = np.pad(np.eye(3)[positions] * 3, ((0, 0), (0, 5)))
    pooled = store_features(list(folds["image_id"]), signal + rng.normal(size=signal.shape))
    judged = predict_with_linear_probe(pooled, folds, resnet_settings, choice, JUDGING, CLASSES)
    test = judged[judged["split"] == "test"]
    assert sorted(test["image_id"]) == sorted(folds["image_id"])
    assert test["correct"].mean() > 0.85
    noise = store_features(list(folds["image_id"]), rng.normal(size=signal.shape))
    blind = predict_with_linear_probe(noise, folds, resnet_settings, choice, JUDGING, CLASSES)
    assert blind.loc[blind["split"] == "test", "correct"].mean() < 0.6


def make_fold(identity: str = "x", **report: float) -> TrainedFold:
    return TrainedFold({"image_id": ["a", "b"], "raw_benign": [0.25, 0.5]}, report, identity)


def test_folds_survive_a_stop(tmp_path: Path) -> None:
    dataset = FoldsDataset(path=str(tmp_path / "folds"), experiment="resnet50")
    assert dataset.load() == {}
    assert not dataset.exists()

    def train() -> Iterator[dict[str, TrainedFold]]:
        yield {"repeat_1_fold_1": make_fold()}
        raise KeyboardInterrupt

    def run() -> None:
        for done in train():
            dataset.save(done)

    with pytest.raises(KeyboardInterrupt):
        run()
    kept = dataset.load()
    assert kept == {"repeat_1_fold_1": make_fold()}
    assert kept["repeat_1_fold_1"].kept
    dataset.save({"repeat_1_fold_1": make_fold("y")})
    assert dataset.load()["repeat_1_fold_1"].identity == "y"


def test_cross_validation_end_to_end_is_kept_fold_by_fold(
    make_project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(dict.fromkeys(CLASSES, 15))
    write_tiny_environment(project)
    trained = []
    fit = nodes.fit_network

    def interrupted(*given: Any) -> Any:
        if len(trained) == 1:
            raise RuntimeError("the lid was closed")
        trained.append(given)
        return fit(*given)

    monkeypatch.setattr(nodes, "fit_network", interrupted)
    with pytest.raises(RuntimeError, match="the lid was closed"):
        run_project(project, "cross_validate_resnet50")
    assert mlflow.active_run() is None
    monkeypatch.setattr(nodes, "fit_network", lambda *given: trained.append(given) or fit(*given))
    run_project(project, "cross_validate_resnet50")
    assert len(trained) == 2, "one fold was kept, one was missing"
    assert mlflow.active_run() is None
    folder = project / "data/08_reporting/resnet50/cross_validation"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json",
        "gain.csv",
        "confusion_matrix.png",
        "roc_pr_curves_plot.png",
        "calibration.png",
        "decisions.png",
    }
    scores = json.loads((folder / "metrics.json").read_text())["cross_validation"]
    assert scores["test"]["images"] == 45
    assert "accuracy_ci_low" in scores["test"]
    assert "accuracy_ci_low" in scores["probe"]
    gain = pd.read_csv(folder / "gain.csv").set_index("metric").loc["accuracy"]
    assert (gain["first"], gain["second"]) == ("fine_tuned", "frozen_probe")
    assert gain["first_value"] == pytest.approx(scores["test"]["accuracy"])
    assert gain["second_value"] == pytest.approx(scores["probe"]["accuracy"])

    runs = mlflow.search_runs(search_all_experiments=True, order_by=["attributes.start_time"])
    parent = runs[runs["tags.mlflow.parentRunId"].isna()].iloc[-1]
    children = runs[runs["tags.mlflow.parentRunId"] == parent["run_id"]]
    assert sorted(children["tags.fold"]) == ["repeat_1_fold_1", "repeat_1_fold_2"]
    assert sorted(children["tags.fold_kept"]) == ["no", "yes"]
    assert children["metrics.test.accuracy"].between(0, 1).all()
    total = (children["metrics.test.correct"]).sum()
    assert parent["metrics.cross_validation.test.correct"] == pytest.approx(total, abs=6)
    assert parent["tags.folds_method"] == "grouped"

    assert mlflow.active_run() is None
    run_project(project, "cross_validate_resnet50")
    assert len(trained) == 2, "nothing changed"
    assert mlflow.active_run() is None
    run_project(project, "cross_validate_resnet50", training={"label_smoothing": 0.2})
    assert len(trained) == 4, "another recipe is another training"


def test_all_rows_their_ensemble_and_their_pairs(make_project: Any) -> None:
    project = make_project(dict.fromkeys(CLASSES, 15))
    rows = dict.fromkeys(("inceptionv3", "inceptionv3_adamw"), "in_default: false")
    rows |= dict.fromkeys(("vgg16", "resnet50"), "training: {fine_tuning: {epochs: 0}}")  # quick
    text = "".join(f"  {row}: {{{settings}}}\n" for row, settings in rows.items())
    (project / "conf/local/parameters_more.yml").write_text(f"experiments:\n{text}")
    write_tiny_environment(project)
    run_project(project, "cross_validation")
    reporting = project / "data/08_reporting"
    pairs = pd.read_csv(reporting / "cv_pairs.csv")
    names = {"vgg16", "resnet50", "ensemble"}
    assert set(pairs["first"]) | set(pairs["second"]) == names
    assert len(pairs) == 5 * 3, "five metrics, three pairs"
    assert (reporting / "cv_pairs.png").exists()
    scores = json.loads((reporting / "ensemble/cross_validation/metrics.json").read_text())
    assert scores["title"] == "ensemble"
    assert scores["cross_validation"]["test"]["images"] == 45

    run_project(project, "leakage")
    leakage = pd.read_csv(reporting / "leakage.csv")
    assert set(leakage["experiment"]) == {"vgg16", "resnet50"}
    assert set(leakage["model"]) == {"fine-tuned", "frozen probe"}
    np.testing.assert_allclose(leakage["inflation"], leakage["random"] - leakage["grouped"])
    assert (reporting / "leakage.png").exists()

    run_project(project, "shortcuts_resnet50")
    audit = pd.read_csv(reporting / "resnet50/cross_validation/shortcuts.csv")
    asked = audit.set_index("question")["images"]
    assert asked["fine-tuned, all images"] == 45
    assert asked["size and place of the box alone"] == 30, "those with a lesion"
    assert (reporting / "resnet50/cross_validation/shortcuts.png").exists()
    assert (reporting / "burned_in_annotations_plot.png").exists()


def test_leakage_is_seen_where_it_is(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    honest = judge_folds(make_raw(rng, 1.0, 1), JUDGING, CLASSES)
    rng.bit_generator.state = state  # the same images
    leaky = judge_folds(make_raw(rng, 3.0, 2), JUDGING, CLASSES)
    other_repeat = honest.assign(repeat=2, correct=True)
    grouped = pd.concat([honest, other_repeat], ignore_index=True)
    table = measure_leakage(grouped, honest, leaky, honest, JUDGING).set_index(["model", "metric"])
    row = table.loc["fine-tuned", "accuracy"]
    test = honest["split"] == "test"
    assert row["grouped"] == honest.loc[test, "correct"].mean()
    assert row["inflation"] > 0.2
    assert row["inflation_ci_low"] > 0
    assert table.loc["frozen probe", "accuracy"]["inflation"] == 0
    report = report_leakage(resnet50=table.reset_index())
    corrected = report.set_index(["model", "metric"])["p_corrected"]
    assert corrected["fine-tuned", "accuracy"] < 0.001
    assert set(corrected["frozen probe"]) == {1.0}
    assert [a.get_title() for a in plot_leakage(report).axes][:2] == ["accuracy", "cancer AUC"]
