"""How often the intervals of shares hold the truth: data sets with groups, simulated.

    python benchmarks/interval_coverage.py [--sets 2000] [--resamples 400]

Each data set has groups of one to four images. A group has a probability of its own (beta
distribution), so that its images are right and wrong together. The truth is the mean over groups of
any size. An interval of 95 % is to hold it in 93 to 97 % of the sets.
"""

import argparse
import sys

import numpy as np

from busi_pipeline.progress import track
from busi_pipeline.stats.bootstrap import HIGH, LOW, add_intervals

_SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)
_GROUPS = (30, 100, 400)
_LARGEST = 4
# Correlation within a group is 1 / (1 + this).
_CONCENTRATION = 1.0


def draw_set(share: float, groups: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Return the group of each image, and float (images,), 1 where it is right."""
    sizes = rng.integers(1, _LARGEST + 1, groups)
    chances = rng.beta(_CONCENTRATION * share, _CONCENTRATION * (1 - share), groups)
    right = rng.random(sizes.sum()) < np.repeat(chances, sizes)
    return [f"g{n}" for n in np.repeat(np.arange(groups), sizes)], right.astype(float)


def measure_coverage(share: float, groups: int, sets: int, resamples: int) -> tuple[float, float]:
    """Return the share of the sets whose interval holds the truth, and the mean width."""
    rng = np.random.default_rng([groups, round(share * 1000)])
    held, width = 0, 0.0
    for n in range(sets):
        names, right = draw_set(share, groups, rng)

        def score(rows: np.ndarray, right: np.ndarray = right) -> dict[str, float]:
            return {"share": float(right[rows].mean())}

        found = add_intervals(score(np.arange(len(right))), score, names, resamples, seed=n)
        low, high = found["share" + LOW], found["share" + HIGH]
        held += low <= share <= high
        width += high - low
    return held / sets, width / sets


def main(arguments: list[str]) -> None:
    """Print a table: the coverage of each true share and number of groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=400)
    asked = parser.parse_args(arguments)
    cells = [(share, groups) for share in _SHARES for groups in _GROUPS]
    print("| true share | groups | interval holds it | mean width |")
    print("| --- | --- | --- | --- |")
    for share, groups in track(cells, "coverage", "cell", total=len(cells)):
        covered, width = measure_coverage(share, groups, asked.sets, asked.resamples)
        print(f"| {share:g} | {groups} | {covered:.1%} | {width:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
