"""`python -m busi_pipeline predict`: the picture beside the answer."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from busi_pipeline.command_line import predict
from tests.package_factories import draw_scan, write_tiny_package
from tests.privacy_factories import INK, write_name


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A file whose left half is dark and whose right half is bright."""
    halves = np.hstack([draw_scan(1, 60, 40, level=30), draw_scan(2, 60, 40, level=220)])
    Image.fromarray(halves).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def ask(folder: Path, *arguments: str | Path) -> Result:
    package = write_tiny_package(folder / "package", locates=True)
    given = [*map(str, arguments), "--model", str(package)]
    return CliRunner().invoke(predict, given, catch_exceptions=False)


def test_the_overlay_shows_box_and_attribution(scan: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.png"
    result = ask(tmp_path, scan, "--box", "10,10,70,50", "--overlay", seen)
    assert result.exit_code == 0
    assert "by the reader" in result.output
    picture = np.asarray(Image.open(seen)).astype(int)
    assert picture.shape == (60, 80, 3)
    assert tuple(picture[30, 10]) == (0, 114, 178), "the frame, in the colour of readers"
    redness = picture[..., 0] - picture[..., 2]
    assert redness[20:40, 14:34].max() < -20
    assert redness[20:40, 46:66].min() > 20


def test_the_overlay_shows_the_whole_image_with_its_text(tmp_path: Path) -> None:
    named = write_name(draw_scan(3, 120, 160))
    scan, seen = tmp_path / "named.png", tmp_path / "seen.png"
    Image.fromarray(named).save(scan)
    ask(tmp_path, scan, "--box", "100,80,150,110", "--overlay", seen)
    picture, ink = np.asarray(Image.open(seen)), (named == INK).all(axis=2)
    letters = picture[ink].max(axis=1).astype(int)
    assert letters.min() > 200, "the text is there"


def test_an_overlay_is_of_one_image(scan: Path, tmp_path: Path) -> None:
    result = ask(tmp_path, scan, scan, "--overlay", tmp_path / "seen.png")
    assert result.exit_code == 1
    assert result.output == "Error: --overlay is of one image: name one file.\n"


@pytest.mark.parametrize("name", ["nowhere/seen.png", "seen.xyz"])
def test_an_overlay_that_cannot_be_written_is_one_line(
    name: str, scan: Path, tmp_path: Path
) -> None:
    result = ask(tmp_path, scan, "--overlay", tmp_path / name)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"{name} cannot be written" in result.output
    assert "Name a PNG, JPEG or TIFF file" in result.output
