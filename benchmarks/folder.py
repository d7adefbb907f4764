"""A folder of images through a packaged model, against the bare forward pass of its networks.

    python benchmarks/folder.py data/06_models/resnet50/package --count 100
    python benchmarks/folder.py data/demo/06_models/inceptionv3_lesion/package \
        --count 10000 --rounds 1

Both sides see the same images. The folder's side reads files, decodes, checks, locates, cuts,
classifies, compares with what was learned from and with what was sent, and writes the journal. The
bare side has what the networks take in memory, and computes one image after the other on all cores,
or as many at once as the folder's side. The sides take turns. Pictures and page are drawn later and
not counted.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _common import describe_machine, read_parameters
from PIL import Image

from busi_pipeline.config.schemas import PredictionSettings
from busi_pipeline.datasets.journal import Journal
from busi_pipeline.imaging.network_input import InputDescription, show_windows
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.models.localizer import locate_lesion
from busi_pipeline.models.onnx_networks import share_cores
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.pipelines.prediction.nodes import list_images, read_images
from busi_pipeline.synthetic import simulate_scan

DISTINCT = 200


def read_memory() -> float:
    """Return the megabytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def write_images(folder: Path, count: int) -> dict[str, Path]:
    """Write scans; after some, the same with another corner, so that no two files are the same."""
    scans = [
        simulate_scan("malignant", 450, 560, np.random.default_rng(seed)).image
        for seed in range(min(count, DISTINCT))
    ]
    files = {}
    for number in range(count):
        pixels = scans[number % len(scans)].copy()
        pixels[:4, :8] = np.frombuffer(f"{number:032d}".encode(), np.uint8).reshape(4, 8)
        files[f"{number:06d}.png"] = folder / f"{number:06d}.png"
        Image.fromarray(pixels).save(files[f"{number:06d}.png"], compress_level=1)
    return files


def prepare(model: PackagedModel, pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Return what the classifier takes of each picture."""
    networks, shape = model.networks, InputDescription(**model.description.get("input", {}))
    size, shown = networks.localizer_size, []
    for pixels in pictures:
        box = None if size is None else locate_lesion(networks.draw_maps, size, pixels)[0]
        shown.append(show_windows(pixels, box, shape, model.description["image_size"])[None])
    return shown


def compute_bare(model: PackagedModel, shown: list[np.ndarray], at_once: int) -> float:
    """Return the seconds an image that the networks alone take."""
    networks, size = model.networks, model.networks.localizer_size

    def compute(own: np.ndarray) -> None:
        if size is not None:
            networks.draw_maps(np.zeros((1, size, size), np.uint8))
        networks.classify(own)

    with ThreadPoolExecutor(at_once) as pool:
        begun = time.perf_counter()
        list(pool.map(compute, shown))
        return (time.perf_counter() - begun) / len(shown)


def main() -> None:
    """Print pace and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shares = share_cores()
    one, many = load_package(arguments.package), load_package(arguments.package, shares.threads)
    settings = PredictionSettings(folder="benchmark", model=None)
    print(f"{one.name} {one.version}; {arguments.count} images; {describe_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), arguments.count)
        some = list(files.values())[: min(arguments.count, 200)]
        pictures = [np.repeat(np.asarray(Image.open(f))[..., None], 3, axis=2) for f in some]
        shown = prepare(one, pictures)
        for model in (one, many):
            compute_bare(model, shown[:3], 1)
        for number in range(arguments.rounds):
            memory: list[float] = []

            def read(path: Path, memory: list[float] = memory) -> bytes:
                memory.append(read_memory())
                return path.read_bytes()

            raw = RawFiles({name: partial(read, path) for name, path in files.items()})
            requests = list_images(raw, settings)
            bare = compute_bare(one, shown, 1)
            bare_many = compute_bare(many, shown, shares.images)
            begun = time.perf_counter()
            journal = Journal(Path(folder) / f"journal {number}.jsonl")
            read_images(raw, requests, many, journal, settings, read_parameters()["deduplication"])
            whole = (time.perf_counter() - begun) / arguments.count
            tenth = memory[len(memory) // 10]
            print(
                f"bare {1 / bare:.1f} images/s, {shares.images} at once {1 / bare_many:.1f}; "
                f"folder {1 / whole:.1f}: {bare / whole:.2f} and {bare_many / whole:.2f} of it; "
                f"memory {tenth:.0f} MB after a tenth, {memory[-1]:.0f} MB at the end",
                flush=True,
            )


if __name__ == "__main__":
    main()
