"""What an approximate index of images misses, and what it costs, beside looking at all of them.

    python benchmarks/duplicate_index.py --planted 1000

Of the images in BUSI_RAW_DIR and BUS_BRA_RAW_DIR some get an altered copy, as in
duplicates_recall.py, a fifth of them by each share of the area that is kept. A pair counts as found
where one image is among the likely partners of the other. Both ways in one process, on the same
vectors; `index` is that of imaging.neighbours.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from _common import describe_machine, read_parameters
from duplicates_recall import alter

from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.imaging import duplicate_matching as matching
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.neighbours import Neighbours
from busi_pipeline.pipelines.ingestion.nodes import build_manifest

AREAS = (0.9, 0.7, 0.5, 0.35, 0.25)
T = TypeVar("T")


def read_images() -> list[bytes]:
    """Return the files of both sites that are images."""
    parameters = read_parameters()
    contents = []
    for variable, layout in (("BUSI_RAW_DIR", "class_folders"), ("BUS_BRA_RAW_DIR", "bus_bra")):
        raw = RawImagesDataset({"main": os.environ[variable]}).load()
        ingestion = parameters["ingestion"].updated({"layout": layout})
        paths = build_manifest(raw, ingestion, parameters["classes"]).manifest["path"]
        contents += [raw[path]() for path in paths]
    return contents


def describe(contents: list[bytes]) -> np.ndarray:
    """Return float32 (n, dimensions), as the search for duplicates makes them."""
    deduplication = read_parameters()["deduplication"]

    def look(content: bytes) -> matching.Picture:
        pixels = decode_image(content).pixels
        return matching.describe_picture(
            pixels, deduplication.longest_side, deduplication.keypoints
        )

    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(look, contents))
        some = np.random.default_rng(0).permutation(len(pictures))[:2000]
        summary = matching.learn_summary([pictures[i] for i in some], seed=0)
        return np.stack(list(pool.map(summary.apply, pictures)))


def take_time(compute: Callable[[], T]) -> tuple[T, float]:
    """Return what is computed, and the seconds."""
    begun = time.perf_counter()
    made = compute()
    return made, time.perf_counter() - begun


def main() -> None:
    """Compare; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="An index of images beside looking at all.")
    parser.add_argument("--planted", type=int, default=1000, help="altered copies")
    arguments = parser.parse_args()
    print(describe_machine())
    contents, rng = read_images(), np.random.default_rng(0)
    chosen = rng.choice(len(contents), arguments.planted, replace=False)
    areas = np.resize(AREAS, len(chosen))
    planted = [alter(contents[i], area, rng) for i, area in zip(chosen, areas, strict=True)]
    vectors = describe([*contents, *planted])
    copies = len(contents) + np.arange(len(chosen))
    count = read_parameters()["deduplication"].candidates + 1
    print(f"{len(vectors)} images, {len(planted)} of them altered copies; {count - 1} partners")
    print("way     build s   ms a query   partners found   copies found, by area kept: ", AREAS)
    everything = None
    for way in ("all", "index"):
        known, building = take_time(lambda way=way: Neighbours(vectors, way == "index"))
        found, searching = take_time(lambda known=known: known.find(vectors, count))
        everything = found if everything is None else everything
        same = [
            len(set(one) & set(other)) / count
            for one, other in zip(found.tolist(), everything.tolist(), strict=True)
        ]
        hits = (found[copies] == chosen[:, None]).any(axis=1)
        hits |= (found[chosen] == copies[:, None]).any(axis=1)
        shares = "  ".join(f"{hits[areas == area].mean():6.1%}" for area in AREAS)
        each = 1000 * searching / len(vectors)
        print(f"{way:6s} {building:8.1f} {each:12.2f} {np.mean(same):16.1%}   {shares}", flush=True)


if __name__ == "__main__":
    main()
