"""Time, memory and hits of the search for duplicates as the number of images grows.

    python benchmarks/duplicates_at_scale.py --images 250 1000 4000

Half of the images are synthetic scans, the other half crops of them, enlarged or not. Each size
runs in a process of its own. `BUSI_RAW_DIR` is not used.
"""

import argparse
import hashlib
import io
import json
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
from _common import describe_machine, read_parameters, search_duplicates
from PIL import Image

from busi_pipeline.imaging.duplicate_search import RawImages
from busi_pipeline.synthetic import simulate_scan


def encode(image: Image.Image) -> bytes:
    """Return the image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_images(count: int) -> tuple[RawImages, pd.DataFrame]:
    """Return `count` images and their manifest; scan and crop have consecutive numbers."""
    files = []
    for number in range(count // 2):
        rng = np.random.default_rng(number)
        scan = Image.fromarray(simulate_scan("benign", 400, 500, rng).image)
        left, top = int(rng.integers(0, 100)), int(rng.integers(0, 80))
        crop = scan.crop((left, top, left + 400, top + 320))
        if number % 2:
            crop = crop.resize((520, 416), Image.Resampling.BICUBIC)
        files += [encode(scan), encode(crop)]
    names = [f"{i:06d}" for i in range(len(files))]
    digests = [hashlib.sha256(content).hexdigest() for content in files]
    manifest = pd.DataFrame(
        {
            "image_id": names,
            "path": names,
            "label": "benign",
            "byte_sha256": digests,
            "pixel_sha256": digests,
        }
    )
    raw = {name: partial(bytes, content) for name, content in zip(names, files, strict=True)}
    return raw, manifest


def measure(count: int) -> dict[str, float]:
    """Return seconds, peak memory beyond the images in MiB, and shares of pairs found and right."""
    raw, manifest = make_images(count)
    deduplication = read_parameters()["deduplication"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    pairs = search_duplicates(raw, manifest, deduplication)
    seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    first, second = pairs["image_a"].astype(int), pairs["image_b"].astype(int)
    right = ((first % 2 == 0) & (second == first + 1) & pairs["same_frame"]).sum()
    return {
        "seconds": seconds,
        "memory": memory / 1024,
        "found": right / (count // 2),
        "right": right / max(1, len(pairs)),
    }


def main() -> None:
    """Measure each size; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="The search for duplicates by number of images.")
    parser.add_argument("--images", type=int, nargs="*", default=[250, 1000, 4000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print(describe_machine())
    print("images   seconds   ms an image   MiB   pairs found   of those listed, right")
    for count in arguments.images:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{count:6d} {found['seconds']:9.1f} {1000 * found['seconds'] / count:13.1f} "
            f"{found['memory']:5.0f} {found['found']:13.1%} {found['right']:13.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
