"""What a threshold finds by each rule of choosing it, on tables of cross-validated predictions.

    python benchmarks/threshold_rules.py data/07_model_output/resnet50/cv_predictions.csv ...

The threshold of every fold is chosen on its validation images, by `evaluation.threshold_rule`
empirical and conformal, for each target; what it then flags is counted on the images of the fold.
In brackets 95 % intervals, bootstrap over groups. The sensitivity of each repeat is told, too.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from _common import read_parameters

from busi_pipeline.stats.operating_point import score_flag
from busi_pipeline.stats.bootstrap import add_intervals
from busi_pipeline.stats.scoring import CANCER, select_test, format_share
from busi_pipeline.pipelines.cross_validation.nodes import judge_folds


def score_flag(table: pd.DataFrame, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Score the column `flagged`, with intervals."""
    is_cancer = (table["label"] == CANCER).to_numpy()
    flagged = table["flagged"].to_numpy(dtype=bool)

    def score(rows: Any) -> dict[str, Any]:
        return score_flag(is_cancer[rows], flagged[rows], evaluation["prevalence"])

    everything = score(slice(None))
    groups = table["group"].tolist()
    return add_intervals(everything, score, groups, evaluation["n_resamples"], evaluation["seed"])


def tell(table: pd.DataFrame, evaluation: dict[str, Any]) -> str:
    """Return what the flag found and what it flagged besides, as a line."""
    flag = score_flag(table, evaluation)
    found = table[table["label"] == CANCER].groupby("repeat")["flagged"].mean()
    return (
        f"sensitivity {format_share(flag, 'sensitivity')}, "
        f"by repeat {', '.join(f'{share:.3f}' for share in found)}; "
        f"specificity {format_share(flag, 'specificity')}; "
        f"missed {flag['missed_cancers']} of {flag['cancers']}; "
        f"false alarms {flag['false_alarms']} of {flag['images'] - flag['cancers']}"
    )


def main() -> None:
    """Compare; `--help` tells the arguments."""
    parser = argparse.ArgumentParser(description="Rules of choosing the threshold.")
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--targets", nargs="+", type=float, default=[0.9, 0.95])
    arguments = parser.parse_args()
    parameters = read_parameters()
    for path in arguments.tables:
        raw = pd.read_csv(path)
        print(f"{path}: {raw['repeat'].nunique()} repeats, {raw['image_id'].nunique()} images")
        for target in arguments.targets:
            for rule in ("empirical", "conformal"):
                evaluation = parameters["evaluation"] | {
                    "target_sensitivity": target,
                    "threshold_rule": rule,
                }
                test = select_test(judge_folds(raw, evaluation, parameters["classes"]))
                print(f"  target {target:.2f}, {rule:9}: {tell(test, evaluation)}", flush=True)


if __name__ == "__main__":
    main()
