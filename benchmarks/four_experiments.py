"""All experiments of a plain `kedro run` in turn, from raw images to logged evaluation.

    python benchmarks/four_experiments.py      # in a clone that has computed no features yet

Runs `kedro run --pipeline=train_<experiment>` in the current directory and keeps what it makes.
Each experiment finds what those before it left: images of its size, duplicates, features of its
backbone.
"""

import argparse
import resource
from pathlib import Path

from _common import describe_machine, read_parameters, run_pipeline

from busi_pipeline.learning.features import FEATURES

CACHED_FEATURES = Path("data/cache") / FEATURES.name
STAGES = (
    "ingestion",
    "deduplication",
    "splitting",
    "preprocessing",
    "feature_extraction",
    "training",
    "evaluation",
    "explanation",
    "reporting",
)
ASKED_MINUTES, ASKED_GIB = 60, 4


def main() -> None:
    """Run and measure; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Wall time and memory of all experiments.")
    parser.add_argument("--experiments", nargs="*", help="instead of those of a plain run")
    parser.add_argument("--warm", action="store_true", help="although features are there already")
    arguments = parser.parse_args()
    if CACHED_FEATURES.exists() and not arguments.warm:
        raise SystemExit(
            f"{CACHED_FEATURES} is there: a time from raw images needs a clone that has computed "
            "nothing. Move data/ away, or add --warm."
        )
    settings = read_parameters()["experiments"]
    names = arguments.experiments or [name for name, one in settings.items() if one.in_default]
    print(describe_machine())
    print(f"{'seconds':20s}" + "".join(f"{name:>20s}" for name in ("wall", *STAGES, "other")))
    walls = []
    for name in names:
        wall, stages = run_pipeline(f"train_{name}")
        walls.append(wall)
        of_stages = [stages.get(stage, 0.0) for stage in STAGES]
        cells = [wall, *of_stages, wall - sum(of_stages)]
        print(f"{name:20s}" + "".join(f"{seconds:20.1f}" for seconds in cells), flush=True)
    minutes = sum(walls) / 60
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    for name, value, unit, asked in (
        ("in all", minutes, "minutes", ASKED_MINUTES),
        ("peak of memory", peak, "GiB", ASKED_GIB),
    ):
        verdict = "" if value < asked else "  NOT REACHED"
        print(f"{name}: {value:.1f} {unit}; asked for: under {asked}{verdict}")


if __name__ == "__main__":
    main()
