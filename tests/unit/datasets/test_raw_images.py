"""Raw images: read when they are asked for; missing data says how to get it."""

from pathlib import Path

import pytest
from kedro.io import DatasetError

from busi_pipeline.datasets.raw_images import RawImagesDataset
from busi_pipeline.errors import BadInputError, find_bad_input


@pytest.mark.parametrize("is_empty", [True, False])
def test_missing_data_says_how_to_get_it(tmp_path: Path, is_empty: bool) -> None:
    folder = tmp_path / "BUSI"
    if is_empty:
        folder.mkdir()
    with pytest.raises(DatasetError) as caught:
        RawImagesDataset(str(folder)).load()
    error = find_bad_input(caught.value)
    assert isinstance(error, BadInputError)
    for part in (str(folder), "empty" if is_empty else "missing", "Al-Dhabyani", "BUSI_RAW_DIR"):
        assert part in str(error)
    assert "\n" not in str(error)


def test_files_are_listed_in_order_and_read_when_asked(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    files = RawImagesDataset(str(tmp_path)).load()
    assert list(files) == ["a/1.png", "b/2.png"]
    (tmp_path / "b/2.png").write_bytes(b"changed since")
    assert files["b/2.png"]() == b"changed since"


def test_raw_images_are_never_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"raw")
    with pytest.raises(DatasetError, match="read-only"):
        RawImagesDataset(str(tmp_path)).save({"a.png": b"other"})
    assert (tmp_path / "a.png").read_bytes() == b"raw"
