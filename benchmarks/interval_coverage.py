"""How often the intervals hold the truth: data sets with groups, simulated.

    python benchmarks/interval_coverage.py [--sets 2000] [--resamples 200] [--alike 0.5] [--of NPV]

Each data set has groups of one to four images that are right and wrong together. The truth is what
groups without end would show. An interval of 95 % is to hold it in 93 to 97 % of the sets, whatever

- the share (right images; a group has a probability of its own, from a beta distribution),
- the AUC (scores of two normal distributions, which differ by group, a quarter of them positive),
- the negative predictive value at a prevalence of 0.05, which is derived from two shares.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from busi_pipeline.progress import track
from busi_pipeline.stats.bootstrap import HIGH, LOW, Denominators, Trials, add_intervals
from busi_pipeline.stats.operating_point import list_flag_denominators, score_flag

_SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)
_AUCS = (0.65, 0.85, 0.95, 0.99)
_SENSITIVITIES = (0.8, 0.95, 0.98)
_GROUPS = (30, 100, 400)
_LARGEST = 4
_POSITIVE = 0.25
_SPECIFICITY, _PREVALENCE = 0.6, 0.05


class DataSet(NamedTuple):
    """What is measured on one simulated data set, and how."""

    groups: list[str]
    score: Callable[[np.ndarray], dict[str, float]]
    denominators: Denominators


Draw = Callable[[float, int, float, np.random.Generator], DataSet]


def draw_groups(groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return int (images,): the group of each."""
    return np.repeat(np.arange(groups), rng.integers(1, _LARGEST + 1, groups))


def draw_right(
    chance: float, of_image: np.ndarray, alike: float, rng: np.random.Generator
) -> np.ndarray:
    """Return bool (images,): right with this chance, correlated by `alike` within a group."""
    concentration = 1 / alike - 1
    own = rng.beta(concentration * chance, concentration * (1 - chance), of_image.max() + 1)
    return rng.random(len(of_image)) < own[of_image]


def draw_share(share: float, groups: int, alike: float, rng: np.random.Generator) -> DataSet:
    """Return images of which this share is right."""
    of_image = draw_groups(groups, rng)
    right = draw_right(share, of_image, alike, rng).astype(float)
    return DataSet(
        of_image.astype(str).tolist(),
        lambda rows: {"value": float(right[rows].mean())},
        {"value": Trials(np.ones(len(right), bool))},
    )


def draw_ranking(auc: float, groups: int, alike: float, rng: np.random.Generator) -> DataSet:
    """Return images of which a quarter is positive, ranked with this AUC."""
    of_image = draw_groups(groups, rng)
    positive = of_image < round(_POSITIVE * groups)
    score = np.sqrt(alike) * rng.normal(size=groups)[of_image]
    score += np.sqrt(1 - alike) * rng.normal(size=len(of_image))
    score += np.sqrt(2) * norm.ppf(auc) * positive

    def measure(rows: np.ndarray) -> dict[str, float]:
        if positive[rows].all() or not positive[rows].any():
            raise ValueError("one kind alone")
        ranks = rankdata(score[rows])[positive[rows]]  # quicker than scikit-learn's
        pairs = len(ranks) * (len(rows) - len(ranks))
        return {"value": float((ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / pairs)}

    return DataSet(of_image.astype(str).tolist(), measure, {"value": Trials(positive, ~positive)})


def draw_flag(sensitivity: float, groups: int, alike: float, rng: np.random.Generator) -> DataSet:
    """Return images of which a quarter is positive, flagged with this sensitivity."""
    of_image = draw_groups(groups, rng)
    positive = of_image < round(_POSITIVE * groups)
    flagged = np.where(
        positive,
        draw_right(sensitivity, of_image, alike, rng),
        draw_right(1 - _SPECIFICITY, of_image, alike, rng),
    )

    def measure(rows: np.ndarray) -> dict[str, float]:
        found = score_flag(positive[rows], flagged[rows], _PREVALENCE)
        return {name: found[name] for name in ("sensitivity", "specificity")} | {
            "value": found["npv_at_prevalence"]
        }

    denominators = list_flag_denominators(positive, flagged, _PREVALENCE)
    return DataSet(
        of_image.astype(str).tolist(),
        measure,
        {
            "sensitivity": denominators["sensitivity"],
            "specificity": denominators["specificity"],
            "value": denominators["npv_at_prevalence"],
        },
    )


def find_true_npv(sensitivity: float) -> float:
    """Return the negative predictive value that draw_flag has with groups without end."""
    rejected = _SPECIFICITY * (1 - _PREVALENCE)
    return rejected / (rejected + (1 - sensitivity) * _PREVALENCE)


def measure_coverage(
    draw: Draw, drawn: float, truth: float, groups: int, asked: argparse.Namespace
) -> tuple[float, float]:
    """Return the share of the sets whose interval holds the truth, and the mean width."""
    rng = np.random.default_rng([groups, round(drawn * 1000)])
    held, width = 0, 0.0
    for n in range(asked.sets):
        data = draw(drawn, groups, asked.alike, rng)
        everything = data.score(np.arange(len(data.groups)))
        found = add_intervals(
            everything, data.score, data.groups, asked.resamples, n, data.denominators
        )
        low, high = found["value" + LOW], found["value" + HIGH]
        held += low <= truth <= high
        width += high - low
    return held / asked.sets, width / asked.sets


def main(arguments: list[str]) -> None:
    """Print a table: the coverage of each true value and number of groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--alike", type=float, default=0.5, help="correlation within a group")
    parser.add_argument("--of", choices=["share", "AUC", "NPV"], help="of this alone")
    asked = parser.parse_args(arguments)
    kinds: list[tuple[str, Draw, float, float]] = [
        *(("share", draw_share, share, share) for share in _SHARES),
        *(("AUC", draw_ranking, auc, auc) for auc in _AUCS),
        *(
            ("NPV", draw_flag, sensitivity, find_true_npv(sensitivity))
            for sensitivity in _SENSITIVITIES
        ),
    ]
    wanted = [kind for kind in kinds if asked.of in (None, kind[0])]
    cells = [(*kind, groups) for kind in wanted for groups in _GROUPS]
    print("| of | true value | groups | interval holds it | mean width |")
    print("| --- | --- | --- | --- | --- |")
    for name, draw, drawn, truth, groups in track(cells, "coverage", "cell", total=len(cells)):
        covered, width = measure_coverage(draw, drawn, truth, groups, asked)
        print(f"| {name} | {truth:.4g} | {groups} | {covered:.1%} | {width:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
