"""A file that this Keras cannot read, or that holds code, is one line."""

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.keras_files import load_keras_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    images = keras.Input((4,))
    model = keras.Model(images, keras.layers.Dense(2, name="last")(images))
    model.save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def change(file: Path, member: str, **values: Any) -> None:
    """Set values in a JSON file of the archive; `layer` is those of the last layer."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    described = json.loads(contents[member])
    layer = values.pop("layer", {})
    described.update(values)
    if layer:
        described["config"]["layers"][-1].update(layer)
    contents[member] = json.dumps(described).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def refuse(file: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        load_keras_file(file)
    message = str(caught.value)
    assert message.startswith(f"{file} cannot be read by Keras {version('keras')}")
    assert "\n" not in message
    return message


def test_a_file_of_a_later_keras_is_named_with_its_version(file: Path) -> None:
    change(file, "metadata.json", keras_version="9.1.0")
    change(file, "config.json", layer={"class_name": "NotYetThere"})
    assert "Keras 9.1.0 wrote it" in refuse(file)


def test_settings_that_this_keras_does_not_know_are_refused(file: Path) -> None:
    config = {"name": "last", "units": 2, "not_yet_there": 1}
    change(file, "config.json", layer={"config": config})
    refuse(file)


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    images = keras.Input((4,))
    code = keras.layers.Lambda(lambda values: values + 1, output_shape=(4,))
    keras.Model(images, code(images)).save(tmp_path / "m.keras")
    assert "Lambda" in refuse(tmp_path / "m.keras")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all"])
def test_what_is_no_keras_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.keras").write_bytes(content)
    refuse(tmp_path / "m.keras")
