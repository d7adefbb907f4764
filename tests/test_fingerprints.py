"""What a value depends on: code counts with all it imports, values whatever their order."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from busi_pipeline import fingerprints
from busi_pipeline.caching.fingerprints import describe_code, hash_values


def test_order_of_keys_does_not_matter_and_values_do() -> None:
    assert hash_values({"a": 1, "b": [2, 3]}) == hash_values({"b": [2, 3], "a": 1})
    assert hash_values({"a": 1, "b": [2, 3]}) != hash_values({"a": 1, "b": [3, 2]})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules that import each other in every way there is: step -> helper -> (deep, constants)."""
    root = tmp_path / "toy_steps"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "inner" / "__init__.py").write_text("")
    (root / "step.py").write_text("import json\nfrom .inner import helper\n")
    (root / "inner" / "helper.py").write_text(
        "from ..constants import LIMIT\n\n\ndef run():\n    import toy_steps.inner.deep\n"
    )
    (root / "inner" / "deep.py").write_text("from toy_steps import step\n")
    (root / "constants.py").write_text("LIMIT = 1\n")
    (root / "apart.py").write_text("")
    for name in [name for name in sys.modules if name.startswith("toy_steps")]:
        monkeypatch.delitem(sys.modules, name)  # of another test's folder
    fingerprints._find_source.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fingerprints, "_PACKAGE", "toy_steps")
    return root


@pytest.mark.parametrize("changed", ["step.py", "inner/helper.py", "inner/deep.py", "constants.py"])
def test_code_that_is_imported_counts(package: Path, changed: str) -> None:
    before = describe_code("toy_steps.step")
    with (package / changed).open("a") as file:
        file.write("# changed\n")
    assert describe_code("toy_steps.step") != before


def test_other_code_does_not_count(package: Path) -> None:
    before = describe_code("toy_steps.step")
    (package / "apart.py").write_text("x = 1\n")
    assert describe_code("toy_steps.step") == before


def test_versions_of_libraries_count() -> None:
    described = describe_code("busi_pipeline.imaging.decoding", libraries=("numpy",))
    assert described["numpy"] == version("numpy")


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="imagse"):
        describe_code("busi_pipeline.imagse")
