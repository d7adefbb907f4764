"""One table over the latest run of each experiment, published results beside them."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from busi_pipeline.config.schemas import DatasetSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes

logger = logging.getLogger(__name__)

OURS, REPLICATION, PUBLISHED = "this project", "published recipe, run here", "published"
SOURCES = (PUBLISHED, REPLICATION, OURS)


def compare_experiments(
    classes: Classes,
    dataset: DatasetSettings,
    data_summary: Mapping[str, Any] | None,
    **metrics: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """Put every experiment's latest test metrics in one table, published results beside them.

    Args:
        classes: of which the positive ones are summarised.
        dataset: its name stands beside the own results where it describes the images.
        data_summary: `images`, the number of each class. A published result is in the table only
            where its data set has the very same numbers: on other images it means nothing.
        metrics: {experiment: its hold-out metrics, or None where it was not run yet}.

    Returns one row a result: `model` (what is compared), `source`, `experiment`, `data` (data set
    and number of images; empty where not known), `note` (in what a published result differs);
    `accuracy` with
    the counts `correct` and `images`; `positive_sensitivity` with `positive_found` and
    `positive_images`, and `positive_specificity`, both by the likeliest class; `macro_f1`,
    `positive_auc`, `loss`, `loss_smoothed` (as the published work gives it); each with its interval
    in `<name>_ci_low` and `<name>_ci_high`; `seconds` of training, `split` (first digits of the
    split's hash: only rows with the same one compare), `split_method`, `weights`.
    What the published work does not give is empty. Raises BadInputError where none was run, or one
    by an earlier version.
    """
    runs = {name: record for name, record in metrics.items() if record is not None}
    if not runs:
        raise BadInputError(
            "nothing to compare: no experiment was run yet. Run one, for example "
            f"`kedro run --pipeline=train_{next(iter(metrics))}`."
        )
    for name in (name for name in metrics if name not in runs):
        logger.warning("%s was not run yet: `kedro run --pipeline=train_%s`", name, name)
    counts = dict(data_summary["images"]) if data_summary is not None else {}
    data = _describe_data(dataset, counts)
    rows: list[dict[str, Any]] = []
    left_out: set[str] = set()
    for name, record in runs.items():
        rows.append(_describe_run(name, record, runs) | {"data": data})
        published = record["experiment"].get("published")
        if published and _is_of(published, counts):
            rows.append(_describe_published(record["experiment"], record["depends_on"]))
        elif published:
            left_out.add(published.get("dataset", "other images"))
    if left_out:
        logger.info(
            "published results are left out: they are of %s, and these are other images",
            ", ".join(sorted(left_out)),
        )
    table = pd.DataFrame(rows)
    splits = sorted(table["split"].dropna().unique())
    if len(splits) > 1:
        logger.warning("experiments ran on different splits (%s): compare with care", splits)
    order = {model: i for i, model in enumerate(dict.fromkeys(table["model"]))}
    keys = pd.DataFrame(
        {"model": table["model"].map(order), "source": table["source"].map(SOURCES.index)}
    )
    return table.loc[keys.sort_values(["model", "source"]).index].reset_index(drop=True)


def _describe_run(
    name: str, record: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    experiment, test, depends_on = record["experiment"], record["test"], record["depends_on"]
    if "positive" not in test or "accuracy" + LOW not in test:
        raise BadInputError(
            f"{name} was evaluated by an earlier version, which measured less: run it again "
            f"(`kedro run --pipeline=train_{name}`), or delete its metrics.json."
        )
    baseline_of = experiment.get("baseline_of")
    compared = runs[baseline_of]["experiment"] if baseline_of in runs else experiment
    positive = test["positive"]
    measured = {
        "accuracy": (test, "accuracy"),
        "positive_sensitivity": (positive, "sensitivity"),
        "positive_specificity": (positive, "specificity"),
        "macro_f1": (test, "macro_f1"),
        "positive_auc": (positive, "auc"),
        "loss": (test, "loss"),
        "loss_smoothed": (test, "loss_smoothed"),
    }
    return {
        "model": compared["title"],
        "source": REPLICATION if baseline_of else OURS,
        "experiment": name,
        "correct": test["correct"],
        "images": test["images"],
        "positive_found": positive["found"],
        "positive_images": positive["images"],
        **{
            column + end: scores[metric + end]
            for column, (scores, metric) in measured.items()
            for end in ("", LOW, HIGH)
        },
        "seconds": record["training_seconds"],
        "split": depends_on["split_sha256"][:12],
        "split_method": depends_on["split_method"],
        "weights": depends_on["weights"],
    }


def _describe_data(dataset: DatasetSettings, counts: Mapping[str, int]) -> str:
    """Return name and number of the images at hand, as far as they are known."""
    if not counts:
        return ""
    name = f"{dataset.name}, " if dataset.describes(counts) else ""
    return f"{name}{counts['all']} images"


def _is_of(published: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    """Whether a published result is of these images: the same classes, as many of each."""
    # One of an earlier version does not say what it is of.
    return published.get("images") == {n: count for n, count in counts.items() if n != "all"}


def _describe_published(
    experiment: Mapping[str, Any], depends_on: Mapping[str, Any]
) -> dict[str, Any]:
    published = experiment["published"]
    method, own = published["split_method"], depends_on["split_method"]
    note = ""
    if method != own:
        effect = "Duplicates" if method == "random" else "No duplicates"
        note = (
            f"The published results are of {published['dataset']} with a {method} split, those of "
            f"this project of a {own} one. {effect} of training images are among the published "
            "test images, so the figures do not compare as they stand."
        )
    return {
        "model": experiment["title"],
        "source": PUBLISHED,
        "experiment": published["source"],
        "accuracy": published["accuracy"],
        "positive_sensitivity": published["positive_sensitivity"],
        "loss_smoothed": published["loss"],
        "seconds": published["seconds"],
        "split_method": method,
        "data": f"{published['dataset']}, {sum(published['images'].values())} images",
        "note": note,
    }
