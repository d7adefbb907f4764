"""Pretrained weights: the file is named and hashed, and never silently replaced by random ones."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kedro.io import DatasetError

from busi_pipeline.datasets.pretrained_weights import PretrainedWeightsDataset, WeightsSource
from busi_pipeline.errors import BadInputError, find_bad_input
from busi_pipeline.models.backbones import BACKBONES


def test_a_file_of_the_folder_is_named_and_hashed(tmp_path: Path) -> None:
    file = tmp_path / "vgg16_notop.weights.h5"
    file.write_bytes(b"weights")
    chosen = PretrainedWeightsDataset(str(tmp_path)).load().choose("vgg16", "directory")
    assert chosen.argument == str(file)
    assert chosen.tags == {
        "weights": "directory",
        "weights_file": file.name,
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
    }


def test_damaged_file_is_found_before_a_network_is_built(tmp_path: Path) -> None:
    whole, cut = tmp_path / "vgg16_notop.weights.h5", tmp_path / "resnet50_notop.weights.h5"
    with h5py.File(whole, "w") as file:
        file["layer/weights"] = np.arange(100_000)
    cut.write_bytes(whole.read_bytes()[:-200_000])
    source = WeightsSource(str(tmp_path))
    source.check("vgg16", "directory")
    source.check("vgg16", "none")
    with pytest.raises(BadInputError, match="is damaged, or no HDF5 file") as caught:
        source.check("resnet50", "directory")
    assert str(cut) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    path = tmp_path / "vgg16_notop.weights.h5"
    weights = np.ones((3, 3), np.float32)
    weights[1, 1] = value
    with h5py.File(path, "w") as file:
        file["layer/weights"] = weights
    with pytest.raises(BadInputError, match=r"layer/weights in .* no numbers"):
        WeightsSource(str(tmp_path)).check("vgg16", "directory")


def test_weights_are_looked_for_once(tmp_path: Path) -> None:
    file = tmp_path / "vgg16_notop.weights.h5"
    file.write_bytes(b"weights")
    dataset = PretrainedWeightsDataset(str(tmp_path))
    first = dataset.load().choose("vgg16", "directory")
    file.unlink()
    assert dataset.load().choose("vgg16", "directory") is first


def test_random_weights_are_those_asked_for() -> None:
    chosen = WeightsSource(None).choose("vgg16", "none")
    assert chosen.argument is None
    assert set(chosen.tags.values()) == {"none"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "BUSI_WEIGHTS_DIR is not set"),
        (str, r"vgg16_notop\.weights\.h5 is missing; the folder holds \['other.h5'\]"),
    ],
)
def test_missing_weights_name_the_choices(
    tmp_path: Path, make: Callable[[Path], str | None], message: str
) -> None:
    (tmp_path / "other.h5").write_bytes(b"")
    with pytest.raises(BadInputError, match=message) as caught:
        WeightsSource(make(tmp_path)).choose("vgg16", "directory")
    for choice in ("'imagenet'", "'directory'", "'none'"):
        assert choice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        PretrainedWeightsDataset(str(tmp_path / "nowhere")).load()
    assert "is no folder" in str(find_bad_input(caught.value))


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' folder of models, empty, and builders that load nothing."""
    import keras

    for preset in BACKBONES.values():
        monkeypatch.setattr(keras.applications, preset.builder, lambda **_: None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_download_without_top_is_the_one_hashed(keras_home: Path, backbone: str) -> None:
    """Whoever also has the file with Keras' own top gets the hash of the one that is loaded."""
    begin = BACKBONES[backbone].imagenet_file
    (keras_home / f"{begin}.h5").write_bytes(b"with top")
    (keras_home / f"{begin}_notop.h5").write_bytes(b"without")
    chosen = WeightsSource(None).choose(backbone, "imagenet")
    assert chosen.tags["weights_file"] == f"{begin}_notop.h5"
    assert chosen.tags["weights_sha256"] == hashlib.sha256(b"without").hexdigest()


@pytest.mark.usefixtures("keras_home")
def test_a_download_that_lies_elsewhere_is_named() -> None:
    with pytest.raises(BadInputError, match="set KERAS_HOME"):
        WeightsSource(None).choose("vgg16", "imagenet")


@pytest.mark.usefixtures("keras_home")
def test_a_failed_download_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def fail(**_: Any) -> None:
        raise OSError("no route to host\nmore lines")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(BadInputError, match=r"\(no route to host\)\. Choices") as caught:
        WeightsSource(None).choose("vgg16", "imagenet")
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_never_written() -> None:
    with pytest.raises(DatasetError, match="read-only"):
        PretrainedWeightsDataset().save(b"weights")  # type: ignore[arg-type]
