"""What a server elsewhere does not get."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from busi_pipeline.tracking.server import is_this_machine
from busi_pipeline.tracking.withholding import (
    CURVES,
    copy_artifacts,
    hide_name,
    hide_places,
    hide_tags,
    may_leave,
    read_key,
)
from tests.factories import PROJECT

KEY = bytes(32)
# Plots that show patients' images.
OF_PATIENTS = {
    "augmentation.png",
    "burned_in_annotations.png",
    "duplicate_pairs.png",
    "gradcam_gallery.png",
    "lesion_boxes.png",
    "misclassified.png",
    "worst_mistakes.png",
}


def list_plots() -> set[str]:
    """Return the file names of all plots in the catalog."""
    found = set()
    for path in (PROJECT / "conf/base").glob("catalog*.yml"):
        for entry in yaml.safe_load(path.read_text()).values():
            for dataset in (entry, entry.get("dataset", {})):
                if isinstance(dataset, dict) and "PlotDataset" in str(dataset.get("type")):
                    found.add(dataset["filepath"].rpartition("/")[2])
    return found


def test_of_each_plot_it_was_decided_whether_it_shows_patients() -> None:
    assert list_plots() - OF_PATIENTS <= CURVES
    assert list_plots() == CURVES | OF_PATIENTS
    assert not CURVES & OF_PATIENTS


def test_pictures_stay_and_names_become_pseudonyms(tmp_path: Path) -> None:
    source = tmp_path / "artifacts"
    (source / "results").mkdir(parents=True)
    for name in ("calibration.png", "gradcam_gallery.png", "report.html", "new_plot.png"):
        (source / "results" / name).write_bytes(b"x")
    (source / "results/metrics.json").write_text("{}")
    table = pd.DataFrame(
        {
            "image_id": ["benign/Erika.png", "benign/b.png"],
            "patient": ["Erika", ""],
            "score": [1, 2],
        }
    )
    table.to_csv(source / "manifest.csv", index=False)
    (source / "empty.csv").touch()
    stays = copy_artifacts(source, tmp_path / "sent", KEY)
    assert stays == ["results/gradcam_gallery.png", "results/new_plot.png", "results/report.html"]
    names = {p.name for p in (tmp_path / "sent").rglob("*") if p.is_file()}
    assert names == {"calibration.png", "metrics.json", "manifest.csv", "empty.csv"}
    sent = pd.read_csv(tmp_path / "sent/manifest.csv", keep_default_na=False)
    assert sent["score"].tolist() == [1, 2]
    assert sent["patient"].tolist() == [hide_name("Erika", KEY), ""]
    assert sent["image_id"].nunique() == 2
    assert "Erika" not in (tmp_path / "sent/manifest.csv").read_text()


def test_pseudonyms_are_of_the_key(tmp_path: Path) -> None:
    key = read_key(tmp_path / "names.key")
    assert read_key(tmp_path / "names.key") == key
    assert (tmp_path / "names.key").stat().st_mode & 0o077 == 0
    assert hide_name("Erika", key) == hide_name("Erika", key)
    assert hide_name("Erika", key) != hide_name("Erika", KEY)


def test_tags_and_parameters_name_no_place_and_no_user() -> None:
    tags = {"mlflow.user": "erika", "mlflow.source.name": "kedro", "a": "/home/erika", "b": "1"}
    assert hide_tags(tags) == {"b": "1"}
    params = {"folder": "~/scans", "share": "\\\\server\\scans", "disk": "C:\\scans", "seed": "42"}
    assert hide_places(params) == dict.fromkeys(("folder", "share", "disk"), "withheld") | {
        "seed": "42"
    }


def test_a_packed_model_stays(tmp_path: Path) -> None:
    assert may_leave(tmp_path)
    (tmp_path / "artifacts/package").mkdir(parents=True)
    (tmp_path / "artifacts/package/tested.csv").touch()
    assert not may_leave(tmp_path)


@pytest.mark.parametrize(
    ("uri", "is_here"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://localhost:5000", True),
        ("http://[::1]:5000", True),
        ("https://mlflow.hospital.example", False),
        ("http://10.0.0.3:5000", False),
        ("http://127.0.0.1.example", False),
    ],
)
def test_a_server_here_is_known_by_its_name(uri: str, is_here: bool) -> None:
    assert is_this_machine(uri) == is_here
