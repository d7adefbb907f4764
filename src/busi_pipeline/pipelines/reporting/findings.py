"""What a picture shows, in one sentence: for those who cannot see it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from busi_pipeline.learning.linear_probe import BOUNDING_BOX, OCCLUDED, VISIBLE
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.paired_tests import INCONCLUSIVE
from busi_pipeline.stats.scoring import format_number, format_share


def say_flag(flag: Mapping[str, Any], classes: Classes) -> str:
    """Return what the flag misses and what it flags for nothing."""
    others = flag["images"] - flag["positives"]
    return (
        f"{flag['missed']} of {flag['positives']} {classes.positive_name} missed, "
        f"{flag['false_alarms']} of {others} {classes.negative_name} flagged"
    )


def say_confusion(test: Mapping[str, Any], classes: Classes) -> str:
    """Return how many images are classified correctly, and how the flag does on them."""
    return (
        f"{test['correct']} of {test['images']} correct. By the flag, "
        f"{say_flag(test['flag'], classes)}."
    )


def say_ranking(test: Mapping[str, Any], classes: Classes) -> str:
    """Return the AUC of the positive classes, and of each class."""
    each = ", ".join(f"{name} {test[name]['auc']:.3f}" for name in classes)
    return (
        f"AUC of {classes.positive_name} against all others "
        f"{format_number(test['positive'], 'auc')}; of each class: {each}."
    )


def say_calibration(test: Mapping[str, Any]) -> str:
    """Return the calibration error before and after calibration."""
    before, after = (test["calibration"][name] for name in ("uncalibrated", "calibrated"))
    return (
        f"Calibration error {format_number(before, 'error')} before calibration, "
        f"{format_number(after, 'error')} after."
    )


def say_decision(test: Mapping[str, Any], point: Mapping[str, Any] | None, classes: Classes) -> str:
    """Return the threshold, where all images have the same, and what it costs."""
    where = f"At the threshold {point['threshold']:.4f}: " if point else "At the threshold: "
    flag = test["flag"]
    return (
        f"{where}{say_flag(flag, classes)}; sensitivity {format_share(flag, 'sensitivity')}, "
        f"specificity {format_share(flag, 'specificity')}."
    )


def say_mistakes(test: Mapping[str, Any]) -> str:
    """Return how many images are misclassified."""
    return f"{test['images'] - test['correct']} of {test['images']} images are misclassified."


def say_gradcam(localization: Mapping[str, Any]) -> str:
    """Return how often the highest point lies in the lesion, and what chance would give."""
    if not localization["images"]:
        return "No test image has a lesion mask to compare with."
    return (
        f"Of {localization['images']} lesions, the highest point lies inside "
        f"{format_share(localization, 'pointing_hit')}; a random point would in "
        f"{format_share(localization, 'lesion_area')}."
    )


def say_boxes(scores: Mapping[str, Any]) -> str:
    """Return how well lesions are found."""
    if not scores["images"]:
        return "No lesion is drawn, so nothing is scored."
    return (
        f"Of {scores['images']} lesions, the centre of the found box lies inside "
        f"{format_share(scores, 'centre_hit')}; overlap of the boxes (IoU) "
        f"{format_number(scores, 'iou')}."
    )


def say_site(scores: Mapping[str, Any], classes: Classes) -> str:
    """Return ranking and flag at an external site."""
    return (
        f"AUC {format_number(scores['images'], 'auc')}; by the flag, "
        f"{say_flag(scores['images']['flag'], classes)}."
    )


def say_sites(models: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Return the AUC of each model inside and at a site."""
    parts = []
    for name, scores in models.items():
        inside = f"{scores['inside']['auc']:.3f} inside, " if "inside" in scores else ""
        parts.append(f"{titles[name]} {inside}{scores['images']['auc']:.3f} there")
    return f"AUC: {'; '.join(parts)}."


def say_left_out(table: pd.DataFrame) -> str:
    """Return the AUC at each site, learned from the others and from the site itself."""
    parts = [
        f"{row['title']}, {row['model']}, at {row['site']}, learned from {row['learned_from']} "
        f"{row['auc']:.3f}"
        for row in table.to_dict("records")
    ]
    return f"AUC: {'; '.join(parts)}."


def say_pairs(pairs: pd.DataFrame | None) -> str:
    """Return how many comparisons are significant."""
    if pairs is None or pairs.empty:
        return ""
    significant = int((pairs["verdict"] != INCONCLUSIVE).sum())
    return f"{significant} of {len(pairs)} comparisons are significant; the others inconclusive."


def say_compared(table: pd.DataFrame | None) -> str:
    """Return the accuracy of every row of the comparison."""
    if table is None:
        return ""
    parts = [
        f"{row['model']} ({row['source']}) {100 * row['accuracy']:.1f} %"
        for row in table.to_dict("records")
    ]
    return f"Accuracy: {'; '.join(parts)}."


def say_leakage(table: pd.DataFrame | None) -> str:
    """Return by how much duplicates raise each metric, from the least to the most."""
    if table is None or "inflation" not in table or table.empty:
        return ""
    low, high = table["inflation"].min(), table["inflation"].max()
    return (
        f"Duplicates in training and test change the metrics by {low:+.3f} to {high:+.3f}, over "
        f"{len(table)} metrics and models."
    )


def say_duplicates(summary: Mapping[str, Any] | None) -> str:
    """Return how many duplicates there are."""
    if summary is None:
        return ""
    counts = summary["duplicates"]
    return (
        f"{counts['images_in_them']} images belong to {counts['groups_with_duplicates']} groups; "
        f"{counts['groups_of_mixed_labels']} groups carry different labels."
    )


def say_audit(audit: pd.DataFrame, classes: Classes) -> str:
    """Return what is left where the lesion is occluded."""
    known = dict(zip(audit["question"], audit["lesion_auc"].astype(float), strict=True))
    visible, occluded, box = (f"{known[name]:.3f}" for name in (VISIBLE, OCCLUDED, BOUNDING_BOX))
    return (
        f"AUC of {classes.positive_name} against other lesions: {visible} with the lesion visible, "
        f"{occluded} with the lesion occluded, {box} from the box alone."
    )
