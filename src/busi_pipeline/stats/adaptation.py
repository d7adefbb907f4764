"""What labelled images of a new site buy: another calibration and threshold, the same network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from busi_pipeline.stats.bootstrap import HIGH, LOW, percentile_interval
from busi_pipeline.stats.calibration import fit_site_calibration
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import (
    Evaluation,
    OperatingPoint,
    apply_operating_point,
    can_promise_target,
    fit_operating_point,
    probability_columns,
)

_ASSURANCE = 0.95
_MEASURED = ("auc", "sensitivity", "specificity", "observed_expected", "brier")


class SiteDraw(NamedTuple):
    """Rows to fit to, and rows to test on; no group is in both."""

    fitted: np.ndarray
    tested: np.ndarray


def draw_images(groups: Sequence[str], count: int, rng: np.random.Generator) -> SiteDraw:
    """Draw about `count` images, group by group, and keep all images of the other groups apart.

    Args:
        groups: (n,), patients and duplicates.
        count: of images; the last group that is drawn is cut to it, its rest is in neither part.
        rng: decides the order of the groups.
    """
    _, of_row = np.unique(np.asarray(groups), return_inverse=True)
    place = rng.permutation(of_row.max() + 1)[of_row]
    order = np.argsort(place, kind="stable")
    fitted = order[:count]
    return SiteDraw(fitted, np.flatnonzero(~np.isin(of_row, of_row[fitted])))


def promise_sensitivity(positives: int, assurance: float = _ASSURANCE) -> float:
    """Return the sensitivity that the lowest score of so many positives assures as a threshold.

    Of all draws of so many positives, a share of `assurance` gives at least this sensitivity on
    new images like them. Source: Vovk 2012, "Conditional validity of inductive conformal
    predictors": the coverage of the lowest of m scores is Beta(m, 1).
    """
    return float(beta.ppf(1 - assurance, positives, 1)) if positives else 0.0


def measure_adaptation(
    predictions: pd.DataFrame,
    classes: Classes,
    evaluation: Evaluation,
    sizes: Sequence[int],
    n_draws: int,
    seed: int,
) -> pd.DataFrame:
    """Fit calibration and threshold to n images of the site, test on its other patients, and again.

    Args:
        predictions: one row an image of the site: `group`, `label`, and the probability
            `uncalibrated_<class>` of each class; `positive_score` and `flagged` of the model as it
            was delivered.
        classes: in the order of the probabilities.
        evaluation: target and rule of the threshold.
        sizes: numbers of images to fit to; those that leave fewer than half of the site are left
            out.
        n_draws: for each size.
        seed: of the draws.

    Returns one row a size, after one of 0 images (the model as delivered, on the whole site):
    `images`, `positives` (mean), `draws` (that held both kinds of images), `promised` (mean
    expected sensitivity), `target_promised` (share of draws in which the target can be promised),
    `assured` (see promise_sensitivity), and of auc, sensitivity, specificity, observed_expected and
    brier the mean over the draws and, as `_ci_low` and `_ci_high`, the range of 95 % of the draws.
    """
    groups = predictions["group"].tolist()
    delivered = _measure(predictions, classes)
    rows = [{"images": 0, "positives": 0.0, "draws": 1, **delivered}]
    for size in sizes:
        if 2 * size > len(predictions):
            continue
        rng = np.random.default_rng([seed, size])
        draws = [
            _fit_and_measure(predictions, draw_images(groups, size, rng), classes, evaluation)
            for _ in range(n_draws)
        ]
        usable = pd.DataFrame([draw for draw in draws if draw is not None])
        rows.append({"images": size, "draws": len(usable), **_summarise(usable)})
    columns = ["images", "positives", "draws", "promised", "target_promised", "assured"]
    columns += [name + end for name in _MEASURED for end in ("", LOW, HIGH)]
    return pd.DataFrame(rows, columns=columns)


def fit_site(
    predictions: pd.DataFrame, rows: np.ndarray, classes: Classes, evaluation: Evaluation
) -> OperatingPoint:
    """Return calibration and threshold fitted to these rows of the site.

    See calibration.fit_site_calibration and scoring.fit_operating_point.
    """
    return fit_operating_point(predictions.iloc[rows], classes, evaluation, fit_site_calibration)


def _fit_and_measure(
    predictions: pd.DataFrame, draw: SiteDraw, classes: Classes, evaluation: Evaluation
) -> dict[str, Any] | None:
    labels = [classes.is_positive(predictions["label"].iloc[rows]) for rows in draw]
    if any(truth.all() or not truth.any() for truth in labels):
        return None
    point = fit_site(predictions, draw.fitted, classes, evaluation)
    tested = apply_operating_point(predictions.iloc[draw.tested], point, classes)
    score = classes.positive_score(tested[probability_columns(classes)].to_numpy())
    positives = int(labels[0].sum())
    return {
        "positives": positives,
        "promised": point.expected_sensitivity,
        "target_promised": float(can_promise_target(point, evaluation)),
        "assured": promise_sensitivity(positives),
        **_measure(tested.assign(positive_score=score), classes),
    }


def _measure(table: pd.DataFrame, classes: Classes) -> dict[str, float]:
    truth = classes.is_positive(table["label"])
    score, flagged = table["positive_score"].to_numpy(), table["flagged"].to_numpy(dtype=bool)
    return {
        "auc": float(roc_auc_score(truth, score)),
        "sensitivity": float(flagged[truth].mean()),
        "specificity": float(1 - flagged[~truth].mean()),
        "observed_expected": float(truth.sum() / score.sum()),
        "brier": float(((truth - score) ** 2).mean()),
    }


def _summarise(draws: pd.DataFrame) -> dict[str, float]:
    if draws.empty:
        return {}
    summary = {str(name): float(values.mean()) for name, values in draws.items()}
    for name in _MEASURED:
        summary[name + LOW], summary[name + HIGH] = percentile_interval(draws[name].to_numpy())
    return summary
