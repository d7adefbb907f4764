"""Tables of the catalog keep every name that a class, an image or a file can have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import AbstractDataset

from busi_pipeline.pipelines.deduplication.grouping import group_images
from busi_pipeline.pipelines.ingestion.nodes import build_manifest
from busi_pipeline.pipelines.preprocessing.nodes import plan_augmentation
from busi_pipeline.pipelines.splitting.folds import assign_folds
from busi_pipeline.pipelines.splitting.nodes import split_images
from busi_pipeline.stats.classes import Classes
from tests.factories import (
    as_raw_images,
    load_parameters,
    make_png,
    make_settings,
    open_base_configuration,
)

ODD_NAMES = [
    "None",
    "NA",
    "NaN",
    "nan",
    "null",
    "n/a",
    "<NA>",
    "-",
    "1",
    "01",
    "1.0",
    "1e5",
    "True",
    "inf",
    "2020-01-01",
    "a, b",
    'a "b"',
    " a ",
    "größer",
    "乳腺",
    "a;b\tc",
    "=1+1",
    "#",
]
CATALOG: dict[str, Any] = open_base_configuration()["catalog"]


def find_inner(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry of the file itself, within what logs it to MLflow."""
    inner = entry.get("dataset", entry)
    return inner if isinstance(inner, Mapping) else entry  # partitions may name a type alone


def open_table(name: str, folder: Path) -> AbstractDataset[pd.DataFrame, pd.DataFrame]:
    """Return the CSV of a catalog entry in another folder."""
    inner = {key: value for key, value in find_inner(CATALOG[name]).items() if key != "metadata"}
    return AbstractDataset.from_config(name, {**inner, "filepath": str(folder / "table.csv")})


def list_name_columns(name: str) -> list[str]:
    """Return the columns of an entry that hold names."""
    inner = find_inner(CATALOG[name])
    dtypes = inner.get("load_args", {}).get("dtype", {})
    return list(dtypes) if isinstance(dtypes, dict) else []


# In order: the workers of a parallel run must collect the same tests.
TABLES = [n for n in sorted(CATALOG) if not n.startswith("_") and list_name_columns(n)]


def test_the_catalog_has_tables_of_names() -> None:
    assert {"manifest", "split_manifest", "image_groups", "duplicate_pairs"} <= set(TABLES)
    assert len(TABLES) > 15


@pytest.mark.parametrize("name", TABLES)
def test_no_column_is_taken_for_a_path(name: str) -> None:
    """Kedro puts the project's folder before the value of any key `path` or `filepath`."""
    assert not {"path", "filepath"} & set(list_name_columns(name))


@pytest.mark.parametrize("name", TABLES)
def test_odd_names_survive_the_file(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame(dict.fromkeys(list_name_columns(name), ODD_NAMES))
    table["score"] = [n / 7 for n in range(len(table))]
    table["is_first"] = table.index == 0
    dataset = open_table(name, tmp_path)
    dataset.save(table)
    loaded = dataset.load()
    assert loaded.to_dict("list") == table.to_dict("list")


CLASSES = Classes(("None", "NA", "nan", "01"), ("NA", "01"))


@pytest.fixture(scope="module")
def manifest() -> pd.DataFrame:
    """Two dozen images of each of the oddest classes, some named as if nothing were there."""
    files = {
        f"{label}/{name}.png": make_png(9 * position + number)
        for number, label in enumerate(CLASSES)
        for position, name in enumerate([*"0123456789abcdefghijkl", "None", "NA"])
    }
    parameters = load_parameters()
    settings = parameters["ingestion"].updated({"min_images_per_class": 20})
    return build_manifest(as_raw_images(files), settings, parameters["sites"], CLASSES).manifest


def test_every_stage_reads_the_names_it_wrote(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """Each table goes through its file, as between two runs."""

    def pass_on(name: str, table: pd.DataFrame) -> pd.DataFrame:
        dataset = open_table(name, tmp_path)
        dataset.save(table)
        loaded = dataset.load()
        assert loaded.to_dict("list") == table.to_dict("list"), name
        return loaded

    parameters = load_parameters()
    split = parameters["split"]
    read = pass_on("manifest", manifest)
    pairs = pd.DataFrame({"image_a": ["None/None"], "image_b": ["NA/NA"]})
    groups, _ = group_images(read, pairs, parameters["deduplication"])
    groups = pass_on("image_groups", groups)
    assert groups["mixed_labels"].sum() == 2
    assigned = pass_on("split_manifest", split_images(read, groups, split).split_manifest)
    assert set(assigned["label"]) == set(CLASSES)
    folds = assign_folds(read, groups, split, parameters["cross_validation"]).fold_manifest
    pass_on("{evaluation}.fold_manifest", folds)
    plan = plan_augmentation(assigned, make_settings())
    pass_on("{experiment}.augmentation_plan", plan)


def test_an_empty_quarantine_can_be_read(tmp_path: Path) -> None:
    dataset = open_table("quarantine", tmp_path)
    dataset.save(pd.DataFrame(columns=["path", "reason"]))
    assert dataset.load().empty
