"""A packaged model: the same answer through every door, and a reason for every refusal."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UnusableImageError, hash_pixels
from busi_pipeline.imaging.quality import Quality, measure_quality
from busi_pipeline.models.model_store import find_package
from busi_pipeline.models.packaged import (
    REASONS,
    PackagedModel,
    load_package,
    measure_margin,
)
from tests.dicom_factories import make_dicom, write_dicom
from tests.factories import encode_image
from tests.package_factories import (
    ANYTHING,
    THRESHOLD,
    change_package_file,
    draw_scan,
    write_tiny_package,
)

BRIGHT, DARK = draw_scan(1, level=180), draw_scan(2, level=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("packages") / "tiny" / "package")


@pytest.fixture(scope="module")
def model(folder: Path) -> PackagedModel:
    return load_package(folder)


def expect(pixels: np.ndarray) -> float:
    """Return p(malignant) of the tiny network, by NumPy."""
    from busi_pipeline.imaging.resizing import resize_image

    mean = resize_image(pixels, 16).mean() / 255
    scores = np.exp(mean * np.array([-2.0, 8.0, 0.0]) + np.array([3.0, -2.0, -3.0]))
    return float(scores[1] / scores.sum())


def test_the_answer_is_that_of_its_network(model: PackagedModel) -> None:
    for pixels in (BRIGHT, DARK):
        answer = model.predict_pixels(pixels)
        assert answer.positive_score == pytest.approx(expect(pixels), abs=1e-6)
        assert answer.flagged is (answer.positive_score >= THRESHOLD)
        assert answer.probabilities["malignant"] == answer.positive_score
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert (answer.width, answer.height) == (80, 60)
        assert answer.expected_sensitivity == 0.95
        assert answer.box is None
    assert model.predict_pixels(BRIGHT).flagged
    assert not model.predict_pixels(DARK).flagged


def test_every_door_gives_the_same_answer(model: PackagedModel, tmp_path: Path) -> None:
    from PIL import Image

    expected = model.predict_pixels(BRIGHT)
    assert model.predict_pixels(BRIGHT[..., 0]) == expected
    for kind in ("PNG", "BMP", "TIFF"):
        content = encode_image(Image.fromarray(BRIGHT), kind)
        path = tmp_path / f"scan.{kind.lower()}"
        path.write_bytes(content)
        assert model.predict_bytes(content) == expected
        assert model.predict_file(path) == expected
        assert model.predict_file(str(path)) == expected
    assert model.predict_bytes(write_dicom(make_dicom([BRIGHT[..., 0]]))) == expected


def test_an_answer_is_json(model: PackagedModel) -> None:
    record = json.loads(json.dumps(model.predict_pixels(BRIGHT).as_record()))
    assert record["schema_version"] == 2
    assert record["model"] == "tiny"
    assert record["model_version"] == model.version
    assert record["reasons"] == []


def test_a_box_is_looked_at_and_named(tmp_path: Path) -> None:
    model = load_package(write_tiny_package(tmp_path / "package", locates=True))
    scan = draw_scan(3, level=40)
    scan[20:40, 30:60] = 230
    found = model.predict_pixels(scan)
    assert found.box_source == "localizer"
    assert found.box is not None
    assert found.box.measure_iou(Window(30, 20, 60, 40)) > 0.6
    assert found.confidence == pytest.approx(230 / 255, abs=0.1)
    drawn = model.predict_pixels(scan, (0, 0, 20, 15))
    assert drawn.box == Window(0, 0, 20, 15)
    assert drawn.box_source == "reader"
    assert drawn.confidence is None
    assert drawn.positive_score < found.positive_score
    assert model.predict_pixels(scan, ["0", " 0", "20", "15.0"]) == drawn


def limit(**changes: Any) -> dict[str, Any]:
    return {"limits": ANYTHING._replace(**changes)}


QUALITY = measure_quality(BRIGHT)
LOWEST, HIGHEST = ANYTHING.lowest, ANYTHING.highest
REFERRED = {
    "out_of_distribution": limit(distance=0.0),
    "turned": limit(turned=-1e9),
    "near_threshold": limit(near_threshold=99.0),
    "poor_quality": limit(lowest=LOWEST._replace(detail=QUALITY.detail * 1.01)),
    "noise": limit(highest=HIGHEST._replace(detail=QUALITY.detail * 0.99)),
    "seen_in_training": {"training_pixels": frozenset([hash_pixels(BRIGHT)])},
}


@pytest.mark.parametrize("reason", REFERRED)
def test_an_image_is_referred_for_one_reason(reason: str, tmp_path: Path) -> None:
    model = load_package(write_tiny_package(tmp_path / "package", **REFERRED[reason]))
    answer = model.predict_pixels(BRIGHT)
    assert answer.reasons == (reason,)
    assert answer.refer
    assert answer.flagged, "the flag stands beside it"


def test_colour_and_small_images_are_referred(tmp_path: Path) -> None:
    own = limit(lowest=Quality(60, 0, 0, 0, 0), highest=Quality(1e9, 1e9, 1e9, 0.01, 255))
    model = load_package(write_tiny_package(tmp_path / "package", **own))
    assert model.predict_pixels(BRIGHT).reasons == ()
    assert model.predict_pixels(BRIGHT[:59]).reasons == ("poor_quality",)
    doppler = BRIGHT.copy()
    doppler[:10, :10] = (220, 30, 30)
    assert model.predict_pixels(doppler).reasons == ("colour",)


def test_no_lesion_is_a_reason_only_where_one_was_looked_for(tmp_path: Path) -> None:
    own = limit(min_confidence=0.99)
    model = load_package(write_tiny_package(tmp_path / "package", locates=True, **own))
    assert model.predict_pixels(DARK).reasons == ("no_lesion_found",)
    assert model.predict_pixels(DARK, (5, 5, 30, 30)).reasons == ()
    whole = load_package(write_tiny_package(tmp_path / "whole", **own))
    assert whole.predict_pixels(DARK).reasons == ()


def test_an_answer_that_is_no_number_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: every comparison with NaN is false: not flagged, not referred."""
    model = load_package(folder)
    silent = model.networks.classify(np.zeros((1, 16, 16, 3), np.uint8))
    broken = {name: np.full_like(a, np.nan, dtype=np.float32) for name, a in silent.items()}
    monkeypatch.setattr(model.networks, "classify", lambda shown: broken)
    with pytest.raises(UnusableImageError, match="gave no number"):
        model.predict_pixels(BRIGHT)


