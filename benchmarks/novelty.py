"""What does a packaged model send to a human: pictures of other things, and scans of other sites?

    python benchmarks/novelty.py data/06_models/resnet50/package --manifest MANIFEST --raw FOLDER \
        [--external FOLDER] [--photos FOLDER]

Each picture goes through the packaged model, as a user's would. It counts as caught where it is
refused, or referred for another reason than its score. Own images are those of `tested.csv`, which
no limit was chosen on. The sets are made here, from a seed:

- `turned`, `upside down`, `inverted`, `Doppler`, `lettering over`: own images, changed;
- `blank`, `noise`, `text screen`: drawn;
- `CT and MR`, `other ultrasound`: the example files of pydicom, cut at random;
- `X-ray`: a chest phantom, drawn;
- `photo`: photographs of scikit-learn and Matplotlib, and those of a folder, cut at random.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from _common import describe_machine
from PIL import Image
from scipy.stats import binomtest

from busi_pipeline.imaging.decoding import UnusableImageError, decode_image
from busi_pipeline.models.package_parts import read_tested
from busi_pipeline.models.packaged import PackagedModel, load_package

NOT_COUNTED = {"near_threshold", "seen_in_training"}
PER_SET = 60
SCANS = ("CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm")
ULTRASOUND = ("examples_palette.dcm", "examples_ybr_color.dcm", "examples_rgb_color.dcm")


def cut(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random part, at least half as wide and high, with another contrast."""
    height, width = pixels.shape[:2]
    tall, wide = (round(side * rng.uniform(0.5, 1)) for side in (height, width))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    part = pixels[top : top + tall, left : left + wide].astype(float)
    low, high = np.percentile(part, [rng.uniform(0, 4), rng.uniform(96, 100)])
    part = np.clip((part - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    scale = max(1.0, 300 / min(part.shape[:2]))
    return cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) of grey or RGB."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]


def draw_noise(rng: np.random.Generator) -> np.ndarray:
    """White noise, speckle, or clouds."""
    height, width = rng.integers(250, 700, 2)
    kind = rng.integers(3)
    if kind == 0:
        noise = rng.uniform(0, 255, (height, width))
    elif kind == 1:
        noise = rng.rayleigh(45, (height, width))
    else:
        clouds = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), rng.uniform(2, 12))
        noise = (clouds - clouds.min()) / np.ptp(clouds) * 255
    return as_rgb(np.clip(noise, 0, 255).astype(np.uint8))


def draw_blank(rng: np.random.Generator) -> np.ndarray:
    """One grey value, or a slope, with the grain of a sensor."""
    height, width = rng.integers(250, 700, 2)
    slope = np.linspace(0, rng.choice([0, 20, 60]), height)[:, None]
    grain = rng.normal(0, rng.uniform(0, 2), (height, width))
    return as_rgb(np.clip(rng.uniform(0, 200) + slope + grain, 0, 255).astype(np.uint8))


