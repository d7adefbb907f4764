"""Shortcuts: marks are told from tissue, lesions are hidden, each question has its own images."""

import io
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.datasets.computed_table import ComputedTableDataset
from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.scoring import probability_columns
from busi_pipeline.pipelines.cross_validation.nodes import judge_folds
from busi_pipeline.imaging.occlusion import occlude_lesions
from busi_pipeline.imaging.burned_in_annotations import find_cross, find_text
from busi_pipeline.pipelines.bias_audit.nodes import (
    ANNOTATIONS,
    audit_bias,
    plot_bias_audit,
    plot_burned_in_annotations,
    find_burned_in_annotations,
    predict_from_bounding_box,
)
from tests.conftest import CLASSES
from tests.pipelines.test_cross_validation import JUDGING


def draw_speckle(seed: int, brightest: int = 170) -> np.ndarray:
    """Tissue: smoothed noise, uint8 (200, 260)."""
    noise = np.random.default_rng(seed).gamma(2.0, 1.0, (200, 260))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (smooth / smooth.max() * brightest).astype(np.uint8)


@pytest.mark.parametrize("length", [11, 13, 15, 17])
@pytest.mark.parametrize("width", [2, 3])
def test_crosses_of_callipers_are_found_where_they_are(length: int, width: int) -> None:
    image = draw_speckle(length)
    middle, reach, half = (120, 90), length // 2, width // 2
    image[90 - reach : 91 + reach, 120 - half : 120 - half + width] = 225
    image[90 - half : 90 - half + width, 120 - reach : 121 + reach] = 225
    found = find_cross(image)
    assert found is not None
    centre = (found.left + found.width / 2, found.top + found.height / 2)
    assert centre == pytest.approx(middle, abs=2)
    assert found.score > 0.72


