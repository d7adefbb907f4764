"""A report and model cards of made-up results, for tests of what they say and how they look."""

import json
from typing import Any

import pandas as pd
from PIL import Image

from busi_pipeline.config.experiments import ENSEMBLE, name_item
from busi_pipeline.config.schemas import DatasetSettings, EnsembleSettings, ModelSettings
from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED, VISIBLE
from busi_pipeline.pipelines.model_comparison.nodes import compare_experiments
from busi_pipeline.pipelines.reporting.evidence import DELIVERED, PLOTS
from busi_pipeline.pipelines.reporting.nodes import (
    describe_training,
    write_model_card,
    write_report,
)
from busi_pipeline.pipelines.reporting.pipeline import COMMON, OF_CROSS_VALIDATION, OF_EXPERIMENT
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import compare_predictions
from tests.evaluation_factories import (
    EVALUATION,
    THREE,
    TWO,
    make_external_metrics,
    make_metrics,
    make_predictions,
)
from tests.factories import encode_image, make_settings

# As wide as a page: 11 inches at 130 dots an inch.
PICTURE = encode_image(Image.new("RGB", (1430, 260)), dpi=(130, 130))
RUN = {
    "date": "2026-12-02 09:00 UTC",
    "git_commit": "c0ffee" + 34 * "0",
    "environment": "demo",
    "params": ["training.weights=none"],
}
FACT, LIMITATION = "Collected in Cairo.", "One hospital alone."
# What every report of the tests is of: one experiment of the default, one beside it, two together.
TITLES = {"resnet50": "ResNet <50>", "other": "Another"}
_PICTURES = (
    "duplicate_pairs_plot",
    "burned_in_annotations_plot",
    "comparison_plot",
    "cross_validation_comparisons_plot",
    "leakage_plot",
    "lesion_boxes_plot",
    "leave_one_site_out_plot",
)


def describe_dataset(classes: Classes, **changes: Any) -> DatasetSettings:
    """Return facts of a set with ten images of each class."""
    values: dict[str, Any] = {
        "name": "BUSI",
        "citation": "Al-Dhabyani 2020",
        "facts": (FACT,),
        "limitations": (LIMITATION,),
        "images": dict.fromkeys(classes, 10),
    }
    return DatasetSettings(**values | changes)


def summarise_data(classes: Classes, of_each: int = 10) -> dict[str, Any]:
    """Return the summary of a set with so many images of each class."""
    counts = dict.fromkeys(classes, of_each) | {"all": of_each * len(classes)}
    return {"images": counts, "masks": 7, "colour_overlays": 2, "quarantined": 3}


def summarise_split(classes: Classes) -> dict[str, Any]:
    """Return the summary of a hold-out split."""
    part = {"all": 10 * len(classes)} | dict.fromkeys(classes, 10)
    parts = dict.fromkeys(("train", "validation", "test"), part)
    more = {"excluded": {"all": 19}, "test_images_with_duplicate_in_train": 0}
    return {"split": parts | more}


def summarise_duplicates() -> dict[str, Any]:
    """Return the summary of a search for duplicates."""
    counts = {
        "groups": 590,
        "groups_with_duplicates": 153,
        "images_in_them": 343,
        "largest_group": 5,
        "groups_of_mixed_labels": 8,
        "images_of_mixed_labels": 19,
    }
    return {"duplicates": counts}


def write_page(
    classes: Classes = THREE, dataset: DatasetSettings | None = None, **found: Any
) -> str:
    """Write the report of a project in which nothing was run but `found`."""
    arguments: dict[str, Any] = dict.fromkeys(COMMON)
    of_all = ((name, OF_EXPERIMENT) for name in TITLES)
    for experiment, items in (*of_all, (ENSEMBLE, OF_CROSS_VALIDATION)):
        arguments |= {name_item(experiment, item): None for item in items}
    arguments["other__external_results"] = {}
    return write_report(
        classes,
        dataset or describe_dataset(classes),
        EVALUATION,
        {
            "resnet50": make_settings(TITLES["resnet50"], training={"weights": "imagenet"}),
            "other": make_settings(TITLES["other"], in_default=False),
        },
        EnsembleSettings(title="All together"),
        **arguments | found,
    )


def evaluate(
    classes: Classes, skill: float = 2.0, folds: int = 5, **depends_on: str
) -> dict[str, Any]:
    """Return the metrics of a classifier of this skill, of so many folds; one is a hold-out."""
    predictions = make_predictions(classes, skill=skill, folds=folds)
    metrics = make_metrics(predictions, classes)
    return metrics | {"depends_on": metrics["depends_on"] | depends_on}


def draw_delivered() -> dict[str, bytes]:
    """Return the plots of a delivered model, by item."""
    return {f"{DELIVERED}{name}_plot": PICTURE for name in PLOTS}


def make_audit(visible: float, occluded: float, box: float = 0.849) -> pd.DataFrame:
    """Return what a linear probe knows with the lesion visible, occluded, and of its box alone."""
    rows = {VISIBLE: visible, OCCLUDED: occluded, BOUNDING_BOX: box}
    names = ("lesion_auc", "lesion_auc" + LOW, "lesion_auc" + HIGH)
    return pd.DataFrame([{"question": q} | dict.fromkeys(names, v) for q, v in rows.items()])


def make_left_out(title: str) -> pd.DataFrame:
    """Return the scores of two sites, each left out."""
    measured = [
        name + end
        for name in ("auc", "specificity_at_90_sensitivity", "sensitivity", "specificity")
        for end in ("", LOW, HIGH)
    ]
    rows = [
        {"title": title, "model": "fine-tuned", "site": site, "learned_from": source}
        | {"images": 60, "positives": 20}
        | dict.fromkeys(measured, auc)
        for site in ("cairo", "rio")
        for source, auc in (("other sites", 0.812), ("own site", 0.934))
    ]
    return pd.DataFrame(rows)


