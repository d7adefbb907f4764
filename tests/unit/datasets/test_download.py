"""The download: what Kaggle sends ends up where the project looks for it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from busi_pipeline.download import FOLDER, KAGGLE_NAME, download_busi, main


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for kagglehub that sends one image; returns the folder that it sends."""
    received = tmp_path / "received"
    image = received / "versions" / FOLDER / "benign" / "benign (1).png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"png")

    def dataset_download(name: str) -> str:
        assert name == KAGGLE_NAME
        return str(received)

    monkeypatch.setitem(
        sys.modules,
        "kagglehub",
        SimpleNamespace(dataset_download=dataset_download),
    )
    return received


@pytest.mark.usefixtures("kaggle")
def test_the_folder_is_copied_once(tmp_path: Path) -> None:
    target = tmp_path / "raw"
    assert (download_busi(target) / "benign" / "benign (1).png").read_bytes() == b"png"
    with pytest.raises(FileExistsError, match="nothing was downloaded"):
        download_busi(target)


def test_something_else_from_kaggle_is_named(kaggle: Path, tmp_path: Path) -> None:
    (kaggle / "versions" / FOLDER).rename(kaggle / "other")
    with pytest.raises(FileNotFoundError, match=FOLDER):
        download_busi(tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ImportError, match="pip install"):
        download_busi(tmp_path)


def test_the_command_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    monkeypatch.setattr(sys, "argv", ["download", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
