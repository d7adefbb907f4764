"""The catalog's own types: what is saved comes back, and half-written things do not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from busi_pipeline.caching.arrays import ArrayStream
from busi_pipeline.datasets import array_store
from busi_pipeline.datasets.array_store import ArrayStoreDataset
from busi_pipeline.datasets.keras_model import (
    DeliveredModel,
    DeliveredModelDataset,
    KerasModelDataset,
)
from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.datasets.record import RunRecordDataset
from busi_pipeline.errors import BadInputError, find_bad_input
from tests.conftest import CLASSES, _close_mlflow


@pytest.fixture
def tracked(tmp_path: Path):
    """An MLflow store of the test's own, with a run open."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("test", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("test")
    with mlflow.start_run() as run:
        yield run
    _close_mlflow()


class Squares:
    """Rows [n, n * n] under the keys `n`; remembers which were asked for."""

    def __init__(self, folder: Path, chunk: int = 2):
        self.folder, self.chunk = folder, chunk
        self.computed: list[int] = []
        self.breaks_after: int | None = None

    def dataset(self, name: str) -> ArrayStoreDataset:
        return ArrayStoreDataset(str(self.folder / name), str(self.folder / "pool"))

    def stream(self, numbers: list[int], recipe: str = "squares") -> ArrayStream:
        def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
            for start in range(0, len(positions), self.chunk):
                part = [numbers[position] for position in positions[start : start + self.chunk]]
                if self.breaks_after is not None and len(self.computed) >= self.breaks_after:
                    raise RuntimeError("power cut")
                self.computed += part
                yield np.array([[n, n * n] for n in part], dtype=np.float16)

        return ArrayStream(
            pd.DataFrame({"image_id": [f"{n:03d}" for n in numbers]}),
            [str(n) for n in numbers],
            {"made": recipe},
            "float16",
            compute,
            {"note": "kept"},
        )


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    return Squares(tmp_path)


def test_array_comes_back_with_its_index(squares: Squares) -> None:
    dataset = squares.dataset("a")
    dataset.save(squares.stream([3, 1, 2]))
    stored = dataset.load()
    np.testing.assert_array_equal(stored.values[[0, 1, 2]], [[3, 9], [1, 1], [2, 4]])
    np.testing.assert_array_equal(stored.values[2], [2, 4])
    assert (len(stored.values), stored.values.shape, stored.values.dtype) == (3, (3, 2), np.float16)
    assert list(stored.index["image_id"]) == ["003", "001", "002"]
    assert list(stored.index.columns) == ["image_id"]
    assert list(stored.keys) == ["3", "1", "2"]
    assert stored.recipe == {"made": "squares"}
    assert stored.attributes["note"] == "kept"
    np.testing.assert_array_equal(stored.find_rows(["002", "003"]), [2, 0])
    with pytest.raises(KeyError, match="'xyz' is in the split but not"):
        stored.find_rows(["002", "xyz"])


def test_rows_are_computed_once_and_shared(squares: Squares) -> None:
    squares.dataset("a").save(squares.stream([1, 2, 3]))
    squares.dataset("b").save(squares.stream([4, 3, 3, 5, 4]))
    assert squares.computed == [1, 2, 3, 4, 5]
    values = squares.dataset("b").load().values
    np.testing.assert_array_equal(values[range(5)][:, 1], [16, 9, 9, 25, 16])
    squares.dataset("a").save(squares.stream([1, 2, 3]))
    assert squares.computed == [1, 2, 3, 4, 5]
    assert squares.dataset("a").load().attributes["computed"] == 0


def test_rows_of_another_recipe_are_other_rows(squares: Squares) -> None:
    squares.dataset("a").save(squares.stream([1, 2]))
    squares.dataset("a").save(squares.stream([1, 2], recipe="something else"))
    assert squares.computed == [1, 2, 1, 2]


@pytest.mark.parametrize("surplus", [-1, 1])
def test_array_of_wrong_length_is_refused_and_the_old_one_stays(
    squares: Squares, surplus: int
) -> None:
    dataset = squares.dataset("a")
    dataset.save(squares.stream([7]))
    wrong = replace(
        squares.stream([1, 2, 3]), compute=lambda _: [np.zeros((3 + surplus, 2), np.float16)]
    )
    with pytest.raises(DatasetError, match="rows came"):
        dataset.save(wrong)
    np.testing.assert_array_equal(dataset.load().values[0], [7, 49])


def test_interrupted_array_leaves_nothing_to_load_and_goes_on_where_it_was(
    squares: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_store, "_BYTES_A_PART", 8)  # two rows
    squares.breaks_after = 4
    dataset = squares.dataset("a")
    with pytest.raises(DatasetError, match="power cut"):
        dataset.save(squares.stream([1, 2, 3, 4, 5, 6]))
    assert not dataset.exists()
    squares.breaks_after = None
    dataset.save(squares.stream([1, 2, 3, 4, 5, 6]))
    assert squares.computed == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(dataset.load().values[range(6)][:, 0], [1, 2, 3, 4, 5, 6])


