"""What a person needs of every plot: text that is large enough, whole, and not on other text."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from busi_pipeline.config.schemas import EnsembleSettings
from busi_pipeline.imaging.crops import Window
from busi_pipeline.pipelines.bias_audit.plots import plot_bias_audit, plot_burned_in_annotations
from busi_pipeline.pipelines.deduplication.plots import plot_duplicate_pairs
from busi_pipeline.pipelines.evaluation.decision_plots import plot_calibration, plot_decision_curve
from busi_pipeline.pipelines.evaluation.plots import (
    plot_confusion_matrix,
    plot_learning_curves,
    plot_misclassified,
    plot_roc_pr_curves,
)
from busi_pipeline.pipelines.explanation.plots import plot_gradcam_gallery
from busi_pipeline.pipelines.external_validation.plots import (
    plot_inside_and_outside,
    plot_site_curves,
    plot_subgroups,
    plot_worst_mistakes,
)
from busi_pipeline.pipelines.leakage.plots import plot_leakage
from busi_pipeline.pipelines.leave_one_site_out.nodes import plot_sites
from busi_pipeline.pipelines.localization.plots import plot_lesion_boxes
from busi_pipeline.pipelines.model_comparison.nodes import compare_experiments
from busi_pipeline.pipelines.model_comparison.plots import (
    plot_model_comparison,
    plot_pairwise_comparisons,
)
from busi_pipeline.plotting.style import PALETTE
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import compare_predictions
from busi_pipeline.stats.external import add_positive_score
from tests.evaluation_factories import (
    CLASS_SETS,
    EVALUATION,
    THREE,
    make_external_metrics,
    make_metrics,
    make_predictions,
)
from tests.factories import (
    as_raw_images,
    encode_image,
    load_parameters,
    make_settings,
    store_array,
)
from tests.privacy_factories import UNCOVERED

# Pixels of the report's column, and of the smallest text in it.
COLUMN, SMALLEST = 1056, 10
LONG = Classes(
    ("cyst", "invasive ductal carcinoma", "invasive lobular carcinoma", "normal"),
    ("invasive ductal carcinoma", "invasive lobular carcinoma"),
)
SETTINGS = make_settings("InceptionV3, AdamW")
EXPERIMENTS = ["InceptionV3, AdamW", "DenseNet121, lesion and whole", "VGG16", "ResNet50"]


class Shown(NamedTuple):
    """A text that is drawn: where (pixels), and how large in the report (pixels)."""

    text: str
    box: Bbox
    size: float


def list_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """Return what is drawn; the ticks outside of an axis, say, are texts that are not."""
    shown: dict[int, Shown] = {}
    scale = figure.dpi / 72 * min(1, COLUMN / (figure.get_figwidth() * figure.dpi))
    draw = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            size = float(self.get_fontsize()) * scale
            shown[id(self)] = Shown(self.get_text(), self.get_window_extent(renderer), size)
        draw(self, renderer)

    figure.draw_without_rendering()  # the layout moves texts
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    return list(shown.values())


def overlap(one: Bbox, other: Bbox) -> bool:
    """Do they by more than a pixel or two?"""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(min(wide, high) > 2)


def assert_readable(figure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(figure, Figure)
    shown = list_texts(figure, monkeypatch)
    assert shown
    small = [one for one in shown if one.size < SMALLEST]
    assert not small
    width, height = figure.bbox.width, figure.bbox.height
    cut = [
        one.text
        for one in shown
        if min(one.box.x0, one.box.y0) < -1 or one.box.x1 > width + 1 or one.box.y1 > height + 1
    ]
    assert not cut
    over = [
        (one.text, other.text)
        for one, other in combinations(shown, 2)
        if overlap(one.box, other.box)
    ]
    assert not over


@pytest.mark.parametrize("folds", [1, 5])
@pytest.mark.parametrize("classes", [*CLASS_SETS, LONG], ids=["two", "three", "four", "long"])
def test_plots_of_an_evaluation(
    classes: Classes, folds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = make_predictions(classes, folds=folds, repeats=folds, threshold=0.012)
    metrics = make_metrics(predictions, classes, SETTINGS.title)
    if folds > 1:
        predictions["threshold"] = predictions["fold"] / 200
    chosen_on = "validation images" + (" of each fold" if folds > 1 else "")
    point = {"operating_point": {"threshold": 0.012, "chosen_on": chosen_on}}
    for figure in (
        plot_confusion_matrix(predictions, metrics, classes),
        plot_roc_pr_curves(predictions, metrics, classes),
        plot_calibration(predictions, metrics, EVALUATION, classes),
        plot_decision_curve(predictions, point, metrics, EVALUATION, classes),
    ):
        assert_readable(figure, monkeypatch)


def draw_pairs() -> Figure:
    tables = {f"e{n}": make_predictions(THREE, seed=n) for n in range(len(EXPERIMENTS))}
    settings = {name: make_settings(t) for name, t in zip(tables, EXPERIMENTS, strict=True)}
    pairs = compare_predictions(THREE, EVALUATION, **tables)
    figure = plot_pairwise_comparisons(pairs, settings, EnsembleSettings(title="Ensemble"))
    assert isinstance(figure, Figure)
    return figure


def draw_comparison() -> Figure:
    metrics = make_metrics(make_predictions(THREE), THREE)
    runs = {
        f"e{n}": metrics | {"experiment": {"title": title}} for n, title in enumerate(EXPERIMENTS)
    }
    table = compare_experiments(THREE, load_parameters()["dataset"], None, **runs)
    return plot_model_comparison(table, THREE)


def draw_leakage() -> Figure:
    metrics = ["accuracy", "AUC of malignant", "specificity at 90 % sensitivity"]
    rows = [
        {
            "experiment": f"e{n}",
            "model": model,
            "metric": metric,
            "random": 0.99,
            "grouped": 0.99 - 0.03 * n,
            "inflation": 0.03 * n,
            "inflation_ci_low": 0.01 * n,
            "inflation_ci_high": 0.05 * n,
        }
        for n in range(len(EXPERIMENTS))
        for model in ("fine-tuned", "linear probe")
        for metric in metrics
    ]
    settings = {f"e{n}": make_settings(title) for n, title in enumerate(EXPERIMENTS)}
    return plot_leakage(pd.DataFrame(rows), settings)


def draw_learning_curves() -> Figure:
    keys = [f"{part}{key}" for part in ("", "val_") for key in ("cross_entropy", "accuracy")]
    history = {phase: {key: [3.0, 1.0] for key in keys} for phase in ("head", "fine_tuning")}
    report = {"training": {"best_epoch": {"head": 2, "fine_tuning": 0}}}
    return plot_learning_curves(history, report, SETTINGS)


def spread(**shares: float) -> dict[str, float]:
    """Return each share with an interval around it."""
    return {
        f"{name}{end}": value + by
        for name, value in shares.items()
        for end, by in (("", 0.0), ("_ci_low", -0.1), ("_ci_high", 0.04))
    }


def draw_bias_audit() -> Figure:
    questions = ["fine-tuned, images without annotation", "bounding box of the lesion alone"]
    rows = [
        {"question": question, "images": 780}
        | spread(accuracy=0.8, positive_auc=0.9, lesion_auc=0.8)
        for question in questions * 4
    ]
    return plot_bias_audit(pd.DataFrame(rows), SETTINGS, THREE)


def draw_sites() -> Figure:
    rows = [
        {"title": title, "model": model, "site": site, "learned_from": source}
        | {"images": 1875, "positives": 607}
        | spread(auc=0.32)
        for title in EXPERIMENTS
        for model in ("fine-tuned", "linear-probe")
        for site in ("busi", "bus_bra", "elsewhere")
        for source in ("own site", "other sites")
    ]
    return plot_sites(pd.DataFrame(rows), THREE)


def make_site() -> tuple[pd.DataFrame, dict[str, Any]]:
    predictions = make_predictions(THREE, threshold=0.012)
    metrics = make_external_metrics(predictions, THREE)
    metrics["external"]["model"]["threshold"] = 0.012
    metrics["external"]["reader"] = {
        "sensitivity": 0.9,
        "specificity": 0.5,
        "positive_from_birads": 4,
    }
    return add_positive_score(predictions, THREE).assign(site="elsewhere"), metrics


def draw_site_curves() -> Figure:
    predictions, metrics = make_site()
    return plot_site_curves(predictions, metrics, SETTINGS, EVALUATION, THREE)


def draw_subgroups() -> Figure:
    rows = [
        {"variable": name, "value": "a value of several words", "images": 100}
        | spread(auc=0.9, sensitivity=0.9, specificity=0.4)
        for name in ("device", "burned-in annotations", "lesion size")
    ]
    figure = plot_subgroups(pd.DataFrame(rows), make_site()[1], SETTINGS)
    assert isinstance(figure, Figure)
    return figure


def draw_inside_and_outside() -> Figure:
    rows = [
        {"title": title, "site": site, "inside": inside}
        | spread(auc=0.9, sensitivity=0.9, specificity=0.4)
        for title in EXPERIMENTS
        for site, inside in (("busi", True), ("elsewhere", False))
    ]
    return plot_inside_and_outside(pd.DataFrame(rows), THREE)


@pytest.mark.parametrize(
    "draw",
    [
        draw_pairs,
        draw_comparison,
        draw_leakage,
        draw_learning_curves,
        draw_bias_audit,
        draw_sites,
        draw_site_curves,
        draw_subgroups,
        draw_inside_and_outside,
    ],
)
def test_plots_of_figures(draw: Callable[[], Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_readable(draw(), monkeypatch)


def test_galleries(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = make_predictions(THREE, images=60, skill=0.5)
    picture = np.full((40, 70, 3), 60, np.uint8)
    ids = predictions["image_id"]
    manifest = predictions[["image_id", "split"]].assign(
        path=ids + ".png", height=40, width=70, birads="4A", mask_paths="[]"
    )
    raw = as_raw_images(dict.fromkeys(manifest["path"], encode_image(Image.fromarray(picture))))
    square = np.full((60, 8, 8), 1, np.uint8)
    images = store_array(ids, np.repeat(square[..., None], 3, axis=3))
    masks, maps = store_array(ids, square), store_array(ids, square[:, :2, :2].astype(np.float32))
    at_site = add_positive_score(predictions, THREE).assign(site="elsewhere")
    box = Window(10, 20, 50, 70)._asdict()
    boxes = manifest[["image_id"]].assign(
        **box, **{f"drawn_{k}": v for k, v in box.items()}, iou=0.99, confidence=0.99
    )
    found = manifest[["image_id"]].assign(callipers=True, text=True, colour=False)
    for kind in ("callipers", "text"):
        for key, value in {"left": 3, "top": 4, "width": 9, "height": 5, "score": 0.123}.items():
            found[f"{kind}_{key}"] = value
    pair = {"image_a": ids[0], "image_b": ids[1], "score": 0.97, "same_frame": True}
    pairs = pd.DataFrame([pair | {"label_a": "a", "label_b": "b", "kind": "same frame"}] * 3)
    localization = load_parameters()["localization"]
    shared = SETTINGS, UNCOVERED, THREE
    for figure in (
        plot_misclassified(predictions, raw, manifest, *shared),
        plot_gradcam_gallery(maps, images, masks, predictions, *shared),
        plot_worst_mistakes(raw, manifest, at_site, *shared),
        plot_lesion_boxes(raw, boxes, manifest, manifest, localization, UNCOVERED),
        plot_burned_in_annotations(raw, manifest, found, UNCOVERED),
        plot_duplicate_pairs(raw, manifest, pairs, UNCOVERED),
    ):
        assert_readable(figure, monkeypatch)


def test_small_cut_or_hidden_text_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for at, size in (((0.5, 0.5), 4), ((-0.1, 0.5), 12), ((0.31, 0.5), 12)):
        figure = Figure(figsize=(11, 3))
        figure.text(0.3, 0.5, "one text", fontsize=12, color=PALETTE[0])
        figure.text(*at, "another", fontsize=size)
        with pytest.raises(AssertionError):
            assert_readable(figure, monkeypatch)
