"""What a page says of the run that wrote it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from kedro.io import DatasetError

from busi_pipeline.datasets.optional_record import OptionalRecordDataset
from busi_pipeline.datasets.run_provenance import RunProvenanceDataset


def test_a_run_is_named_by_day_code_and_command(tmp_path: Path) -> None:
    dataset = RunProvenanceDataset(
        project_root=str(tmp_path), environment="demo", params=["split.seed=1"]
    )
    before = datetime.now(UTC).replace(second=0, microsecond=0)
    found = dataset.load()
    written = datetime.strptime(found.pop("date"), "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert before <= written <= datetime.now(UTC)
    assert found == {
        "git_commit": "unknown",
        "environment": "demo",
        "params": ["split.seed=1"],
    }
    assert dataset.exists()


def test_what_a_run_is_no_node_decides(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="read alone"):
        RunProvenanceDataset(project_root=str(tmp_path)).save({})  # type: ignore[arg-type]


def test_a_record_that_is_not_there_is_none(tmp_path: Path) -> None:
    dataset = OptionalRecordDataset(filepath=str(tmp_path / "card.json"))
    assert dataset.load() is None
    dataset.save({"a": 1})
    assert dataset.load() == {"a": 1}
