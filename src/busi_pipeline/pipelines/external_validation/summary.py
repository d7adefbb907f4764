"""An external test in words, and in one table over all models."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from busi_pipeline.config.experiments import gather_experiments
from busi_pipeline.config.schemas import DatasetSettings, ExternalSettings, ModelSettings
from busi_pipeline.plotting.style import DEMO_BANNER
from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import format_number, format_share

_COMPARED = {"auc": (), "sensitivity": ("flag",), "specificity": ("flag",)}


def write_summary(
    metrics: Mapping[str, Any],
    failures: pd.DataFrame,
    settings: ModelSettings,
    dataset: DatasetSettings,
    external: ExternalSettings,
    classes: Classes,
) -> str:
    """Return the external test in words, as Markdown, for someone who reads images."""
    scores = metrics["external"]
    banner = f"**{DEMO_BANNER}.**\n\n" if dataset.synthetic else ""
    paragraphs = [
        _describe_test(scores, settings, classes),
        _describe_flag(scores["images"]["flag"], classes),
        _describe_ranking(scores, classes),
        _describe_calibration(scores["images"]["calibration"], classes),
        _describe_reader(scores.get("reader"), classes),
        _describe_failures(failures, classes),
        _describe_verdict(scores["verdict"], external),
    ]
    title = f"# {settings.title} at {scores['site']}\n\n"
    return banner + title + "\n\n".join(filter(None, paragraphs)) + "\n"


def _describe_test(scores: Mapping[str, Any], settings: ModelSettings, classes: Classes) -> str:
    flag = scores["images"]["flag"]
    patients = ""
    if "patients" in scores:
        of_patients = scores["patients"]["flag"]
        patients = (
            f" of {of_patients['images']} patients, {of_patients['positives']} of whom have a "
            f"{classes.positive_name} image"
        )
    return (
        f"{settings.title} was tested, unchanged, on {flag['images']} images of the site "
        f"{scores['site']}{patients}. It has seen no image of this site before. "
        f"{flag['positives']} images are {classes.positive_name}."
    )


def _describe_flag(flag: Mapping[str, Any], classes: Classes) -> str:
    missed = 100 * (1 - flag["sensitivity"])
    spared = 100 * flag["specificity"]
    return (
        f"**The flag.** The model flags {format_share(flag, 'sensitivity')} of the "
        f"{classes.positive_name} images. Of 100 such images it misses about {missed:.0f}. It "
        f"leaves {format_share(flag, 'specificity')} of the other images unflagged: of 100 such "
        f"images, {spared:.0f} need no second look, and {100 - spared:.0f} are false alarms. "
        "In brackets: 95 % intervals, by patients where they are known."
    )


def _describe_ranking(scores: Mapping[str, Any], classes: Classes) -> str:
    text = (
        f"**The ranking.** Of one {classes.positive_name} and one other image, the model gives the "
        f"{classes.positive_name} one the higher score in "
        f"{100 * scores['images']['auc']:.0f} of 100 pairs (AUC "
        f"{format_number(scores['images'], 'auc')}; 0.5 is chance)."
    )
    if "inside" in scores:
        text += (
            " On its own site, on images of the same classes that it did not learn from, it is "
            f"{format_number(scores['inside'], 'auc')}."
        )
    if "given_lesion" in scores:
        text += (
            " Every image here shows a lesion. With this known, the other classes are left out and "
            f"the model ranks with an AUC of {format_number(scores['given_lesion'], 'auc')}."
        )
    if "reader_box" in scores:
        text += (
            " The model finds the lesion itself. Where it is shown the box that readers drew, the "
            f"AUC is {format_number(scores['reader_box'], 'auc')}."
        )
    return text


def _describe_calibration(calibration: Mapping[str, Any], classes: Classes) -> str:
    ratio = calibration["observed_expected"]
    if _includes_1(calibration, "observed_expected"):
        shown = format_number(calibration, "observed_expected")
        expected = (
            f"about as many {classes.positive_name} images as the model expects (observed over "
            f"expected {shown})"
        )
    elif ratio >= 1:
        expected = f"{ratio:.2f} times as many {classes.positive_name} images as the model expects"
    else:
        expected = f"{1 / ratio:.2f} times fewer {classes.positive_name} images than it expects"
    extreme = "too extreme" if calibration["slope"] < 1 else "not extreme enough"
    if _includes_1(calibration, "slope"):
        extreme = "neither too extreme nor too even, as far as one can tell"
    return (
        f"**The probabilities.** The site has {expected}. The slope of calibration is "
        f"{format_number(calibration, 'slope')} (1 is right): probabilities are {extreme}."
    )


def _includes_1(calibration: Mapping[str, Any], name: str) -> bool:
    return bool(calibration[f"{name}{LOW}"] <= 1 <= calibration[f"{name}{HIGH}"])


def _describe_reader(reader: Mapping[str, Any] | None, classes: Classes) -> str:
    if reader is None:
        return ""
    return (
        f"**Beside readers.** On the {reader['images']} images with a BI-RADS category, category "
        f"{reader['positive_from_birads']} or higher finds {format_share(reader, 'sensitivity')} "
        f"of the {classes.positive_name} images, with a specificity of "
        f"{format_share(reader, 'specificity')}. At the same sensitivity, the model has a "
        f"specificity of {format_share(reader, 'model_specificity')}. The readers had more than "
        "one image, and often the history of the patient."
    )


def _describe_failures(failures: pd.DataFrame, classes: Classes) -> str:
    """Name the characteristics that missed images have more often than found ones."""
    missed = failures[(failures["failure"] == "missed") & (failures["failures"] > 0)]
    missed = missed[missed["ratio"] > 1.2].sort_values("share_of_failures", ascending=False).head(3)
    if missed.empty:
        return ""
    parts = [
        f"{row['characteristic']} ({100 * row['share_of_failures']:.0f} % of the missed, "
        f"{100 * row['share_of_others']:.0f} % of the found)"
        for row in missed.to_dict("records")
    ]
    return (
        f"**What is missed.** More often than found {classes.positive_name} images, missed ones "
        f"have: {'; '.join(parts)}. This shows where to look, not the reason."
    )


def _describe_verdict(verdict: Mapping[str, str], external: ExternalSettings) -> str:
    criteria = {
        "ranking": f"lower bound of the AUC at least {external.min_auc:g}",
        "finding": f"lower bound of the sensitivity at least {100 * external.min_sensitivity:g} %",
        "cost": f"specificity at least {100 * external.min_specificity:g} %",
        "calibration": f"slope and observed over expected within a factor of "
        f"{external.max_miscalibration:g}",
    }
    lines = [f"- {text}: {verdict[name]}" for name, text in criteria.items()]
    conclusion = (
        "the model travels to this site"
        if verdict["travels"] == "yes"
        else "the model does not travel to this site; do not use it there as it is"
    )
    return f"**By the criteria set before, {conclusion}.**\n\n" + "\n".join(lines)


def compare_sites(**of_experiments: Any) -> pd.DataFrame:
    """Return inside and outside of all experiments in one table.

    Args:
        of_experiments: `settings` and `metrics` of each, see config.experiments.name_item.

    Returns two rows an experiment: `experiment`, `title`, `site`, `inside`, `images`, `positives`,
    `auc`, `sensitivity`, `specificity` with their intervals, `travels`.
    """
    rows = []
    for name, items in gather_experiments(of_experiments).items():
        scores = items["metrics"]["external"]
        for inside, part in ((True, scores.get("inside")), (False, scores["images"])):
            if part is None:
                continue
            row = {
                "experiment": name,
                "title": items["settings"].title,
                "site": "inside" if inside else scores["site"],
                "inside": inside,
                "images": part["flag"]["images"],
                "positives": part["flag"]["positives"],
            }
            for metric, path in _COMPARED.items():
                of_metric = part[path[0]] if path else part
                row |= {metric + end: of_metric[metric + end] for end in ("", LOW, HIGH)}
            row["travels"] = "" if inside else scores["verdict"]["travels"]
            rows.append(row)
    return pd.DataFrame(rows).round(4)
