"""What the benchmarks share: machine, repetition, the project's own settings and data."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.config.checking import Parameters
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.config.schemas import DeduplicationSettings, ExperimentSettings
from busi_pipeline.datasets.cached_array import CachedArrayDataset
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.imaging.duplicate_search import RawImages, find_duplicate_pairs
from busi_pipeline.learning.features import extract_features, pool_features
from busi_pipeline.learning.training import FittedNetwork, assemble_model, train_network
from busi_pipeline.pipelines.ingestion.nodes import build_manifest
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation, prepare_images
from busi_pipeline.pipelines.splitting.nodes import split_images
from busi_pipeline.stats.classes import Classes
from busi_pipeline.synthetic import write_synthetic_set

if TYPE_CHECKING:
    import keras

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
    logged = re.findall(r"seconds: (\w+ [\d.]+(?:, \w+ [\d.]+)*)", output)[-1]
    stages = {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)", logged)}
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
    verdict = "" if statistics.median(ratios) >= asked else "  NOT REACHED"
    print(f"  RATIO {spread(ratios)}; asked for: at least {asked:.2f}{verdict}")


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


def read_parameters() -> Parameters:
    """Return the project's parameters, of the environment in KEDRO_ENV where it is set."""
    env = os.environ.get("KEDRO_ENV") or None
    return ProjectConfigLoader(PROJECT / "conf", env=env, **LOADER_ARGUMENTS)["parameters"]


def read_experiment(name: str) -> ExperimentSettings:
    """Return one of the project's experiments; stops where there is none of this name."""
    experiments = read_parameters()["experiments"]
    if name not in experiments:
        raise SystemExit(f"no experiment {name!r}: there are {', '.join(experiments)}.")
    return experiments[name]


class Data(NamedTuple):
    """Raw images after ingestion, splitting and preprocessing.

    Attributes:
        folder: of the raw images.
        classes: their classes.
        split: the split manifest.
        images: uint8 (n, size, size, 3).
        plan: the augmentation plan.
    """

    folder: Path
    classes: Classes
    split: pd.DataFrame
    images: StoredArray
    plan: pd.DataFrame


def find_raw_images(workspace: Path, per_class: int = 60) -> Path:
    """Return the folder in BUSI_RAW_DIR, or one of synthetic images that are written now."""
    if named := os.environ.get("BUSI_RAW_DIR"):
        return Path(named)
    folder = workspace / "synthetic"
    write_synthetic_set(folder, dict.fromkeys(read_parameters()["classes"], per_class), seed=7)
    return folder


def prepare_data(folder: Path, workspace: Path, experiment: ExperimentSettings) -> Data:
    """Run ingestion, splitting and preprocessing as the pipelines do."""
    parameters = read_parameters()
    classes = parameters["classes"]
    raw = RawImagesDataset({"main": str(folder)}).load()
    manifest = build_manifest(raw, parameters["ingestion"], classes).manifest
    # The published split: speed does not depend on where the duplicates are.
    alone = manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)
    random = parameters["split"].updated({"method": "random"})
    split = split_images(manifest, alone, random).split_manifest
    cache = open_cache(workspace)
    images = prepare_images(raw, manifest, cache, experiment.image_size)
    plan = plan_augmentation(split, experiment)
    return Data(folder, classes, split, save_and_load(images, workspace, "images"), plan)


def compute_features(
    data: Data, experiment: ExperimentSettings, source: WeightsSource, workspace: Path
) -> tuple[StoredArray, StoredArray]:
    """Return features and pooled features, saved and loaded as the catalog does."""
    weights = source.choose(experiment.backbone, experiment.training.weights)
    cache, classes = open_cache(workspace), len(data.classes)
    features = save_and_load(
        extract_features(data.images, data.plan, experiment, weights, classes, cache),
        workspace,
        "features",
    )
    pooled = pool_features(features, experiment, weights, classes, cache)
    return features, save_and_load(pooled, workspace, "pooled_features")


def train(
    features: StoredArray,
    pooled_features: StoredArray,
    data: Data,
    experiment: ExperimentSettings,
    source: WeightsSource,
) -> tuple[FittedNetwork, "keras.Model"]:
    """Train as the pipelines do, but never from the cache; return network and model."""
    from busi_pipeline.learning.device import prepare_device  # it imports Keras, which takes long

    weights = source.choose(experiment.backbone, experiment.training.weights)
    device = prepare_device(experiment.training.precision)
    fitted = train_network(
        features, pooled_features, data.split, experiment, weights, data.classes, device
    )
    return fitted, assemble_model(fitted, experiment, weights, len(data.classes))


def open_cache(workspace: Path) -> Cache:
    """Return the cache of a workspace."""
    return Cache(workspace / "cache")


def save_and_load(array: StoredArray, workspace: Path, name: str) -> StoredArray:
    """Save and load an array as the catalog does."""
    dataset = CachedArrayDataset(str(workspace / f"{name}.json"), str(workspace / "cache"))
    dataset.save(array)
    return dataset.load()


def store_rows(
    name: str,
    count: int,
    dtype: str,
    compute: Callable[[np.ndarray], Iterable[np.ndarray]],
    workspace: Path,
) -> StoredArray:
    """Return an array of `count` rows, stored as those of the pipelines are; see
    `Cache.compute_array`."""
    ids = [str(row) for row in range(count)]
    index = pd.DataFrame({"image_id": ids})
    cache = open_cache(workspace)
    array = cache.compute_array(Fingerprint(name, {}), index, ids, dtype, compute)
    return save_and_load(array, workspace, name)


def search_duplicates(
    raw: RawImages, manifest: pd.DataFrame, deduplication: DeduplicationSettings
) -> pd.DataFrame:
    """Return the pairs of duplicates, searched now and not taken from a cache."""
    with tempfile.TemporaryDirectory() as folder:
        return find_duplicate_pairs(raw, manifest, deduplication, Cache(Path(folder)))


def report_accuracy(other: str, theirs: np.ndarray, ours: np.ndarray, labels: np.ndarray) -> None:
    """Print what both networks reach on the same images, and the difference with its interval.

    Bootstrap over images, 10 000 resamples, percentiles 2.5 and 97.5.
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
    """Return uint8 (count, size, size, 3) noise: a network takes as long for any image."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
