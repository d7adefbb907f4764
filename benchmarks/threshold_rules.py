"""What a threshold finds by each rule of choosing it, on tables of cross-validated predictions.

    python benchmarks/threshold_rules.py data/07_model_output/*/cross_validation/predictions.csv

The threshold of every fold is chosen on its validation images, by `evaluation.threshold_rule`
empirical and conformal, for each target. What it then flags for review is counted on the test
images of the fold. In brackets are 95 % intervals, by bootstrap over groups. The sensitivity of
each repeat is printed, too.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import read_parameters

from busi_pipeline.config.schemas import EvaluationSettings
from busi_pipeline.pipelines.evaluation.nodes import calibrate_predictions
from busi_pipeline.stats.bootstrap import add_intervals
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.operating_point import list_flag_denominators, score_flag
from busi_pipeline.stats.scoring import format_share, probability_columns, select_test


def read_predictions(path: Path, classes: Classes) -> pd.DataFrame:
    """Return a table of predictions; stops where its columns are not those of these classes."""
    texts = {"image_id": str, "group": str, "label": str}
    table = pd.read_csv(path, dtype=texts, keep_default_na=False)
    needed = [*texts, "split", "repeat", "fold", *probability_columns(classes, uncalibrated=True)]
    if lacking := [column for column in needed if column not in table]:
        raise SystemExit(
            f"{path} lacks the columns {', '.join(lacking)}: give the predictions.csv of a "
            "cross-validation with the classes in conf/."
        )
    return table


def score_with_intervals(
    test: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes
) -> dict[str, Any]:
    """Score the column `flagged`, with the intervals of `stats.scoring.score_predictions`."""
    is_positive = classes.is_positive(test["label"])
    flagged = test["flagged"].to_numpy(dtype=bool)

    def score(rows: np.ndarray) -> dict[str, Any]:
        return score_flag(is_positive[rows], flagged[rows], evaluation.prevalence)

    return add_intervals(
        score(np.arange(len(test))),
        score,
        test["group"].tolist(),
        evaluation.n_resamples,
        evaluation.seed,
        list_flag_denominators(is_positive, flagged, evaluation.prevalence),
    )


def describe_flag(test: pd.DataFrame, evaluation: EvaluationSettings, classes: Classes) -> str:
    """Return what was flagged for review, rightly and wrongly, as a line."""
    flag = score_with_intervals(test, evaluation, classes)
    positives = test[classes.is_positive(test["label"])]
    found = positives.groupby("repeat")["flagged"].mean()
    return (
        f"sensitivity {format_share(flag, 'sensitivity')}, "
        f"by repeat {', '.join(f'{share:.3f}' for share in found)}; "
        f"specificity {format_share(flag, 'specificity')}; "
        f"missed {flag['missed']} of {flag['positives']}; "
        f"false alarms {flag['false_alarms']} of {flag['images'] - flag['positives']}"
    )


def main() -> None:
    """Compare; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Rules of choosing the threshold.")
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--targets", nargs="+", type=float, default=[0.9, 0.95])
    arguments = parser.parse_args()
    parameters = read_parameters()
    classes = parameters["classes"]
    for path in arguments.tables:
        table = read_predictions(path, classes)
        print(f"{path}: {table['repeat'].nunique()} repeats, {table['image_id'].nunique()} images")
        for target in arguments.targets:
            for rule in ("empirical", "conformal"):
                evaluation = parameters["evaluation"].updated(
                    {"target_sensitivity": target, "threshold_rule": rule}
                )
                calibrated = calibrate_predictions(table, evaluation, classes).predictions
                line = describe_flag(select_test(calibrated), evaluation, classes)
                print(f"  target {target:.2f}, {rule:9}: {line}", flush=True)


if __name__ == "__main__":
    main()
