"""Time and memory against the number of images: a small synthetic set 1, 4 and 16 times.

    python benchmarks/scale.py --experiment resnet50 --per-class 20

Each size runs in a process of its own, from files to features and one epoch of fine-tuning on them.
Copies differ in one pixel, so that nothing that was computed for one is found in the cache for
another.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _common import (
    compute_features,
    describe_machine,
    prepare_data,
    read_experiment,
    read_parameters,
    train,
)

from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.synthetic import write_synthetic_set


def write_copies(folder: Path, per_class: int, factor: int) -> None:
    """Write `factor` copies of a small synthetic set, each with a pixel of its own."""
    import numpy as np
    from PIL import Image

    classes = read_parameters()["classes"]
    write_synthetic_set(folder, dict.fromkeys(classes, per_class), seed=7)
    for label in classes:
        for path in sorted((folder / label).glob("*).png")):
            pixels = np.array(Image.open(path))
            for copy in range(1, factor):
                pixels[0, 0] = copy
                Image.fromarray(pixels).save(path.with_name(f"{path.stem} copy {copy}.png"))


def measure_here(folder: Path, name: str) -> dict[str, float]:
    """Run the stages in this process and return seconds and the peak of its memory in MiB."""
    experiment = read_experiment(name).updated(
        {
            "augmentation": {"per_image": 2},
            "training": {
                "weights": "none",
                "head_phase": {"epochs": 1},
                "fine_tuning": {"epochs": 1},
            },
        }
    )
    weights = WeightsSource(None)
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def book(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[step] = now - last
        last = now

    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        data = prepare_data(folder, workspace, experiment)
        book("ingestion to images")
        import keras  # noqa: F401  # its import is no cost of an image

        book("import")
        features, pooled = compute_features(data, experiment, weights, workspace)
        book("features")
        train(features, pooled, data, experiment, weights)
        book("one epoch")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds | {"images": len(data.split), "MiB": peak}


def main() -> None:
    """Measure each size in a process of its own; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Time and memory against the number of images.")
    parser.add_argument("--experiment", default="resnet50")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--factors", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_here(arguments.child, arguments.experiment)))
        return
    print(describe_machine())
    print(f"{'images':>8s} {'seconds':>9s} {'ms an image':>12s} {'peak MiB':>9s}  steps")
    for factor in arguments.factors:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "raw"
            write_copies(folder, arguments.per_class, factor)
            child = [sys.executable, __file__, "--child", str(folder)]
            child += ["--experiment", arguments.experiment]
            done = subprocess.run(child, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        images, mib = int(measured.pop("images")), measured.pop("MiB")
        total = sum(value for step, value in measured.items() if step != "import")
        steps = ", ".join(f"{step} {value:.1f}" for step, value in measured.items())
        each = 1000 * total / images
        print(f"{images:8d} {total:9.1f} {each:12.1f} {mib:9.0f}  {steps}", flush=True)


if __name__ == "__main__":
    main()
