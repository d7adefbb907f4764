"""What a model must have before it is used."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.config.schemas import EvaluationSettings, PackagingSettings, PromotionSettings
from busi_pipeline.models.exporting import SINGLE, list_export_problems
from busi_pipeline.models.ledger import CHAMPION
from busi_pipeline.models.packaged import CARD_FILE, PackagedModel
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import AUC, compare_predictions, name_metric
from busi_pipeline.stats.paired_tests import WORSE
from busi_pipeline.stats.scoring import score_predictions

_SENSITIVITY_OF_FLAG = "sensitivity of the flag"


class Evidence(NamedTuple):
    """What is known of a packaged model.

    Attributes:
        package: the model.
        tested: its predictions on images that it did not learn from; see package_parts.
        export_comparison: of its networks with Keras.
        external_metrics: of the delivered model at the external site; None where there are none.
        champion_tested: `tested` of the champion; None where there is no other.
        champion_problem: why the champion cannot be compared with, or "".
    """

    package: PackagedModel
    tested: pd.DataFrame
    export_comparison: pd.DataFrame
    external_metrics: Mapping[str, Any] | None
    champion_tested: pd.DataFrame | None
    champion_problem: str = ""


class _Line(NamedTuple):
    """One line of the gate; `limit` is None where nothing is asked."""

    value: float
    limit: float | None
    passed: bool
    finding: str


def list_gate(
    evidence: Evidence,
    promotion: PromotionSettings,
    packaging: PackagingSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> list[dict[str, Any]]:
    """Return a row a line of the gate.

    `line`, one of config.schemas.GateLine; `asked`, whether the role needs it; `passed`; `value`
    and `limit`, numbers where it has them, else nan; `finding`, a sentence.
    """
    scores = score_predictions(evidence.tested, classes, evaluation)
    lines = {
        "card": _check_card(evidence.package),
        "export": _check_export(evidence.export_comparison, packaging),
        "duplicates": _check_duplicates(evidence),
        "sensitivity": _at_least(
            f"the flag's sensitivity ({_count(scores, 'positives')})",
            scores["flag"]["sensitivity_ci_low"],
            promotion.min_sensitivity,
            "lower end of the interval",
        ),
        "specificity": _at_least(
            "the flag's specificity",
            scores["flag"]["specificity_ci_low"],
            promotion.min_specificity,
            "lower end of the interval",
        ),
        "external_auc": _check_external(
            evidence.package, evidence.external_metrics, promotion.min_external_auc
        ),
        "calibration": _at_most(
            "the calibration error on test images",
            scores["calibration"]["calibrated"]["error"],
            promotion.max_calibration_error,
        ),
        "champion": _compare_with_champion(evidence, promotion, evaluation, classes),
    }
    needed = set(lines) if promotion.role == CHAMPION else set(promotion.challenger_needs)
    return [
        {
            "line": name,
            "asked": name in needed and line.limit is not None,
            "passed": line.passed,
            "value": line.value,
            "limit": math.nan if line.limit is None else line.limit,
            "finding": line.finding,
        }
        for name, line in lines.items()
    ]


def _count(scores: Mapping[str, Any], what: str) -> str:
    return f"{scores['flag'][what]} {what} among {scores['flag']['images']} test images"


def _at_least(what: str, value: float, limit: float | None, of: str) -> _Line:
    if limit is None:
        return _Line(value, None, True, f"{what} is {value:.3f} ({of})")
    short = "" if value >= limit else f", {limit - value:.3f} below"
    return _Line(
        value, limit, value >= limit, f"{what} is {value:.3f} ({of}), asked are {limit:g}{short}"
    )


def _at_most(what: str, value: float, limit: float | None) -> _Line:
    if limit is None:
        return _Line(value, None, True, f"{what} is {value:.3f}")
    over = "" if value <= limit else f", {value - limit:.3f} above"
    return _Line(
        value, limit, value <= limit, f"{what} is {value:.3f}, allowed are {limit:g}{over}"
    )


def _check_card(package: PackagedModel) -> _Line:
    path = package.folder / CARD_FILE
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    there = bool(card.strip())
    return _Line(float(there), 1.0, there, f"the model card has {len(card.split())} words")


def _check_export(comparison: pd.DataFrame, packaging: PackagingSettings) -> _Line:
    problems = list_export_problems(comparison, packaging)
    single = comparison[comparison["network"] == SINGLE]
    difference = float(single["largest_difference"].iloc[0])
    return _Line(
        difference,
        packaging.largest_difference,
        not problems,
        "the exported network is not the delivered one: " + "; ".join(problems)
        if problems
        else f"the exported network differs from Keras by {difference:.1e}",
    )


def _check_duplicates(evidence: Evidence) -> _Line:
    """No test image may be a copy of one that was learned from."""
    tested = evidence.tested
    if evidence.package.description.get("of_folds"):
        # Every image is learned from, in the folds that do not test it.
        by = (tested.groupby(["repeat", name])["fold"] for name in ("group", "pixel_sha256"))
        shared = max(int((own.nunique() > 1).sum()) for own in by)
    else:
        learned = set(evidence.package.learned_groups)
        copied = tested["pixel_sha256"].isin(list(evidence.package.training_pixels))
        shared = int((tested["group"].isin(list(learned)) | copied).sum())
    return _Line(
        shared,
        0.0,
        shared == 0,
        f"{shared} test images (or groups of them) have a copy among the images learned from",
    )


def _check_external(
    package: PackagedModel, metrics: Mapping[str, Any] | None, limit: float | None
) -> _Line:
    if metrics is None:
        return _Line(
            math.nan,
            limit,
            limit is None,
            "there is no test at external.site: `kedro run "
            f"--pipeline=validate_external_{package.name} --params external.site=...` makes one, "
            "and the promotion needs the same external.site",
        )
    scores = metrics["external"]
    if scores["model"].get("model_sha256") != package.description.get("model_sha256"):
        return _Line(
            math.nan,
            limit,
            limit is None,
            f"the test at {scores['site']} is of another model: `kedro run "
            f"--pipeline=validate_external_{package.name} --params external.site={scores['site']}` "
            "tests this one",
        )
    return _at_least(f"AUC at {scores['site']}", scores["images"]["auc"], limit, "all images")


def _compare_with_champion(
    evidence: Evidence,
    promotion: PromotionSettings,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> _Line:
    limit = 0.0 if promotion.not_worse_than_champion else None
    if evidence.champion_problem:
        return _Line(math.nan, limit, limit is None, evidence.champion_problem.rstrip("."))
    if evidence.champion_tested is None:
        return _Line(math.nan, limit, True, "there is no other champion to compare with")
    tested, of_champion, on_shared = _pair(evidence.tested, evidence.champion_tested)
    positives = int(classes.is_positive(tested["label"]).sum())
    if not 0 < positives < len(tested):
        return _Line(
            math.nan,
            limit,
            limit is None,
            f"the champion was tested on {len(tested)} of the same images, {positives} of them "
            f"{classes.positive_name}, so the two cannot be compared: train both on one split, or "
            "set promotion.not_worse_than_champion: false",
        )
    table = compare_predictions(classes, evaluation, new=tested, champion=of_champion)
    looked_at = [name_metric(AUC, classes), _SENSITIVITY_OF_FLAG]
    rows = table.set_index("metric").loc[looked_at]
    worse = rows[rows["verdict"] == WORSE]
    findings = [
        f"{metric} {row['difference']:+.3f} ({row['difference_ci_low']:+.3f} to "
        f"{row['difference_ci_high']:+.3f})"
        for metric, row in (worse if len(worse) else rows).iterrows()
    ]
    said = "worse than the champion" if len(worse) else "not worse than the champion"
    if on_shared:
        said += (
            f" on the {len(tested)} images that both were tested on, {positives} of them "
            f"{classes.positive_name}"
        )
    return _Line(
        float(np.min(rows["difference"])), limit, worse.empty, f"{said}: {', '.join(findings)}"
    )


def _pair(new: pd.DataFrame, champion: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """Return the tests of two models on the same images, and whether some had to be left out.

    Each image counts once, in the first repeat of each, where one model was tested in folds and the
    other on a test set. Every prediction is by networks that did not learn from the image.
    """
    keys = ["repeat", "image_id"]
    rows, others = (table.set_index(keys).index for table in (new, champion))
    if set(rows) == set(others):
        return new, champion, False
    once = [table[table["repeat"] == table["repeat"].min()] for table in (new, champion)]
    shared = set.intersection(*(set(table["image_id"]) for table in once))
    pixels = [dict(zip(table["image_id"], table["pixel_sha256"], strict=True)) for table in once]
    same = [image_id for image_id in shared if pixels[0][image_id] == pixels[1][image_id]]
    first, second = (table[table["image_id"].isin(same)].assign(repeat=0) for table in once)
    return first, second, True
