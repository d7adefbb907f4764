"""What `kedro run` spends beside training and evaluation when nothing changed since the last run.

    python benchmarks/rerun.py                          # train_resnet50, twice and then three times
    python benchmarks/rerun.py --experiment vgg16 --env demo

Runs the project's own pipeline: the first run fills the cache, the others are measured.
"""

import argparse

from _common import describe_machine, run_pipeline, spread

MEASURED_APART = ("feature_extraction", "training", "evaluation")


def main() -> None:
    """Run and measure; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Seconds of a rerun beside its training.")
    parser.add_argument("--experiment", default="resnet50")
    parser.add_argument("--env")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe_machine())
    first, stages = run_pipeline(f"train_{arguments.experiment}", arguments.env)
    print(f"first run: {first:.1f} s; {stages}")
    walls, beside = [], []
    for _ in range(arguments.rounds):
        wall, stages = run_pipeline(f"train_{arguments.experiment}", arguments.env)
        walls.append(wall)
        beside.append(wall - sum(stages.get(name, 0.0) for name in MEASURED_APART))
        print(f"again: {wall:.1f} s; {stages}", flush=True)
    print(f"rerun in all: {spread(walls, ' s', 1)}")
    print(f"beside training and evaluation: {spread(beside, ' s', 1)}; asked for: under 15 s")


if __name__ == "__main__":
    main()
