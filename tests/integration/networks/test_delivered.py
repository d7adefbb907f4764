"""A delivered model: the flag first, files decoded as in training, never of two runs."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import decode_image
from busi_pipeline.imaging.resizing import resize_image
from busi_pipeline.models.delivered import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    DeliveredModel,
    load_delivered_model,
    save_delivered_model,
)
from busi_pipeline.models.wrappers import add_flag
from tests.factories import encode_image

SIZE = 16


def make_delivered(threshold: float = 0.012, positive: tuple[int, ...] = (1,)) -> DeliveredModel:
    """Return a model of three classes: the brighter an image, the likelier the second."""
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    brightness = keras.ops.mean(keras.ops.cast(images, "float32"), axis=(1, 2, 3)) / 255
    score = brightness[:, None] * np.array([-2.0, 8.0, 0.0]) + np.array([3.0, -2.0, -3.0])
    model = keras.Model(images, keras.layers.Softmax()(score), name="by_brightness")
    names = ["benign", "malignant", "normal"]
    description = {
        "title": "by brightness",
        "image_size": SIZE,
        "classes": names,
        "positive_classes": [names[position] for position in positive],
        "threshold": threshold,
        "temperature": 1.0,
        "offsets": [0.0, 0.0, 0.0],
    }
    return DeliveredModel(add_flag(model, positive, threshold), description)


def paint(value: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_a_likely_benign_image_above_the_threshold_is_flagged() -> None:
    finding = make_delivered().predict_pixels(paint(60))
    assert max(finding.probabilities, key=finding.probabilities.__getitem__) == "benign"
    assert finding.probabilities["malignant"] == pytest.approx(finding.positive_score)
    assert finding.threshold == 0.012
    assert finding.positive_score > finding.threshold
    assert finding.flagged is True
    assert finding._fields[0] == "flagged", "the decision comes first"
    assert make_delivered(threshold=0.5).predict_pixels(paint(60)).flagged is False


def test_who_draws_a_box_says_that_there_is_a_lesion() -> None:
    plain = make_delivered()
    box = Window(5, 5, 20, 20)
    assert plain.predict_pixels(paint(60), box).probabilities["normal"] > 0
    about = {"threshold_given_lesion": 0.02, "lesion_free_classes": ["normal"]}
    model = plain._replace(description=plain.description | about)
    alone, drawn = model.predict_pixels(paint(60)), model.predict_pixels(paint(60), box)
    assert alone.probabilities == plain.predict_pixels(paint(60)).probabilities
    assert alone.threshold == 0.012
    assert drawn.probabilities["normal"] == 0
    lesions = alone.probabilities["benign"] + alone.probabilities["malignant"]
    assert drawn.positive_score == pytest.approx(alone.positive_score / lesions)
    assert drawn.threshold == 0.02
    assert drawn.flagged is (drawn.positive_score >= 0.02)
    for factor, expected in ((1 + 1e-5, True), (1 + 1e-3, False)):
        threshold = drawn.positive_score * factor
        own = model.description | {"threshold_given_lesion": threshold}
        found = model._replace(description=own).predict_pixels(paint(60), box)
        assert found.flagged is expected, "single precision does not take the flag"


def test_positive_classes_are_summed() -> None:
    finding = make_delivered(positive=(1, 2)).predict_pixels(paint(120))
    expected = finding.probabilities["malignant"] + finding.probabilities["normal"]
    assert finding.positive_score == pytest.approx(expected)
    assert list(finding.probabilities) == ["benign", "malignant", "normal"]
    assert sum(finding.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_pixels_of_any_size_are_resized_as_in_training(rng: np.random.Generator) -> None:
    delivered = make_delivered()
    pixels = rng.integers(0, 256, (37, 61, 3), dtype=np.uint8)
    answer = delivered.model(resize_image(pixels, SIZE)[None])
    found = delivered.predict_pixels(pixels)
    np.testing.assert_allclose(
        list(found.probabilities.values()), np.asarray(answer["probabilities"])[0], atol=1e-6
    )


def test_a_12_bit_file_is_decoded_as_in_training(tmp_path: Path) -> None:
    grey = np.linspace(300, 4000, 40 * 50).reshape(40, 50).astype(np.uint16)
    path = tmp_path / "scan.png"
    path.write_bytes(encode_image(Image.fromarray(grey)))
    decoded = decode_image(path.read_bytes()).pixels
    delivered = make_delivered()
    finding = delivered.predict_file(path)
    assert finding == delivered.predict_pixels(decoded)
    assert decoded.mean() == pytest.approx(grey.mean() / 4095 * 255, abs=1)
    by_pillow = np.asarray(Image.open(path).convert("RGB"))
    other = delivered.predict_pixels(by_pillow)
    assert abs(other.positive_score - finding.positive_score) > 0.2, "white throughout"
    assert delivered.predict_file(str(path)) == finding


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "zero bytes"), (b"no image", "unreadable"), (None, "No such file")],
)
def test_a_file_that_is_no_image_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "scan.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=reason) as caught:
        make_delivered().predict_file(path)
    message = str(caught.value)
    assert str(path) in message
    assert "PNG, JPEG, BMP or TIFF" in message
    assert "\n" not in message


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    delivered = make_delivered()
    save_delivered_model(delivered, tmp_path / "models/resnet50")
    loaded = load_delivered_model(tmp_path / "models/resnet50")
    sha256 = hashlib.sha256((tmp_path / "models/resnet50" / MODEL_FILE).read_bytes()).hexdigest()
    assert loaded.description == delivered.description | {"model_sha256": sha256}
    before, after = (model.predict_pixels(paint(90)) for model in (delivered, loaded))
    assert before._replace(probabilities={}) == after._replace(probabilities={})
    assert before.probabilities == pytest.approx(after.probabilities)


def test_model_and_description_of_two_runs_are_refused(tmp_path: Path) -> None:
    for name, threshold in (("one", 0.1), ("two", 0.2)):
        save_delivered_model(make_delivered(threshold), tmp_path / name)
    (tmp_path / "two" / MODEL_FILE).replace(tmp_path / "one" / MODEL_FILE)
    with pytest.raises(BadInputError, match=r"is not the model that description\.json") as caught:
        load_delivered_model(tmp_path / "one")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", [MODEL_FILE, DESCRIPTION_FILE, "both"])
def test_what_is_missing_in_a_folder_is_named(tmp_path: Path, missing: str) -> None:
    save_delivered_model(make_delivered(), tmp_path)
    names = [MODEL_FILE, DESCRIPTION_FILE] if missing == "both" else [missing]
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(BadInputError, match=f"{' and '.join(names)} missing") as caught:
        load_delivered_model(tmp_path)
    assert "train_<experiment>" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"threshold": 0.1}'])
def test_a_damaged_or_older_description_is_refused(tmp_path: Path, content: str) -> None:
    save_delivered_model(make_delivered(), tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_text(content)
    with pytest.raises(BadInputError, match="damaged or of an older version") as caught:
        load_delivered_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_description_is_readable_json(tmp_path: Path) -> None:
    save_delivered_model(make_delivered(), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    assert described["threshold"] == 0.012
    assert len(described["model_sha256"]) == 64
