"""What the benchmarks share: machine, repetition, the project's own settings and data."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import ArrayStream, StoredArray
from busi_pipeline.config.loader import load_active_parameters
from busi_pipeline.datasets.array_store import ArrayStoreDataset
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.config.experiments import ExperimentSettings, load_experiments
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation, prepare_images
from busi_pipeline.pipelines.ingestion.nodes import build_manifest
from busi_pipeline.pipelines.splitting.nodes import split_images
from busi_pipeline.synthetic import write_synthetic_set

PROJECT = Path(__file__).resolve().parents[1]


def describe_machine() -> str:
    """Return processor, cores and versions, for the head of every benchmark's output."""
    from importlib.metadata import version

    from cpuinfo import get_cpu_info

    libraries = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    brand = get_cpu_info().get("brand_raw", platform.processor())
    return f"{brand}, {os.cpu_count()} cores; Python {platform.python_version()}, {libraries}"


def run_pipeline(pipeline: str, env: str | None = None) -> tuple[float, dict[str, float]]:
    """Return the wall time of one `kedro run` of the project in the current directory, and the
    seconds of its stages."""
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={pipeline}"]
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


def time_calls(function: Callable[[], Any], times: int, warm_up: int = 1) -> list[float]:
    """Return the seconds of `times` calls after `warm_up` that do not count."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)
    return seconds


def spread(values: list[float], unit: str = "", digits: int = 2) -> str:
    """Return `median (lowest to highest)`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


def compare_pace(
    title: str, sides: dict[str, Callable[[], Any]], images: int, rounds: int, asked: float
) -> None:
    """Run two sides in turn; print the images a second of each and the ratio of first to second."""
    pace: dict[str, list[float]] = {name: [] for name in sides}
    for run in reversed(sides.values()):
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            pace[name].append(images / time_calls(run, 1, warm_up=0)[0])
    ratios = [one / other for one, other in zip(*pace.values(), strict=True)]
    print(f"{title}: images a second")
    for name, values in pace.items():
        print(f"  {name:12s} {spread(values, digits=1)}")
    missed = "" if statistics.median(ratios) >= asked else "  MISSED"
    print(f"  RATIO {spread(ratios)}; asked for: at least {asked:.2f}{missed}")


def measure_experiments(
    measure: Callable[[ExperimentSettings, int, int], None], description: str, images: int
) -> None:
    """Call `measure(experiment, images, rounds)` for what the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--experiments", nargs="*", default=["vgg16", "resnet50", "inceptionv3"])
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(describe_machine())
    for name in arguments.experiments:
        measure(read_experiment(name), arguments.images, arguments.rounds)


def read_parameters() -> Mapping[str, Any]:
    """Return the project's parameters."""
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(PROJECT)
    return load_active_parameters()


def read_experiment(name: str) -> ExperimentSettings:
    """Return a row of the project's experiments, complete."""
    return load_experiments(read_parameters())[name]


class Data(NamedTuple):
    """Raw images that went through the first three stages."""

    folder: Path
    split: pd.DataFrame
    images: StoredArray
    plan: pd.DataFrame


def find_raw_images(workspace: Path, per_class: int = 60) -> Path:
    """Return the folder in BUSI_RAW_DIR, or synthetic images written for the occasion."""
    if named := os.environ.get("BUSI_RAW_DIR"):
        return Path(named)
    folder = workspace / "synthetic"
    write_synthetic_set(folder, dict.fromkeys(("benign", "malignant", "normal"), per_class), seed=7)
    return folder


def prepare_data(folder: Path, workspace: Path, experiment: ExperimentSettings) -> Data:
    """Run ingestion, split and augmentation as the pipelines do."""
    parameters = read_parameters()
    raw = RawImagesDataset(str(folder)).load()
    manifest = build_manifest(raw, parameters["ingestion"], parameters["classes"]).manifest
    # The published split: what a copy more or less in training costs is no question of speed.
    alone = manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)
    split = split_images(manifest, alone, parameters["split"] | {"method": "random"}).split_manifest
    images = store(prepare_images(raw, manifest, experiment.image_size), workspace, "images")
    plan = plan_augmentation(split, experiment.model_dump())
    return Data(folder, split, images, plan)


def store(stream: ArrayStream, workspace: Path, name: str) -> StoredArray:
    """Save and load an array as the catalog does."""
    dataset = ArrayStoreDataset(str(workspace / name), str(workspace / "pool"))
    dataset.save(stream)
    return dataset.load()


def report_accuracy(other: str, theirs: np.ndarray, ours: np.ndarray, labels: np.ndarray) -> None:
    """Print what is given up: both networks on the same images, the difference with its interval.

    Bootstrap over images, 10 000 n_resamples, percentiles 2.5 and 97.5.
    """
    chosen = np.random.default_rng(0).integers(0, len(labels), (10_000, len(labels)))
    images = np.arange(len(labels))
    for name, score in {
        "accuracy": lambda p: (p.argmax(axis=1) == labels).astype(float),
        "cross-entropy": lambda p: -np.log(np.clip(p[images, labels], 1e-7, None)),
    }.items():
        there, here = score(theirs), score(ours)
        low, high = np.percentile((here - there)[chosen].mean(axis=1), [2.5, 97.5])
        print(
            f"  validation {name}: {other} {there.mean():.3f}, this project {here.mean():.3f}, "
            f"difference {(here - there).mean():+.3f} ({low:+.3f} to {high:+.3f})"
        )


def draw_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (count, size, size, 3) noise: a network takes any image as long."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
