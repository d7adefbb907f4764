"""The downloader: what Kaggle sends lands where the project looks for it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from busi_pipeline.download import FOLDER, KAGGLE_NAME, download_busi


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for kagglehub that has one image."""
    received = tmp_path / "cache"
    image = received / FOLDER / "benign" / "benign (1).png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"png")

    def dataset_download(name: str) -> str:
        assert name == KAGGLE_NAME
        return str(received)

    fake = SimpleNamespace(dataset_download=dataset_download)
    monkeypatch.setitem(sys.modules, "kagglehub", fake)
    return received


def test_folder_is_copied_once(kaggle: Path, tmp_path: Path) -> None:
    target = tmp_path / "raw"
    assert (download_busi(target) / "benign" / "benign (1).png").read_bytes() == b"png"
    with pytest.raises(FileExistsError, match="nothing was downloaded"):
        download_busi(target)


def test_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ImportError, match="pip install"):
        download_busi(tmp_path)
