"""Models of the catalog: file, folder and logged model predict alike, the flag among it."""

import hashlib
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from kedro.io import DatasetError

from busi_pipeline.datasets.keras_model import DeliveredModelDataset, KerasModelDataset
from busi_pipeline.errors import BadInputError, find_bad_input
from busi_pipeline.models.delivered import DeliveredModel, load_delivered_model
from busi_pipeline.models.wrappers import add_flag
from tests.factories import CLASSES


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A model of three classes with random weights."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled))


@pytest.fixture(scope="module")
def delivered(model: keras.Model) -> DeliveredModel:
    description = {
        "title": "T",
        "image_size": 8,
        "classes": list(CLASSES.names),
        "positive_classes": list(CLASSES.positive),
        "threshold": 0.3,
    }
    return DeliveredModel(add_flag(model, [1], 0.3), description, frozenset({"aa", "bb"}))


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def test_a_model_file_comes_back(tmp_path: Path, model: keras.Model, pictures: np.ndarray) -> None:
    dataset = KerasModelDataset(filepath=str(tmp_path / "models" / "m.keras"))
    dataset.save(model)
    loaded = dataset.load()
    np.testing.assert_allclose(
        loaded.predict_on_batch(pictures), model.predict_on_batch(pictures), atol=1e-6
    )
    assert dataset.load() is loaded, "read once for the nodes of a run"


def test_a_model_file_that_changed_is_read_again(
    tmp_path: Path, model: keras.Model, pictures: np.ndarray
) -> None:
    dataset = KerasModelDataset(filepath=str(tmp_path / "m.keras"))
    dataset.save(model)
    before = dataset.load()
    other = keras.models.clone_model(model)  # with new random weights
    dataset.save(other)
    np.testing.assert_allclose(
        dataset.load().predict_on_batch(pictures), other.predict_on_batch(pictures), atol=1e-6
    )
    assert dataset.load() is not before


def test_names_that_would_not_load_again_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        KerasModelDataset(filepath=str(tmp_path / "m.h5"))
    with pytest.raises(ValueError, match="no dot or slash"):
        DeliveredModelDataset(path=str(tmp_path), name="a.b")


def test_a_model_that_was_not_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="train the experiment first"):
        KerasModelDataset(filepath=str(tmp_path / "m.keras")).load()
    dataset = DeliveredModelDataset(path=str(tmp_path / "none"), name="a")
    assert not dataset.exists()
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    assert "no delivered model" in str(find_bad_input(caught.value))


def test_a_delivered_model_is_a_folder(
    tmp_path: Path, delivered: DeliveredModel, pictures: np.ndarray
) -> None:
    dataset = DeliveredModelDataset(path=str(tmp_path / "vgg16"), name="vgg16")
    dataset.save(delivered)
    assert {path.name for path in (tmp_path / "vgg16").iterdir()} == {
        "model.keras",
        "description.json",
        "training_pixels.txt",
    }
    loaded = dataset.load()
    content = (tmp_path / "vgg16/model.keras").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert loaded.description == delivered.description | {"model_sha256": sha256}
    assert loaded.training_pixels == delivered.training_pixels == {"aa", "bb"}
    assert loaded.predict_pixels(pictures[0]) == delivered.predict_pixels(pictures[0])


def test_a_model_of_another_run_is_refused(
    tmp_path: Path, model: keras.Model, delivered: DeliveredModel
) -> None:
    dataset = DeliveredModelDataset(path=str(tmp_path), name="vgg16")
    dataset.save(delivered)
    model.save(tmp_path / "model.keras")
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    error = find_bad_input(caught.value)
    assert isinstance(error, BadInputError)
    assert "is not the model that description.json beside it describes" in str(error)


def test_the_logged_model_answers_with_the_flag(
    tmp_path: Path,
    tracked: mlflow.ActiveRun,
    delivered: DeliveredModel,
    pictures: np.ndarray,
) -> None:
    DeliveredModelDataset(path=str(tmp_path / "vgg16"), name="vgg16").save(delivered)
    (logged,) = mlflow.search_logged_models(output_format="list")
    assert (logged.name, logged.source_run_id) == ("vgg16", tracked.info.run_id)
    served = mlflow.pyfunc.load_model(logged.model_uri)
    answer = served.predict(pictures)
    expected = delivered.model.predict_on_batch(pictures)
    assert set(answer) == {"probabilities", "positive_score", "flagged"}
    for name, values in expected.items():
        np.testing.assert_allclose(answer[name], values, atol=1e-6)
    assert np.asarray(answer["flagged"]).dtype == bool
    run = {"mlflow_run_id": tracked.info.run_id}
    assert served.metadata.metadata == delivered.description | run
    assert load_delivered_model(tmp_path / "vgg16").description.items() >= run.items()
    names = [column.name for column in served.metadata.signature.outputs.inputs]
    assert names == ["probabilities", "positive_score", "flagged"]
    with pytest.raises(mlflow.MlflowException):
        served.predict(pictures.astype(np.float64))


def test_the_logged_model_pins_its_requirements(
    tmp_path: Path, tracked: mlflow.ActiveRun, delivered: DeliveredModel
) -> None:
    """It is logged to the run that was set, which may have ended, and leaves no run open."""
    dataset = DeliveredModelDataset(path=str(tmp_path / "vgg16"), name="vgg16")
    dataset.run_id = tracked.info.run_id
    mlflow.end_run()
    dataset.save(delivered)
    assert mlflow.active_run() is None
    assert mlflow.get_run(tracked.info.run_id).info.status == "FINISHED"
    (logged,) = mlflow.search_logged_models(output_format="list")
    requirements = mlflow.pyfunc.get_model_dependencies(logged.model_uri)
    assert f"keras=={keras.__version__}" in Path(requirements).read_text()
    example = mlflow.pyfunc.load_model(logged.model_uri).input_example
    assert not np.asarray(example).any(), "no patient's picture leaves with a model"


@pytest.mark.usefixtures("tracked")
def test_untracked_pipelines_log_no_model(tmp_path: Path, delivered: DeliveredModel) -> None:
    dataset = DeliveredModelDataset(path=str(tmp_path / "vgg16"), name="vgg16")
    dataset._logging_activated = False  # as kedro-mlflow does
    dataset.save(delivered)
    assert not mlflow.search_logged_models(output_format="list")
    assert dataset.exists()