def test_tissue_and_letters_are_no_crosses() -> None:
    for seed in range(8):
        assert find_cross(draw_speckle(seed, 230)) is None
    image = draw_speckle(1)
    cv2.putText(image, "LT TIT", (80, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 225, 2)
    assert find_cross(image) is None


def test_text_is_found_and_the_logo_is_not() -> None:
    assert find_text(draw_speckle(2, 230)) is None
    image = draw_speckle(3)
    cv2.putText(image, "RT AX", (90, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 225, 2)
    found = find_text(image)
    assert found is not None
    assert found.score >= 3
    assert 85 <= found.left <= 95
    assert found.top + found.height == pytest.approx(150, abs=3)
    logo = draw_speckle(4)
    cv2.putText(logo, "LOG", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 225, 2)
    assert find_text(logo) is None


def encode(grey: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def test_marks_of_a_set_are_listed_and_shown(tmp_path: Any) -> None:
    plain, marked, written = draw_speckle(5), draw_speckle(6), draw_speckle(7)
    cv2.line(marked, (100, 90), (114, 90), 225, 2)
    cv2.line(marked, (107, 83), (107, 97), 225, 2)
    cv2.putText(written, "RT 3", (90, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 225, 2)
    files = {f"benign/{n}.png": encode(g) for n, g in enumerate((plain, marked, written))}
    raw = {path: (lambda content=content: content) for path, content in files.items()}
    manifest = pd.DataFrame(
        {
            "image_id": [p.removesuffix(".png") for p in files],
            "path": list(files),
            "label": "benign",
            "byte_sha256": ["a", "b", "c"],
            "colour_overlay": [True, False, False],
        }
    )
    dataset = ComputedTableDataset(filepath=str(tmp_path / "marks.csv"), save_args={"index": False})
    dataset.save(find_burned_in_annotations(raw, manifest))
    table = dataset.load()
    assert table["callipers"].tolist() == [False, True, False]
    assert table["text"].tolist() == [False, False, True]
    assert table["colour"].tolist() == [True, False, False]
    figure = plot_burned_in_annotations(raw, manifest, table)
    assert "callipers on 1 of 3" in figure.get_suptitle()
    assert sum(bool(axis.images) for axis in figure.axes) == 2
    dataset.save(find_burned_in_annotations(raw, manifest.head(1)))
    bare = plot_burned_in_annotations(raw, manifest.head(1), dataset.load())
    assert "callipers on 0 of 1" in bare.get_suptitle(), "nothing to show is no error"


def make_lesions(count: int = 60) -> tuple[StoredArray, StoredArray, pd.DataFrame]:
    """White images whose malignant lesions are larger; normal ones have none."""
    ids = [f"i{n}" for n in range(count)]
    labels = [CLASSES[n % 3] for n in range(count)]
    masks = np.zeros((count, 32, 32), dtype=np.uint8)
    for n, label in enumerate(labels):
        if label != "normal":
            half = 3 + n % 2 + 5 * (label == "malignant")
            masks[n, 16 - half : 16 + half, 14 - half : 14 + half] = 1
    images = np.full((count, 32, 32, 3), 200, dtype=np.uint8)
    images[masks.astype(bool)] = 20
    index = pd.DataFrame({"image_id": ids})
    folds = index.assign(
        path=ids, label=labels, group=ids, cv_group=ids, repeat_1=np.arange(count) // 3 % 2 + 1
    )
    keys = [str(n) for n in range(count)]
    return StoredArray(index, images, keys), StoredArray(index, masks, keys), folds


def test_nothing_of_a_lesion_is_left() -> None:
    images, masks, _ = make_lesions()
    stream = occlude_lesions(images, masks)
    assert "code_sha256" in stream.recipe, "another way of hiding is another row"
    hidden = np.concatenate(list(stream.compute(np.arange(60))))
    for n in range(60):
        inside = masks.values[n].astype(bool)
        mean = round(float(images.values[n].mean()))
        assert (hidden[n][inside] == mean).all()
    lent = images.values.copy()
    lent[2] = np.arange(32, dtype=np.uint8)[:, None, None]  # a normal image that is not flat
    again = occlude_lesions(StoredArray(images.index, lent, images.keys), masks)
    row = next(iter(again.compute(np.array([2]))))[0]
    assert (row != lent[2]).any(), "a normal image gets a box of another image"
    moved = StoredArray(masks.index, np.roll(masks.values, 2, axis=1), masks.keys)
    assert occlude_lesions(images, moved).keys[0] != stream.keys[0]


def test_without_masks_there_is_nothing_to_hide() -> None:
    images, masks, _ = make_lesions()
    bare = StoredArray(masks.index, np.zeros_like(masks.values), masks.keys)
    with pytest.raises(BadInputError, match="no image has a lesion mask"):
        occlude_lesions(images, bare)


def test_the_box_tells_what_its_size_tells() -> None:
    _, masks, folds = make_lesions()
    choice = {"folds": 2, "repeats": 1, "seed": 0, "validation": 0.2}
    scores = predict_from_bounding_box(masks, folds, choice)
    assert sorted(scores["image_id"]) == sorted(folds.loc[folds["label"] != "normal", "image_id"])
    malignant = scores["label"] == "malignant"
    assert scores.loc[malignant, "score"].min() > scores.loc[~malignant, "score"].max()


def make_judged(images: int, skill: float) -> pd.DataFrame:
    label = np.arange(images) % 3
    exponents = np.exp(skill * np.eye(3)[label] + np.random.default_rng(0).normal(size=(images, 3)))
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(images)],
            "group": [f"g{n}" for n in range(images)],
            "label": np.array(CLASSES)[label],
            "split": np.where(np.arange(images) % 4 == 0, "validation", "test"),
            "repeat": 1,
            "fold": 1,
        }
    )
    table[probability_columns(CLASSES, raw=True)] = exponents / exponents.sum(axis=1, keepdims=True)
    return judge_folds(table, JUDGING, CLASSES)


def test_audit_asks_each_question_of_its_own_images() -> None:
    judged, blind = make_judged(240, 2.0), make_judged(240, 0.0)
    marks = pd.DataFrame({"image_id": [f"i{n}" for n in range(240)]})
    number = np.arange(240)
    for name, marked in zip(ANNOTATIONS, (number < 80, number % 3 == 0, number == 1), strict=True):
        marks[name] = marked
    box = judged[judged["split"] == "test"].assign(score=0.5)[
        ["image_id", "group", "label", "score"]
    ]
    table = audit_bias(judged, judged, blind, box, marks, JUDGING).set_index("question")
    test = judged[judged["split"] == "test"]
    everything = table.loc["fine-tuned, all images"]
    assert everything["images"] == len(test)
    assert everything["accuracy"] == test["correct"].mean()
    assert everything["accuracy_ci_low"] < everything["accuracy"] < everything["accuracy_ci_high"]
    marked = table.loc["fine-tuned, images with a mark", "images"]
    unmarked = table.loc["fine-tuned, images without any mark", "images"]
    assert marked + unmarked == len(test)
    assert table.loc["fine-tuned, images with callipers", "images"] == 60
    one_class = table.loc["fine-tuned, images with text"]
    assert one_class["accuracy"] > 0.5
    assert np.isnan(one_class["lesion_auc"]), "benign alone cannot be ranked"
    assert np.isnan(table.loc["fine-tuned, images with colour", "accuracy"]), "one image is too few"
    visible, hidden = (table.loc[f"frozen probe, lesion {x}"] for x in ("visible", "hidden"))
    assert visible["lesion_auc"] > 0.85
    assert hidden["lesion_auc_ci_low"] < 0.5 < hidden["lesion_auc_ci_high"]
    assert table.loc["size and place of the box alone", "lesion_auc"] == 0.5
    axes = plot_bias_audit(table.reset_index(), {"title": "x"}).axes
    assert len(axes[0].get_yticklabels()) == len(table)
