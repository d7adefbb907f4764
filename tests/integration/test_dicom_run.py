"""A folder of DICOM files through ingestion and split: nothing that is written names a patient."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.models.packaged import load_package
from busi_pipeline.synthetic import simulate_scan
from tests.dicom_factories import SECRETS, make_dicom, write_dicom
from tests.integration.projects import (
    RAW,
    create_project,
    find_runs,
    hide_machine,
    read_table,
    run_pipeline,
)
from tests.package_factories import draw_scan, write_tiny_package

COUNT = 12


def test_no_file_and_no_record_of_a_run_names_a_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"classes": ["benign", "malignant"]}
    with hide_machine():
        project = create_project(tmp_path / "project", {"benign": 0, "malignant": 0}, two)
        for label in two["classes"]:
            for n in range(COUNT):
                pixels = simulate_scan(
                    label, 120, 150, np.random.default_rng([n, len(label)])
                ).image
                place = ("benign", "malignant").index(label)
                named = {
                    "SOPInstanceUID": f"1.2.3.{place}.{n}",
                    "PatientID": f"PID-4711-{n // 2}",
                    "PatientName": f"DOE^JANE^{label}",
                }
                (project / RAW / label / f"{n}.dcm").write_bytes(
                    write_dicom(make_dicom([pixels], **named))
                )
        monkeypatch.setenv("BUSI_PSEUDONYM_KEY", "a key of the tests alone")
        run_pipeline(project, "splitting")
        manifest = read_table(project / "data/02_intermediate/manifest.csv")
        assert len(manifest) == 2 * COUNT
        assert manifest["patient"].nunique() == COUNT // 2, "pseudonyms tell patients apart"
        (run,) = find_runs(project)
        assert run.info.status == "FINISHED"
    written = [
        path
        for path in project.rglob("*")
        if path.is_file() and not path.is_relative_to(project / RAW)
    ]
    assert {"manifest.csv", "mlflow.db"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        for secret in (*SECRETS, "4711"):
            assert secret.encode() not in content, f"{secret} in {path.relative_to(project)}"


def test_a_folder_of_dicom_files_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file, one of several frames, one that is damaged: each has its row; no row names her."""
    scans = tmp_path / "worklist"
    scans.mkdir()
    pictures = [draw_scan(seed)[..., 0] for seed in range(5)]
    whole = write_dicom(make_dicom([pictures[0]], SOPInstanceUID="1.2.3.1"))
    (scans / "one.dcm").write_bytes(whole)
    (scans / "without suffix").write_bytes(
        write_dicom(make_dicom([pictures[1]], SOPInstanceUID="1.2.3.2"))
    )
    (scans / "three.dcm").write_bytes(
        write_dicom(make_dicom(pictures[2:], SOPInstanceUID="1.2.3.3"))
    )
    (scans / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with hide_machine():
        project = create_project(tmp_path / "project", {"benign": 1})
        package = write_tiny_package(project / "data/06_models/tiny/package")
        monkeypatch.setenv("BUSI_PSEUDONYM_KEY", "a key of the tests alone")
        run_pipeline(project, "predict", {"prediction": {"folder": str(scans)}})
    findings = pd.read_parquet(
        project / "data/07_model_output/predictions/worklist/findings.parquet"
    )
    usable = findings[findings["problem"] == ""]
    assert len(usable) == 3, findings[["image", "problem"]].to_numpy().tolist()
    refused = findings.loc[findings["problem"] != "", "problem"].tolist()
    assert refused == ["another DICOM file has the same SOPInstanceUID: this is a copy of it"]
    model = load_package(package)
    expected = {model.predict_file(scans / "one.dcm").positive_score}
    expected |= {model.predict_pixels(pictures[k]).positive_score for k in (1, 3)}
    assert set(usable["positive_score"]) == expected, "of several frames the middle one"
    reports = project / "data/08_reporting/predictions/worklist"
    assert len(list((reports / "overlays").glob("*.png"))) == 6, "each with attribution, too"
    for path in [*reports.rglob("*"), *(project / "data/07_model_output").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], path.name
