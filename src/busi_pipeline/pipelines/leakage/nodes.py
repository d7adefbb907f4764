"""Measure leakage: the same experiment on folds that ignore duplicates, and on others."""

import logging

import pandas as pd

from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import ACCURACY, compare_predictions
from busi_pipeline.stats.paired_tests import adjust_p_values

logger = logging.getLogger(__name__)

RANDOM, GROUPED = "random", "grouped"
FINE_TUNED, LINEAR_PROBE = "fine-tuned", "linear probe"
_COLUMNS = [
    "model",
    "metric",
    RANDOM,
    GROUPED,
    "inflation",
    "inflation_ci_low",
    "inflation_ci_high",
    "p_value",
]


def measure_leakage(
    grouped: pd.DataFrame,
    grouped_linear_probe: pd.DataFrame,
    random: pd.DataFrame,
    random_linear_probe: pd.DataFrame,
    evaluation: EvaluationSettings,
    classes: Classes,
) -> pd.DataFrame:
    """Compare out-of-fold predictions of random folds with those of grouped ones, image by image.

    Args:
        grouped, grouped_linear_probe: predictions of the experiment and of its linear probe on
            folds that keep groups of duplicates together; the first repeat is used.
        random, random_linear_probe: likewise, on folds that ignore groups.
        evaluation: `n_resamples` and `seed` of the bootstrap over groups.
        classes: in the order of the probabilities.

    Returns one row a metric and model: `model` ("fine-tuned" or "linear probe"), `metric`,
    `random`, `grouped`, `inflation` (random less grouped) with `inflation_ci_low`,
    `inflation_ci_high`, and `p_value`.
    """
    tables = []
    for model, of_random, of_grouped in (
        (FINE_TUNED, random, grouped),
        (LINEAR_PROBE, random_linear_probe, grouped_linear_probe),
    ):
        first_repeat = of_grouped[of_grouped["repeat"] == 1]
        found = compare_predictions(classes, evaluation, random=of_random, grouped=first_repeat)
        found.columns = [str(name).replace("difference", "inflation") for name in found]
        named = found.rename(columns={"first_value": RANDOM, "second_value": GROUPED})
        tables.append(named.assign(model=model))
    return pd.concat(tables, ignore_index=True)[_COLUMNS]


def summarise_leakage(**leakage: pd.DataFrame) -> pd.DataFrame:
    """Put the tables of all experiments together.

    Args:
        leakage: {experiment: see `measure_leakage`}.

    Returns their rows; `experiment` is the first column, `p_corrected` (Holm, over all rows) the
    last.
    """
    table = pd.concat(
        [one.assign(experiment=name) for name, one in leakage.items()], ignore_index=True
    )
    table["p_corrected"] = adjust_p_values(table["p_value"].tolist())
    shares = [RANDOM, GROUPED, "inflation", "inflation_ci_low", "inflation_ci_high"]
    for row in table[table["metric"] == ACCURACY].to_dict("records"):
        logger.info(
            "%s, %s: accuracy %.1f %% on random folds, %.1f %% on grouped folds; inflation %.1f "
            "points (%.1f to %.1f)",
            row["experiment"],
            row["model"],
            *(100 * row[name] for name in shares),
        )
    return table[["experiment", *(c for c in table if c != "experiment")]]