def draw_text_screen(rng: np.random.Generator) -> np.ndarray:
    """A page of a scanner's report."""
    height, width = rng.integers(300, 700, 2)
    ground = int(rng.choice([0, 30, 230, 255]))
    page = np.full((height, width, 3), ground, np.uint8)
    ink = (220, 220, 220) if ground < 128 else (20, 20, 20)
    words = ["Breast", "Dist", "cm", "mm", "B-mode", "FR", "Gain", "Left", "Right", "12.4", "0.8"]
    for line in range(24, height, int(rng.integers(20, 34))):
        text = " ".join(rng.choice(words, 12))
        cv2.putText(page, text, (8, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    return page


def draw_chest(rng: np.random.Generator) -> np.ndarray:
    """A chest X-ray as a phantom: lungs, spine, ribs, heart."""
    size = 500
    ys, xs = np.mgrid[0:size, 0:size] / size - 0.5
    body = 150 * np.exp(-((xs / 0.48) ** 6) - (ys / 0.6) ** 6)
    for side in (-1, 1):
        lung = ((xs - side * rng.uniform(0.17, 0.2)) / 0.14) ** 2 + (ys / 0.33) ** 2 < 1
        body -= 90 * cv2.GaussianBlur(lung.astype(np.float32), (0, 0), 6)
    body += 50 * np.exp(-((xs / 0.04) ** 2))
    ribs = np.sin((ys + 0.6 * xs**2) * rng.uniform(50, 60)) > 0.75
    body += 22 * cv2.GaussianBlur(ribs.astype(np.float32), (0, 0), 2) * (abs(xs) < 0.38)
    body += 60 * (((xs - 0.07) / 0.13) ** 2 + ((ys - 0.12) / 0.13) ** 2 < 1)
    grain = rng.normal(0, 4, (size, size))
    return as_rgb(np.clip(cv2.GaussianBlur(body, (0, 0), 2) + grain, 0, 255).astype(np.uint8))


def add_doppler(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vessels in red and blue."""
    drawn = pixels.copy()
    height, width = pixels.shape[:2]
    for _ in range(rng.integers(3, 9)):
        centre = (int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height))
        axes = (int(rng.uniform(0.02, 0.08) * width) + 2, int(rng.uniform(0.01, 0.05) * height) + 2)
        shade = int(rng.integers(0, 140))
        colour = [(230, shade, 0), (0, shade, 230)][rng.integers(2)]
        cv2.ellipse(drawn, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return drawn


def add_lettering(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan under a page of text."""
    page = cv2.resize(draw_text_screen(rng), pixels.shape[1::-1])
    return np.where(abs(page.astype(int) - page[0, 0]) > 60, page, pixels).astype(np.uint8)


def read_dicom(names: tuple[str, ...], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Cuts of pydicom's example files; those that cannot be decoded here are left out."""
    import pydicom
    from pydicom.data import get_testdata_file
    from pydicom.pixels import apply_color_lut, convert_color_space

    for number in range(PER_SET):
        name = names[number % len(names)]
        header = pydicom.dcmread(get_testdata_file(name, download=False))
        pixels = header.pixel_array
        kind = header.PhotometricInterpretation
        if kind == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, header)
        elif kind.startswith("YBR"):
            pixels = convert_color_space(pixels, kind, "RGB", per_frame=True)
        if pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[-1] != 3):
            pixels = pixels[len(pixels) // 2]
        pixels = pixels.astype(float)
        grey = (pixels - pixels.min()) / max(np.ptp(pixels), 1) * 255
        yield cut(as_rgb(grey.astype(np.uint8)), rng)


def read_photos(folder: Path | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Cuts of photographs, every second one in grey."""
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    photos = [*load_sample_images().images]
    with get_sample_data("grace_hopper.jpg") as file:
        photos.append(np.asarray(Image.open(file)))
    if folder is not None:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))
        photos += [decode_image(file.read_bytes()).pixels for file in files]
    for number in range(2 * PER_SET):
        part = cut(photos[number % len(photos)], rng)
        yield part if number % 2 else as_rgb(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY))


def list_sets(
    own: list[np.ndarray], photos: Path | None, seed: int
) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    """Yield (name, pictures)."""

    def change(
        how: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    ) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        return (np.ascontiguousarray(how(pixels, rng)) for pixels in own)

    def draw(how: Callable[[np.random.Generator], np.ndarray]) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        return (how(rng) for _ in range(PER_SET))

    yield "own test images", iter(own)
    yield "turned by a quarter", change(lambda p, rng: np.rot90(p, rng.choice([1, 3])))
    yield "turned by a half", change(lambda p, _: np.rot90(p, 2))
    yield "upside down", change(lambda p, _: p[::-1])
    yield "inverted", change(lambda p, _: 255 - p)
    yield "colour Doppler", change(add_doppler)
    yield "lettering over a scan", change(add_lettering)
    yield "blank", draw(draw_blank)
    yield "noise", draw(draw_noise)
    yield "text screen", draw(draw_text_screen)
    yield "chest X-ray, phantom", draw(draw_chest)
    yield "CT and MR", read_dicom(SCANS, np.random.default_rng(seed))
    yield "other ultrasound", read_dicom(ULTRASOUND, np.random.default_rng(seed))
    yield "photo", read_photos(photos, np.random.default_rng(seed))


def ask(model: PackagedModel, pictures: Iterator[np.ndarray]) -> list[list[str]]:
    """Return why each picture goes to a human; an empty list where it does not."""
    found = []
    for pixels in pictures:
        try:
            reasons = model.predict_pixels(pixels).reasons
            found.append([reason for reason in reasons if reason not in NOT_COUNTED])
        except UnusableImageError:
            found.append(["refused"])
    return found


def report(name: str, found: list[list[str]]) -> None:
    """Print a row of the table."""
    caught = sum(bool(reasons) for reasons in found)
    interval = binomtest(caught, len(found)).proportion_ci(method="exact")
    counts = Counter(reason for reasons in found for reason in reasons)
    why = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    print(
        f"| {name} | {len(found)} | {100 * caught / len(found):.1f} "
        f"({100 * interval.low:.1f} to {100 * interval.high:.1f}) | {why} |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--raw", type=Path, required=True, help="Folder that its paths start from.")
    parser.add_argument("--external", type=Path, help="Folder of scans of another site.")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Take every so many external scan.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = load_package(arguments.package)
    paths = pd.read_csv(arguments.manifest, dtype=str).set_index("image_id")["path"]
    tested = read_tested(model)["image_id"].drop_duplicates()
    own = [decode_image((arguments.raw / paths[i]).read_bytes()).pixels for i in tested]
    print(f"{model.name} {model.version}; seed {arguments.seed}; {describe_machine()}\n")
    print("| pictures | n | to a human, % | reasons |\n| --- | --- | --- | --- |")
    for name, pictures in list_sets(own, arguments.photos, arguments.seed):
        report(name, ask(model, pictures))
    if arguments.external:
        files = sorted(arguments.external.glob("*.png"))[:: arguments.every]
        scans = (decode_image(file.read_bytes()).pixels for file in files)
        report("another site", ask(model, scans))


if __name__ == "__main__":
    main()
