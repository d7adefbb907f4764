"""A folder of exported networks holds what was exported last, and nothing else."""

from pathlib import Path

import pytest
from kedro.io import DatasetError

from busi_pipeline.datasets.package import ExportedNetworksDataset
from busi_pipeline.models.exporting import ExportedNetworks

ALL = ExportedNetworks(
    {"single": b"s", "half": b"h", "int8": b"i"},
    b"l",
    {"classifier": b"phone", "localizer": b"phone, too"},
)


def test_files_come_back_and_those_of_an_earlier_export_go(tmp_path: Path) -> None:
    dataset = ExportedNetworksDataset(path=str(tmp_path / "export"))
    with pytest.raises(DatasetError, match="package the model first"):
        dataset.load()
    dataset.save(ALL)
    assert dataset.load() == ALL
    named = {file.name for file in (tmp_path / "export").iterdir()}
    assert {"single.onnx", "localizer.onnx", "classifier.tflite", "localizer.tflite"} < named
    fewer = ExportedNetworks({"single": b"other"}, None)
    dataset.save(fewer)
    assert dataset.load() == fewer
