"""All experiments of a plain `kedro run` in turn, from raw images to logged evaluation.

    python benchmarks/four_experiments.py      # in a clone that has computed no features yet

Runs `kedro run --pipeline=train_<row>` in the current directory and keeps what it makes. Each row
finds what the rows before it left: images of its size, copies, the features of its backbone.
"""

import argparse
import resource
from pathlib import Path

from _common import describe_machine, load_experiments, read_parameters, run_pipeline

FEATURES = Path("data/05_model_input/feature_pool")
STAGES = ("ingestion", "copies", "augmentation", "split", "training", "evaluation", "explanation")
ASKED_MINUTES, ASKED_GIB = 60, 4


def main() -> None:
    """Run and measure; `--help` tells the arguments."""
    parser = argparse.ArgumentParser(description="Wall time and memory of all experiments.")
    parser.add_argument("--experiments", nargs="*", help="rows instead of those of a plain run")
    parser.add_argument("--warm", action="store_true", help="although features are there already")
    arguments = parser.parse_args()
    if FEATURES.exists() and not arguments.warm:
        raise SystemExit(
            f"{FEATURES} is there: a time from raw images needs a clone that has computed nothing. "
            "Move data/ away, or say --warm."
        )
    settings = load_experiments(read_parameters())
    rows = arguments.experiments or [row for row, of in settings.items() if of.in_default]
    print(describe_machine())
    print(f"{'seconds':20s}" + "".join(f"{name:>14s}" for name in ("wall", *STAGES, "other")))
    walls = []
    for row in rows:
        wall, stages = run_pipeline(f"train_{row}")
        walls.append(wall)
        told = [stages.get(name, 0.0) for name in STAGES]
        cells = [wall, *told, wall - sum(told)]
        print(f"{row:20s}" + "".join(f"{seconds:14.1f}" for seconds in cells), flush=True)
    minutes = sum(walls) / 60
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    for name, value, unit, asked in (
        ("in all", minutes, "minutes", ASKED_MINUTES),
        ("peak of memory", peak, "GiB", ASKED_GIB),
    ):
        missed = "" if value < asked else "  MISSED"
        print(f"{name}: {value:.1f} {unit}; asked for: under {asked}{missed}")


if __name__ == "__main__":
    main()
