"""How much of the lesions the text cover smooths away, in images with masks.

    python benchmarks/text_cover.py /path/to/Dataset_BUSI_with_GT

Prints in how many images something is smoothed, in how many more than a tenth, a quarter and half
of the lesion's area, and how much of all pixels. The contrast of a lesion is the median grey of
what is around it less its own. The last line counts the lesions that have some and lose half of it.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.masks import DrawnLesion, draw_lesion
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.imaging.text_cover import cover_text, find_text_boxes, mark_boxes
from busi_pipeline.layouts import LAYOUTS
from busi_pipeline.layouts.recognition import recognise_layout
from busi_pipeline.progress import track

LABELS = ("benign", "malignant", "normal")
# Pixels across and down that a lesion is enlarged by, and the least contrast that counts as some.
AROUND, SOME = 31, 10


def measure_contrast(pixels: np.ndarray, lesion: np.ndarray) -> float:
    """Return by how much a lesion is darker than what is around it, in grey values."""
    around = (cv2.dilate(lesion, np.ones((AROUND, AROUND), np.uint8)) > 0) & (lesion == 0)
    if not around.any():
        return 0.0
    return float(np.median(pixels[around]) - np.median(pixels[lesion > 0]))


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = RawFiles({path.relative_to(folder).as_posix(): path.read_bytes for path in paths})
    found = recognise_layout(files, LAYOUTS, LABELS)
    of_lesions, of_images, faded = [], [], 0
    for image in track(found.layout.read(found.files, LABELS).images, "images", "image"):
        pixels = decode_image(found.files[image.path]()).pixels
        shape = pixels.shape[:2]
        lesion = draw_lesion(found.files, DrawnLesion(list(image.masks), None), shape)
        if lesion is None or not lesion.any():
            continue
        smoothed = mark_boxes(find_text_boxes(pixels), shape)
        of_lesions.append(smoothed[lesion > 0].mean())
        of_images.append(smoothed.mean())
        before = measure_contrast(pixels, lesion)
        after = measure_contrast(cover_text(pixels, framed=False), lesion)
        faded += before >= SOME and after < before / 2
    shares = np.array(of_lesions)
    print(f"{len(shares)} images with a lesion; {np.mean(of_images):.1%} of all pixels smoothed")
    for least in (0, 0.1, 0.25, 0.5):
        print(f"more than {least:.0%} of the lesion: {(shares > least).mean():.1%} of the images")
    print(f"lesions that lose more than half of their contrast: {faded}")


if __name__ == "__main__":
    main()
