"""A folder of DICOM files through ingestion and split: nothing that is written names a patient."""

from pathlib import Path

import numpy as np
import pytest

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
