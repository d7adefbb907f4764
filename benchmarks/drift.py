"""Does `monitor` raise where it must, and not where nothing differs?

    python benchmarks/drift.py data/06_models/resnet50/package [--findings FINDINGS_OF_ANOTHER_SITE]

The images that a model was tested on are parted at random into known and new ones, again and again:
nothing differs, so at most `monitoring.alpha` of the parts may raise an alarm. Then the findings of
another site are watched, in as many random orders.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from _common import describe_machine, read_parameters

from busi_pipeline.models.packaged import load_package
from busi_pipeline.pipelines.monitoring.nodes import list_reference
from busi_pipeline.stats.anytime import bet_on_ranks, rank_values


def find_alarm(known: pd.DataFrame, new: pd.DataFrame, alpha: float, seed: int) -> int:
    """Return after how many images the evidence of all together is an alarm; 0 for never."""
    evidence = np.max(
        [
            bet_on_ranks(rank_values(known[name].tolist(), new[name].tolist(), seed + number))
            for number, name in enumerate(known)
        ],
        axis=0,
    )
    over = evidence >= len(known.columns) / alpha
    return int(over.argmax()) + 1 if over.any() else 0


def report(name: str, alarms: list[int], images: int) -> None:
    """Print a row of the table."""
    raised = [alarm for alarm in alarms if alarm]
    after = f"{np.median(raised):.0f} ({min(raised)} to {max(raised)})" if raised else "–"
    print(f"| {name} | {images} | {len(alarms)} | {len(raised)} | {after} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--findings", type=Path, help="findings.parquet of another site.")
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    alpha = read_parameters()["monitoring"].alpha
    model = load_package(arguments.package)
    tested = list_reference(model)
    half = len(tested) // 2
    print(f"{model.name} {model.version}; alpha {alpha:g}; {describe_machine()}\n")
    print("| new images | n | orders | alarms | after images, median (range) |")
    print("| --- | --- | --- | --- | --- |")
    alarms = []
    for seed in range(arguments.resamples):
        parted = tested.sample(frac=1, random_state=seed)
        alarms.append(find_alarm(parted[:half], parted[half:], alpha, seed))
    report("of the own test", alarms, len(tested) - half)
    if arguments.findings:
        findings = pd.read_parquet(arguments.findings)
        usable = findings[findings["problem"] == ""]
        novel = usable["reasons"].str.contains("out_of_distribution")
        new = usable.assign(out_of_distribution=novel, new_device=0)[[*tested]].astype(float)
        alarms = [
            find_alarm(tested, new.sample(frac=1, random_state=seed), alpha, seed)
            for seed in range(arguments.resamples)
        ]
        report("of another site", alarms, len(new))


if __name__ == "__main__":
    main()
