"""The demo's two sites: copies, annotations, ambiguous lesions, and scanners of another look."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.config.sites import find_external_site
from busi_pipeline.imaging.burned_in_annotations import find_cross, find_text
from busi_pipeline.pipelines.deduplication.nodes import find_duplicates
from busi_pipeline.synthetic import write_demo
from tests.factories import PROJECT, as_raw_images, load_parameters

SEED = 7


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the first and of the second site."""
    first, second = write_demo(tmp_path_factory.mktemp("demo") / "raw", SEED)
    return first, second


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def list_images(site: Path, label: str) -> list[Path]:
    return sorted(p for p in (site / label).glob("*.png") if "_mask" not in p.name)


def test_the_command_writes_both_sites_alike(sites: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "busi_pipeline.synthetic", str(tmp_path / "raw")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["255", "76"]
    for site in sites:
        written = tmp_path / site.name
        names = sorted(p.relative_to(site) for p in site.rglob("*.*"))
        assert names == sorted(p.relative_to(written) for p in written.rglob("*.*"))
        assert all((site / n).read_bytes() == (written / n).read_bytes() for n in names)


def test_copies_are_found_one_of_them_in_another_class(
    sites: tuple[Path, Path], tmp_path: Path
) -> None:
    wanted = {
        "benign": (5, 8, 21, 34, *range(110, 121)),
        "malignant": (3, 11, 17, 30, *range(70, 76)),
        "normal": (9, 59, 60),
    }
    ids = [f"{label}/{label} ({n})" for label, numbers in wanted.items() for n in numbers]
    files = {f"{name}.png": (sites[0] / f"{name}.png").read_bytes() for name in ids}
    hashes = [hashlib.sha256(content).hexdigest() for content in files.values()]
    manifest = pd.DataFrame(
        {
            "image_id": ids,
            "path": list(files),
            "label": [name.partition("/")[0] for name in ids],
            "byte_sha256": hashes,
            "pixel_sha256": hashes,
        }
    )
    settings = load_parameters()["deduplication"]
    pairs = find_duplicates(as_raw_images(files), manifest, settings, Cache(tmp_path))
    assert pairs["same_frame"].all()
    assert set(pairs["kind"]) == {"identical file", "re-annotated", "re-cropped", "zoomed"}
    assert len(pairs) == 11, "ten copies, two of them of one image"
    assert (pairs["label_a"] != pairs["label_b"]).sum() == 1


def test_some_images_carry_callipers_and_text(sites: tuple[Path, Path]) -> None:
    images = [read(path) for path in list_images(sites[0], "malignant")]
    crosses = np.mean([find_cross(image) is not None for image in images])
    texts = np.mean([find_text(image) is not None for image in images])
    assert 0.2 < crosses < 0.6
    assert 0.05 < texts < 0.4
    unmeasured = [find_cross(read(path)) for path in list_images(sites[0], "normal")]
    assert not any(unmeasured)


def test_some_lesions_look_like_the_other_class(sites: tuple[Path, Path]) -> None:
    tall: dict[str, list[float]] = {"benign": [], "malignant": []}
    for label, ratios in tall.items():
        for path in list_images(sites[0], label):
            rows, columns = np.nonzero(read(path.with_name(f"{path.stem}_mask.png")))
            ratios.append(np.ptp(rows) / np.ptp(columns))
    labels = [label for label, ratios in tall.items() for _ in ratios]
    known = [label == "malignant" for label in labels]
    assert 0.75 < roc_auc_score(known, tall["benign"] + tall["malignant"]) < 0.97
    assert np.sum(np.array(tall["benign"]) > 1) >= 3
    assert np.sum(np.array(tall["malignant"]) < 1) >= 3


def test_images_differ_in_size_and_brightness(sites: tuple[Path, Path]) -> None:
    images = [read(path) for path in list_images(sites[0], "normal")]
    assert len({image.shape for image in images}) > 50
    assert np.std([image.mean() for image in images]) > 12


def test_the_second_site_has_another_look(sites: tuple[Path, Path]) -> None:
    table = pd.read_csv(sites[1] / "images.csv")
    assert table["patient"].value_counts().eq(2).all()
    assert set(table["birads"]) == {2, 3, 4, 5}
    assert table["device"].nunique() == 2
    second = [read(sites[1] / name) for name in table["image"]]
    first = [read(path) for path in list_images(sites[0], "benign")]
    assert all((image[:, :10] < 1).mean() > 0.9 for image in second), "a black border"

    def measure(images: list[np.ndarray]) -> tuple[float, float]:
        """Return mean width over height, and how much of a pixel its neighbour has."""
        inside = [image[20:-30, 30:-30].astype(float) for image in images]
        grain = [np.corrcoef(x[:, :-2].ravel(), x[:, 2:].ravel())[0, 1] for x in inside]
        return float(np.mean([x.shape[1] / x.shape[0] for x in images])), float(np.mean(grain))

    (aspect, grain), (other_aspect, other_grain) = measure(first), measure(second)
    assert aspect > 1.2 * other_aspect
    assert other_grain > grain + 0.1, "coarser speckle"


def test_masks_of_the_second_site_lie_over_its_images(sites: tuple[Path, Path]) -> None:
    table = pd.read_csv(sites[1] / "images.csv")
    for image, mask in zip(table["image"], table["mask"], strict=True):
        lesion = read(sites[1] / mask)
        assert lesion.shape == read(sites[1] / image).shape
        assert lesion.any()


def test_the_demo_is_validated_at_the_second_site(sites: tuple[Path, Path]) -> None:
    loader = ProjectConfigLoader(PROJECT / "conf", env="demo", **LOADER_ARGUMENTS)
    checked = loader["parameters"]
    name, site = find_external_site(checked["external"], checked["sites"]) or ("", None)
    assert site is not None
    assert name not in checked["ingestion"].sites
    first = Path(loader["globals"]["raw_dir"])
    assert Path(site.folder) == first.with_name(sites[1].name.replace("raw", first.name))
