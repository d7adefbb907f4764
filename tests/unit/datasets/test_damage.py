"""A file that can no longer be read is known as such, and a whole one is not."""

import json
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from busi_pipeline.datasets.damage import find_damage

KINDS = (".json", ".keras", ".parquet", ".png")


def write(folder: Path, kind: str) -> Path:
    path = folder / f"file{kind}"
    if kind == ".json":
        path.write_text(json.dumps({"a": list(range(100))}))
    elif kind == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights", bytes(range(256)) * 10)
    elif kind == ".parquet":
        pd.DataFrame({"a": range(100)}).to_parquet(path)
    else:
        figure = plt.figure()
        figure.savefig(path)
        plt.close(figure)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_whole(tmp_path: Path, kind: str) -> None:
    assert find_damage(write(tmp_path, kind)) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.99])
def test_a_cut_file_is_damaged(tmp_path: Path, kind: str, left: float) -> None:
    path = write(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: left if left == 1 else int(left * len(content))])
    assert find_damage(path)


def test_a_flipped_bit_of_a_network_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, ".keras")
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    assert find_damage(path) == "weights in it is broken"


def test_a_file_that_cannot_be_opened_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, ".json")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert find_damage(path) == ""


def test_every_flipped_bit_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "small.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w", b"weights")
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert "\n" not in find_damage(path)


def test_an_empty_table_is_damaged_and_an_empty_text_is_not(tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt"):
        (tmp_path / name).touch()
    assert find_damage(tmp_path / "a.csv") == "it is empty"
    assert find_damage(tmp_path / "a.txt") == ""
    assert find_damage(tmp_path / "none.json") == ""
    (tmp_path / "a.csv").write_text("a,b\n")
    assert find_damage(tmp_path / "a.csv") == ""