def score_boxes_as(hit: float, images: int = 40) -> dict[str, Any]:
    """Return the scores of a localizer."""
    shares = ("centre_hit", "iou", "dice", "lesions_missed", "false_lesions")
    scores = {name + end: hit for name in shares for end in ("", LOW, HIGH)}
    return {"images": images, "images_without": 3, **scores}


def score_site_with_boxes(training: str = "t") -> dict[str, Any]:
    """Return the metrics of an external validation with and without the boxes of readers."""
    metrics = make_external_metrics(make_predictions(TWO, skill=0.7), TWO, training=training)
    better = make_external_metrics(make_predictions(TWO, skill=2.5), TWO, training=training)
    metrics["external"]["given_lesion"] = metrics["external"]["images"]
    metrics["external"]["reader_box"] = better["external"]["images"]
    return metrics


def make_everything(classes: Classes = THREE) -> dict[str, Any]:
    """Return all that a report can hold: an experiment that was cross-validated, and one beside
    the default, with lesions and an external site, that was not."""
    predictions = {name: make_predictions(classes, seed=n) for n, name in enumerate(TITLES)}
    measured = ("pointing_hit", "lesion_area", "gradcam_inside")
    of_gradcam = {name + end: 0.4 for name in measured for end in ("", LOW, HIGH)}
    validated, delivered = evaluate(classes), evaluate(classes, folds=1, training_sha256="t")
    leakage = pd.DataFrame({"experiment": list(TITLES), "model": "fine-tuned", "metric": "AUC"})
    leakage = leakage.assign(random=0.95, grouped=0.91, inflation=0.04, p_corrected=0.01)
    found: dict[str, Any] = {
        "run_provenance": RUN,
        "data_summary": summarise_data(classes),
        "data_tags": {"data_sha256": 8 * "0123abcd"},
        "duplicate_summary": summarise_duplicates(),
        "split_summary": summarise_split(classes),
        "comparison_table": compare_experiments(
            classes, describe_dataset(classes), summarise_data(classes), resnet50=validated
        ),
        "cross_validation_comparisons": compare_predictions(classes, EVALUATION, **predictions),
        "leakage_table": leakage,
        "external_comparison_plots": {"elsewhere": PICTURE},
        "localizer_metrics": {"localizer": {"test": score_boxes_as(0.85)}},
        "leave_one_site_out_table": make_left_out(TITLES["other"]),
        **dict.fromkeys(_PICTURES, PICTURE),
    }
    of_resnet = {
        "cross_validation_metrics": validated,
        "operating_point": {"operating_point": {"threshold": 0.0123}},
        "linear_probe_metrics": {"linear_probe": validated["test"]},
        "bias_audit": make_audit(0.93, 0.887),
        "bias_audit_plot": PICTURE,
        **{f"{name}_plot": PICTURE for name in PLOTS},
    }
    of_other = {
        "metrics": delivered,
        "training_card": make_training_card(classes),
        "localization_metrics": {"localization": {"images": 30, **of_gradcam}},
        "gradcam_gallery_plot": PICTURE,
        "misclassified_plot": PICTURE,
        "external_results": {"elsewhere": score_site_with_boxes()},
        "external_curves": {"elsewhere": PICTURE},
        "external_subgroups": {"elsewhere": PICTURE},
        "external_mistakes": {"elsewhere": PICTURE},
        "external_localizer": {"elsewhere": {"localizer": {"external": score_boxes_as(0.6)}}},
        "leave_one_site_out": make_left_out(TITLES["other"]),
        **draw_delivered(),
    }
    for name, items in (("resnet50", of_resnet), ("other", of_other)):
        found |= {name_item(name, item): value for item, value in items.items()}
    return found


def make_training_card(
    classes: Classes = THREE,
    best_epoch: dict[str, int] | None = None,
    dataset: DatasetSettings | None = None,
    weights: str = "imagenet",
    settings: ModelSettings | None = None,
    expected_sensitivity: float = 30 / 31,
    **training: Any,
) -> dict[str, Any]:
    """Return what lies beside a model; by default one that fine-tuning made better.

    Args:
        classes: in the order of the probabilities.
        best_epoch: {phase: epoch, 0 where it was rolled back}.
        dataset: facts.
        weights: what training started from.
        settings: of the experiment.
        expected_sensitivity: of the flag.
        training: settings of `training` that differ.
    """
    metrics = make_metrics(make_predictions(classes), classes)
    metrics["depends_on"] = metrics["depends_on"] | {"weights": weights, "training_sha256": "t"}
    own = {"average_with_pretuned": True, "tta_horizontal_flip": True} | training
    described = describe_training(
        settings or make_settings(training=own),
        {"training": {"best_epoch": best_epoch or {"head": 1, "fine_tuning": 7}, "folds": 5}},
        metrics,
        {
            "operating_point": {
                "threshold": 0.0731,
                "temperature": 0.9,
                "offsets": [-0.2] * len(classes),
                "target_sensitivity": 0.95,
                "threshold_rule": "conformal",
                "expected_sensitivity": expected_sensitivity,
            }
        },
        summarise_data(classes),
        summarise_split(classes),
        RUN,
        EVALUATION,
        dataset or describe_dataset(classes),
        classes,
    )
    return json.loads(json.dumps(described))  # as it is read again where the model is used


def write_card(
    classes: Classes = THREE,
    external: dict[str, Any] | None = None,
    newest: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Return the card of the model of `make_training_card`."""
    return write_model_card(make_training_card(classes, **changes), external or {}, newest)
