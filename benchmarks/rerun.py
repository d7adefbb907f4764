"""What `kedro run` spends beside training and evaluation when nothing changed since the last run.

    python benchmarks/rerun.py                          # train_resnet50, twice and then three times
    python benchmarks/rerun.py --experiment vgg16 --env demo

Runs the project's own pipeline: the first run fills what can be kept, the others are measured.
"""

import argparse
import os
import re
import subprocess
import sys
import time

from _common import describe_machine, spread

MEASURED_APART = ("training", "evaluation")


def run_pipeline(experiment: str, env: str | None) -> tuple[float, dict[str, float]]:
    """Return the wall time of one `kedro run` and the seconds of its stages."""
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline=train_{experiment}"]
    command += [f"--env={env}"] if env else []
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "1000"},
        check=False,
    )
    wall = time.perf_counter() - begun
    output = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
    told = re.findall(r"seconds: (\w+ [\d.]+(?:, \w+ [\d.]+)*)", output)[-1]
    stages = {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)", told)}
    return wall, stages


def main() -> None:
    """Run and measure; `--help` tells the arguments."""
    parser = argparse.ArgumentParser(description="Seconds of a rerun beside its training.")
    parser.add_argument("--experiment", default="resnet50")
    parser.add_argument("--env")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe_machine())
    first, stages = run_pipeline(arguments.experiment, arguments.env)
    print(f"first run: {first:.1f} s; {stages}")
    walls, beside = [], []
    for _ in range(arguments.rounds):
        wall, stages = run_pipeline(arguments.experiment, arguments.env)
        walls.append(wall)
        beside.append(wall - sum(stages.get(name, 0.0) for name in MEASURED_APART))
        print(f"again: {wall:.1f} s; {stages}", flush=True)
    print(f"rerun in all: {spread(walls, ' s', 1)}")
    print(f"beside training and evaluation: {spread(beside, ' s', 1)}; asked for: under 15 s")


if __name__ == "__main__":
    main()