def test_a_part_without_its_keys_does_not_count(squares: Squares) -> None:
    squares.dataset("a").save(squares.stream([1, 2]))
    for listing in squares.folder.glob("pool/*/*.keys.npy"):
        listing.unlink()
    with pytest.raises(DatasetError, match=r"2 rows of .* run the stage that writes them again"):
        squares.dataset("a").load()
    squares.dataset("a").save(squares.stream([1, 2]))
    assert squares.computed == [1, 2, 1, 2]


@pytest.mark.parametrize("make_empty", [True, False])
def test_missing_data_says_how_to_get_it(tmp_path: Path, make_empty: bool) -> None:
    folder = tmp_path / "BUSI"
    if make_empty:
        folder.mkdir()
    with pytest.raises(DatasetError) as caught:
        RawImagesDataset(str(folder)).load()
    error = find_bad_input(caught.value)
    assert isinstance(error, BadInputError)
    for part in (str(folder), "empty" if make_empty else "missing", "Al-Dhabyani", "BUSI_RAW_DIR"):
        assert part in str(error)


def test_raw_images_are_listed_in_order_and_read_when_asked(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    files = RawImagesDataset(str(tmp_path)).load()
    assert list(files) == ["a/1.png", "b/2.png"]
    assert files["b/2.png"]() == b"b/2.png"


RECORD = {
    "head": {"loss": [3.0, 2.0]},
    "test": {"accuracy": 0.5},
    "flag": True,
    "device": "CPU",
}


def test_record_is_logged_as_metrics_and_curves(tmp_path: Path, tracked: mlflow.ActiveRun) -> None:
    path = tmp_path / "r.json"
    dataset = RunRecordDataset(filepath=str(path), log_as="metrics", not_logged=["published"])
    record = RECORD | {"published": {"accuracy": 0.7}}
    dataset.save(record)
    assert dataset.load() == json.loads(path.read_text()) == record
    client = mlflow.MlflowClient()
    assert client.get_run(tracked.info.run_id).data.metrics == {
        "head.loss": 2.0,
        "test.accuracy": 0.5,
    }
    curve = client.get_metric_history(tracked.info.run_id, "head.loss")
    assert [(m.step, m.value) for m in curve] == [(1, 3.0), (2, 2.0)]


@pytest.mark.parametrize(("experiments", "key"), [("vgg16", "a"), ("resnet50,vgg16", "vgg16.a")])
def test_keys_carry_the_experiment_in_runs_over_several(
    tmp_path: Path, tracked: mlflow.ActiveRun, experiments: str, key: str
) -> None:
    mlflow.set_tag("experiments", experiments)
    RunRecordDataset(filepath=str(tmp_path / "r.json"), log_as="metrics", experiment="vgg16").save(
        {"a": 1.0}
    )
    assert set(mlflow.get_run(tracked.info.run_id).data.metrics) == {key}


def test_record_may_be_optional(tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    assert RunRecordDataset(filepath=path, log_as="tags", optional=True).load() is None
    with pytest.raises(DatasetError):
        RunRecordDataset(filepath=path, log_as="tags").load()
    with pytest.raises(ValueError, match="'metrics' or 'tags'"):
        RunRecordDataset(filepath=path, log_as="params")


@pytest.fixture
def model() -> keras.Model:
    images = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled))


def test_model_file_and_logged_model_predict_alike(
    tmp_path: Path, tracked: mlflow.ActiveRun, model: keras.Model, rng: np.random.Generator
) -> None:
    path = str(tmp_path / "m.keras")
    dataset = DeliveredModelDataset(filepath=path, name="vgg16", classes=CLASSES)
    dataset.save(DeliveredModel(model, {"threshold": 0.07}))
    pictures = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(dataset.load().predict(pictures, verbose=0), expected, atol=1e-6)
    (logged,) = mlflow.search_logged_models(output_format="list")
    served = mlflow.pyfunc.load_model(logged.model_uri)
    np.testing.assert_allclose(served.predict(pictures), expected, atol=1e-6)
    assert served.metadata.metadata == {"classes": CLASSES, "threshold": 0.07}
    assert served.metadata.signature.inputs.inputs[0].type == np.dtype("uint8")
    assert served.metadata.get_input_schema() is not None
    requirements = mlflow.pyfunc.get_model_dependencies(logged.model_uri)
    assert f"keras=={keras.__version__}" in Path(requirements).read_text()
    with pytest.raises(mlflow.MlflowException):
        served.predict(pictures.astype(np.float64))


def test_model_files_and_names_that_would_not_load_again_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        KerasModelDataset(filepath=str(tmp_path / "m.h5"))
    with pytest.raises(ValueError, match="no dot or slash"):
        DeliveredModelDataset(filepath=str(tmp_path / "m.keras"), name="a.b", classes=CLASSES)
    with pytest.raises(DatasetError, match="train the experiment first"):
        KerasModelDataset(filepath=str(tmp_path / "m.keras")).load()
