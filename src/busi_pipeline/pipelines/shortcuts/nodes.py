"""Audit: metrics without marked images, and what is known of an image whose lesion is hidden."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from busi_pipeline.arrays import StoredArray
from busi_pipeline.datasets.computed_table import TableOnDemand
from busi_pipeline.figures import PALETTE, new_figure, new_picture_grid, show_picture
from busi_pipeline.fingerprints import describe_code, hash_values
from busi_pipeline.images import decode_image
from busi_pipeline.intervals import HIGH, LOW, add_intervals
from busi_pipeline.judging import CANCER, select_test
from busi_pipeline.pipelines.cross_validation.folds import list_folds, select_fold
from busi_pipeline.progress import track

from .hiding import find_box

logger = logging.getLogger(__name__)

MARKS = ("callipers", "text", "colour")
BENIGN = "benign"
_SCORED = ("accuracy", "malignant_auc", "lesion_auc")
_SHOWN = 12
_FEWEST = 10


def find_marks(
    raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame
) -> TableOnDemand:
    """Find the images that carry callipers, text or colour.

    The table's columns: `image_id`, `label`, one bool for each of MARKS, and for callipers and text
    the mark found: `<mark>_left`, `_top`, `_width`, `_height` (pixels) and `_score`, or nothing.
    """

    def compute() -> pd.DataFrame:
        from .marks import Mark, find_cross, find_text

        rows = []
        for image in track(manifest.to_dict("records"), "marks", "image"):
            grey = decode_image(raw_images[image["path"]]()).pixels.max(axis=2)
            row = {"image_id": image["image_id"], "label": image["label"]}
            row["colour"] = bool(image["colour_overlay"])
            for name, find in (("callipers", find_cross), ("text", find_text)):
                mark = find(grey)
                row[name] = mark is not None
                row |= {f"{name}_{key}": getattr(mark, key, None) for key in Mark._fields}
            rows.append(row)
        return pd.DataFrame(rows)

    return TableOnDemand(
        {
            "images": hash_values(manifest[["image_id", "label", "byte_sha256"]].values.tolist()),
            **describe_code(
                f"{__package__}.marks",
                "busi_pipeline.images",
                libraries=("opencv-python-headless", "pillow", "numpy"),
            ),
        },
        compute,
    )


def draw_marks(
    raw_images: Mapping[str, Callable[[], bytes]], manifest: pd.DataFrame, image_marks: pd.DataFrame
) -> Figure:
    """Show the least certain callipers and the shortest texts: where the detector may err."""
    path_of = manifest.set_index("image_id")["path"]
    names = [name for name in MARKS if f"{name}_score" in image_marks]  # colour has no place
    figure, axes = new_picture_grid(
        (len(names), _SHOWN),
        (1.6, 2.1),
        "Marks found: "
        + ", ".join(
            f"{name} on {image_marks[name].sum()} of {len(image_marks)} images" for name in MARKS
        )
        + "; the least certain of each",
    )
    for line, name in zip(axes, names, strict=True):
        least = image_marks[image_marks[name]].sort_values(f"{name}_score").head(_SHOWN)
        for axis, row in zip(line, least.to_dict("records"), strict=False):
            pixels = decode_image(raw_images[path_of[row["image_id"]]]()).pixels
            left, top, width, height = (
                int(row[f"{name}_{key}"]) for key in ("left", "top", "width", "height")
            )
            side = max(width, height) + 16
            top, left = max(0, top + height // 2 - side // 2), max(0, left + width // 2 - side // 2)
            cut = pixels[top : top + side, left : left + side]
            score = row[f"{name}_score"]
            show_picture(axis, cut, f"{row['image_id'].rsplit('/', 1)[-1]}\n{score:.3g}")
        line[0].text(-0.1, 0.5, name, rotation=90, ha="right", va="center", fontsize=11)
        line[0].texts[-1].set_transform(line[0].transAxes)
    return figure


def judge_by_box(
    masks: StoredArray, fold_manifest: pd.DataFrame, cross_validation: Mapping[str, Any]
) -> pd.DataFrame:
    """Judge benign against malignant by the size and place of the hidden box alone.

    What of a hidden lesion's malignancy is told by where the box lies. Logistic regression on the
    logarithms of height and width and on the centre, on the folds of the cross-validation.

    Returns `repeat`, `image_id`, `group`, `label`, `score` of the out-of-fold images.
    """
    tables = []
    for fold in list_folds(fold_manifest):
        split = select_fold(fold_manifest, fold, cross_validation)
        lesions = split[split["label"].isin([BENIGN, CANCER])].reset_index(drop=True)
        found = [find_box(m) for m in masks.values[masks.find_rows(lesions["image_id"])]]
        kept = np.array([box is not None for box in found])
        lesions = lesions[kept]
        top, bottom, left, right = np.array([box for box in found if box], dtype=float).T
        shape = np.stack(
            [np.log(bottom - top), np.log(right - left), top + bottom, left + right], axis=1
        )
        is_test = (lesions["split"] == "test").to_numpy()
        is_cancer = (lesions["label"] == CANCER).to_numpy()
        judge = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        judge.fit(shape[~is_test], is_cancer[~is_test])
        table = lesions.loc[is_test, ["image_id", "group", "label"]]
        scores = judge.predict_proba(shape[is_test])[:, 1]
        tables.append(table.assign(repeat=fold.repeat, score=scores))
    return pd.concat(tables, ignore_index=True)


def audit_shortcuts(
    predictions: pd.DataFrame,
    probe_predictions: pd.DataFrame,
    hidden_probe_predictions: pd.DataFrame,
    box_scores: pd.DataFrame,
    image_marks: pd.DataFrame,
    judging: Mapping[str, Any],
) -> pd.DataFrame:
    """Score out-of-fold predictions with and without marked images, and with hidden lesions.

    Args:
        predictions: of the fine-tuned networks, out of fold.
        probe_predictions, hidden_probe_predictions: of logistic regression on the frozen base,
            which has seen the images as they are, or with every lesion hidden throughout.
        box_scores: see `judge_by_box`.
        image_marks: see `find_marks`.
        judging: `draws` and `seed` of the bootstrap over groups.

    Returns one row a question: `question`, `images` (each counted once), and `accuracy`,
    `malignant_auc`, `lesion_auc` (malignant against benign alone), each with its interval; empty
    where it was not asked, or fewer than ten images, or one class, are there to answer it.
    """
    marks = image_marks.set_index("image_id")[list(MARKS)].astype(bool)
    test = select_test(predictions)
    marked = marks.any(axis=1)
    asked: list[tuple[str, pd.DataFrame]] = [
        ("fine-tuned, all images", test),
        ("fine-tuned, images without any mark", _select(test, ~marked)),
        ("fine-tuned, images with a mark", _select(test, marked)),
        *((f"fine-tuned, images with {name}", _select(test, marks[name])) for name in MARKS),
        ("frozen probe, lesion visible", select_test(probe_predictions)),
        ("frozen probe, lesion hidden", select_test(hidden_probe_predictions)),
    ]
    rows = [{"question": question} | _score(table, judging) for question, table in asked]
    rows.append({"question": "size and place of the box alone"} | _score(box_scores, judging))
    table = pd.DataFrame(rows)
    for row in table.to_dict("records"):
        logger.info(
            "%s (%d images): accuracy %.3f, malignant against benign: AUC %.3f",
            *(row[name] for name in ("question", "images", "accuracy", "lesion_auc")),
        )
    return table


def _select(table: pd.DataFrame, wanted: pd.Series) -> pd.DataFrame:
    return table[table["image_id"].map(wanted).to_numpy(bool)]


def _score(table: pd.DataFrame, judging: Mapping[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = {"images": table["image_id"].nunique()}
    scores |= dict.fromkeys(
        (name + end for name in _SCORED for end in ("", LOW, HIGH)), float("nan")
    )
    if scores["images"] < _FEWEST:
        return scores
    measure = _prepare_measure(table)
    everything = measure(np.arange(len(table)))
    known = {name: value for name, value in everything.items() if not np.isnan(value)}
    groups = table["group"].tolist()
    return scores | add_intervals(known, measure, groups, judging["draws"], judging["seed"])


def _prepare_measure(table: pd.DataFrame) -> Callable[[np.ndarray], dict[str, float]]:
    """Return what scores rows of the table; what cannot be had of them is nan."""
    is_cancer = (table["label"] == CANCER).to_numpy()
    has_lesion = table["label"].isin([BENIGN, CANCER]).to_numpy()
    if "correct" not in table:
        lesion_score = table["score"].to_numpy()
        return lambda rows: {"lesion_auc": _rank(is_cancer, lesion_score, rows[has_lesion[rows]])}
    correct = table["correct"].to_numpy(float)
    cancer, benign = (table[f"p_{name}"].to_numpy() for name in (CANCER, BENIGN))
    share = cancer / (cancer + benign)
    return lambda rows: {
        "accuracy": float(correct[rows].mean()),
        "malignant_auc": _rank(is_cancer, cancer, rows),
        "lesion_auc": _rank(is_cancer, share, rows[has_lesion[rows]]),
    }


def _rank(is_cancer: np.ndarray, score: np.ndarray, rows: np.ndarray) -> float:
    """Return the AUC on these rows; nan where they are all of one class."""
    if is_cancer[rows].all() or not is_cancer[rows].any():
        return float("nan")
    return float(roc_auc_score(is_cancer[rows], score[rows]))


def draw_audit(shortcut_audit: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Draw the audit: accuracy and the two AUCs of every question with their intervals."""
    table = shortcut_audit
    panels = {
        "accuracy": "accuracy (%)",
        "malignant_auc": f"AUC of {CANCER} against the rest",
        "lesion_auc": f"AUC of {CANCER} against {BENIGN}",
    }
    figure = new_figure(
        15,
        0.42 * len(table) + 1.7,
        f"{settings['title']}: does it live on marks, or on what surrounds the lesion? "
        "Out-of-fold, 95 % intervals",
    )
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        unit = 100 if name == "accuracy" else 1
        values, low, high = (table[name + end].to_numpy(float) * unit for end in ("", LOW, HIGH))
        places = np.arange(len(table))
        colours = [
            PALETTE[1] if "hidden" in q or "box" in q else PALETTE[0] for q in table["question"]
        ]
        axis.hlines(places, low, high, colors=colours, linewidth=2)
        axis.scatter(values, places, c=colours, zorder=2)
        if unit == 1:
            axis.axvline(0.5, color="grey", linestyle=":")
        axis.set(xlabel=label)
        axis.grid(axis="x", alpha=0.3)
        labels = [f"{row.question} ({row.images})" for row in table.itertuples()]
        axis.set_yticks(places, labels)
    axes[0].invert_yaxis()
    return figure
