"""How many duplicates does the search find? Two estimates on the images in BUSI_RAW_DIR.

    python benchmarks/duplicates_recall.py                # planted ones: a quarter of an hour
    python benchmarks/duplicates_recall.py --exhaustive   # every pair compared: ten minutes

Planted: some images get a duplicate, cropped, enlarged or reduced, brightened, drawn on and
JPEG-compressed at random, and the search has to find it among all others. Exhaustive: every pair is
compared in detail instead of the likely ones alone, and what the search did not find is listed.
"""

import argparse
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from _common import describe_machine, read_parameters, search_duplicates
from PIL import Image, ImageDraw, ImageEnhance
from tqdm import tqdm

from busi_pipeline.config.schemas import DeduplicationSettings
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.duplicate_matching import align_pictures, describe_picture
from busi_pipeline.imaging.duplicate_search import RawImages
from busi_pipeline.pipelines.ingestion.nodes import build_manifest


def alter(content: bytes, area: float, rng: np.random.Generator) -> bytes:
    """Return an altered duplicate that keeps this share of the image's area, as JPEG."""
    image = Image.fromarray(decode_image(content).pixels)
    side = np.sqrt(area)
    width, height = round(image.width * side), round(image.height * side)
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    zoom = float(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
    copy = image.crop((left, top, left + width, top + height))
    copy = copy.resize((round(width * zoom), round(height * zoom)), Image.Resampling.BICUBIC)
    copy = ImageEnhance.Brightness(copy).enhance(rng.uniform(0.8, 1.2))
    copy = ImageEnhance.Contrast(copy).enhance(rng.uniform(0.8, 1.2))
    pen = ImageDraw.Draw(copy)
    for _ in range(2):
        x, y = rng.uniform(0.2, 0.8) * copy.width, rng.uniform(0.2, 0.8) * copy.height
        pen.line([(x - 6, y), (x + 6, y)], fill=(255, 255, 255))
        pen.line([(x, y - 6), (x, y + 6)], fill=(255, 255, 255))
    pen.text((10, copy.height - 24), "LT BREAST", fill=(255, 255, 255), font_size=14)
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    return buffer.getvalue()


def plant(
    raw: RawImages,
    manifest: pd.DataFrame,
    areas: Sequence[float],
    count: int,
    deduplication: DeduplicationSettings,
) -> None:
    """Print the share of planted duplicates that the search finds, by the area they keep."""
    rng = np.random.default_rng(0)
    print("area kept   planted   found")
    for area in areas:
        chosen = manifest.iloc[rng.choice(len(manifest), count, replace=False)]
        more = {}
        for image_id, path in zip(chosen["image_id"], chosen["path"], strict=True):
            content = alter(raw[path](), area, rng)
            more[f"planted/{image_id}"] = partial(bytes, content)
        planted = chosen.assign(
            image_id=[f"planted/{name}" for name in chosen["image_id"]],
            path=[f"planted/{name}" for name in chosen["image_id"]],
        )
        for column in ("byte_sha256", "pixel_sha256"):
            planted[column] = planted["image_id"]
        both = pd.concat([manifest, planted], ignore_index=True)
        pairs = search_duplicates({**raw, **more}, both, deduplication)
        same = pairs[pairs["same_frame"]]
        found = set(zip(same["image_a"], same["image_b"], strict=True))
        hits = sum((name, f"planted/{name}") in found for name in chosen["image_id"])
        print(f"{area:9.0%} {count:9d} {hits / count:7.1%}", flush=True)


def compare_all(
    raw: RawImages, manifest: pd.DataFrame, deduplication: DeduplicationSettings
) -> None:
    """Print how many pairs of each kind there are, and which of them the search did not find."""
    pairs = search_duplicates(raw, manifest, deduplication)
    found = set(zip(pairs["image_a"], pairs["image_b"], strict=True))
    with ThreadPoolExecutor() as pool:
        pictures = list(
            pool.map(
                lambda path: describe_picture(
                    decode_image(raw[path]()).pixels,
                    deduplication.longest_side,
                    deduplication.keypoints,
                ),
                manifest["path"],
            )
        )
        every = list(combinations(range(len(pictures)), 2))
        aligned = pool.map(
            lambda pair: (
                align_pictures(
                    pictures[pair[0]],
                    pictures[pair[1]],
                    deduplication.min_inliers,
                    deduplication.min_shared,
                ).correlation
            ),
            every,
        )
        scores = np.array(list(tqdm(aligned, total=len(every), disable=None)))
    for title, low, high in (
        ("same frame", deduplication.same_frame, 2.0),
        ("neighbouring frame", deduplication.neighbouring_frame, deduplication.same_frame),
    ):
        there = [every[i] for i in np.flatnonzero((scores >= low) & (scores < high))]
        ids = manifest["image_id"]
        absent = [(ids[i], ids[j]) for i, j in there if (ids[i], ids[j]) not in found]
        print(f"{title}: {len(there)} of {len(every)} pairs, {len(absent)} not found {absent}")
    counts, edges = np.histogram(scores, [-1, 0.05, 0.1, 0.15, 0.3, 0.5, 0.7, 0.85, 0.92, 0.95, 1])
    for low, high, number in zip(edges, edges[1:], counts, strict=False):
        print(f"  correlation {low:5.2f} to {high:4.2f}: {number}")


def main() -> None:
    """Estimate; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="Estimates of the duplicates that are found.")
    parser.add_argument("--exhaustive", action="store_true")
    parser.add_argument("--count", type=int, default=100, help="duplicates planted of each kind")
    parser.add_argument("--areas", type=float, nargs="+", default=[0.9, 0.7, 0.5, 0.35, 0.25])
    arguments = parser.parse_args()
    print(describe_machine())
    parameters = read_parameters()
    raw = RawImagesDataset({"main": os.environ["BUSI_RAW_DIR"]}).load()
    manifest = build_manifest(raw, parameters["ingestion"], parameters["classes"]).manifest
    if arguments.exhaustive:
        compare_all(raw, manifest, parameters["deduplication"])
    else:
        plant(raw, manifest, arguments.areas, arguments.count, parameters["deduplication"])


if __name__ == "__main__":
    main()