def test_reasons_are_written_for_people() -> None:
    for code, words in REASONS.items():
        assert code.replace("_", "").isalpha()
        assert words[0].islower()
        assert not words.endswith(".")


def test_the_margin_is_in_logits() -> None:
    assert measure_margin(0.3, 0.3) == 0
    assert measure_margin(0.5, 0.25) == pytest.approx(np.log(3))
    assert np.isfinite(measure_margin(0.0, 1.0))


BOXES: dict[str, tuple[Any, str]] = {
    "turned": ((50, 10, 20, 40), "got 50, 10, 20, 40"),
    "empty": ((10, 10, 10, 40), "got 10, 10, 10, 40"),
    "beyond": ((10, 10, 81, 40), "80 x 60; got 10, 10, 81, 40"),
    "negative": ((-1, 10, 30, 40), "got -1, 10, 30, 40"),
    "three edges": ((1, 2, 3), "left, top, right and bottom"),
    "five edges": ((1, 2, 3, 4, 5), "left, top, right and bottom"),
    "not a number": ((1, 2, float("nan"), 4), "left, top, right and bottom"),
    "words": (("a", "b", "c", "d"), "left, top, right and bottom"),
    "a number": (7, "left, top, right and bottom"),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_wrong_box_is_refused_in_one_line(name: str, model: PackagedModel) -> None:
    box, reason = BOXES[name]
    with pytest.raises(UnusableImageError, match=reason) as caught:
        model.predict_pixels(BRIGHT, box)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(model: PackagedModel, tmp_path: Path) -> None:
    with pytest.raises(UnusableImageError, match="cannot be read: No such file"):
        model.predict_file(tmp_path / "absent.png")
    with pytest.raises(UnusableImageError, match="cannot be read: Is a directory"):
        model.predict_file(tmp_path)


# Damaged packages

DAMAGED: dict[str, tuple[str, Any, str]] = {
    "no network": ("classifier.onnx", None, "classifier.onnx is missing"),
    "another network": ("classifier.onnx", b"x", "not the file that package.json"),
    "another reference": ("reference.npz", b"x", "not the file that package.json"),
    "another card": ("model_card.md", b"x", "not the file that package.json"),
    "no list": ("package.json", None, "no packaged model in"),
    "cut list": ("package.json", b'{"schema', "is damaged"),
    "empty list": ("package.json", b"", "is damaged"),
    "a list of lists": ("package.json", b"[]", "is damaged"),
    "no text": ("package.json", b"\xff\xfe\x00", "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_package_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file, content, reason = DAMAGED[name]
    folder = write_tiny_package(tmp_path / "package")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(BadInputError, match=reason) as caught:
        load_package(folder)
    assert "\n" not in str(caught.value)


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "an older schema": ({"schema_version": 0}, "has schema 0, and this version"),
    "a newer schema": ({"schema_version": 3}, "has schema 3"),
    "no schema": ({"schema_version": None}, "is damaged"),
    "no threshold": ({"threshold": None}, "is damaged"),
    "no files": ({"files": {}}, "is damaged"),
    "a file elsewhere": (
        {
            "files": {
                "classifier.onnx": "",
                "reference.npz": "",
                "tested.csv": "",
                "training_pixels.txt": "",
                "../x": "",
            }
        },
        "names a file outside its folder|not the file that",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_package_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    changes, reason = CHANGED[name]
    folder = write_tiny_package(tmp_path / "package")
    change_package_file(folder, **changes)
    with pytest.raises(BadInputError, match=reason) as caught:
        load_package(folder)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_package(tmp_path / "package")
    (folder / "classifier.onnx").write_bytes(b"no network")
    described = json.loads((folder / "package.json").read_text())
    own = {"classifier.onnx": hashlib.sha256(b"no network").hexdigest()}
    change_package_file(folder, files=described["files"] | own)
    with pytest.raises(BadInputError, match="no ONNX model that can be used") as caught:
        load_package(folder)
    assert "\n" not in str(caught.value)


def test_a_package_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = write_tiny_package(tmp_path / "package", locates=True)
    first = load_package(folder).version
    (tmp_path / "package.unfinished").mkdir()
    (tmp_path / "package.unfinished" / "left behind").write_text("of a run that was killed")
    write_tiny_package(folder, card="# Another\n")
    assert load_package(folder).version != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package"]
    assert not (folder / "localizer.onnx").exists()


# Which package


def test_the_only_package_is_found_others_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no packaged model in .*package_<experiment>"):
        find_package(tmp_path)
    one = write_tiny_package(tmp_path / "one" / "package")
    assert find_package(tmp_path) == one
    two = write_tiny_package(tmp_path / "two" / "package")
    with pytest.raises(BadInputError, match=r"several packaged models, .*: name one of one, two"):
        find_package(tmp_path)
    assert find_package(tmp_path, "two") == two
    assert find_package(tmp_path, str(one)) == one
    with pytest.raises(BadInputError, match=r"no packaged model 'three'.*one, two"):
        find_package(tmp_path, "three")


def test_neither_tensorflow_nor_kedro_is_needed(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    scan = tmp_path / "scan.png"
    Image.fromarray(BRIGHT).save(scan)
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'kedro', 'mlflow', 'sklearn', 'onnx', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['x', 'predict', {str(scan)!r}, '--model', {str(folder)!r}, '--json',\n"
        f"    '--overlay', {str(tmp_path / 'seen.png')!r}]\n"
        "import runpy\n"
        "runpy.run_module('busi_pipeline', run_name='__main__')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    answer = json.loads(finished.stdout)
    assert answer["error"] is None
    assert answer["positive_score"] == pytest.approx(expect(BRIGHT), abs=1e-6)
    assert Image.open(tmp_path / "seen.png").size == BRIGHT.shape[1::-1]
