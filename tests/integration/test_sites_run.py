"""Two sites: a model of one on the other, fitted to it, each left out in turn, on to the report."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.delivered import load_delivered_model
from busi_pipeline.synthetic import simulate_scan
from tests.integration.projects import (
    RAW,
    create_project,
    find_runs,
    hide_machine,
    read_json,
    read_table,
    run_pipeline,
    select_default,
)

EXPERIMENT = "resnet50"
COUNT = 60


def write_bus_bra(folder: Path, count: int) -> Path:
    """Write a site in the layout of BUS-BRA, two images a patient, with masks and its table."""
    (folder / "Images").mkdir(parents=True)
    (folder / "Masks").mkdir()
    rows = []
    for n in range(count):
        label = "malignant" if n // 2 % 3 == 0 else "benign"
        scan = simulate_scan(label, 120, 160, np.random.default_rng([9, n]))
        name = f"{n // 2 + 1:04d}-{'lr'[n % 2]}"
        Image.fromarray(scan.image).save(folder / f"Images/bus_{name}.png")
        Image.fromarray(scan.mask).save(folder / f"Masks/mask_{name}.png")
        rows.append(
            {
                "ID": f"bus_{name}",
                "Case": n // 2 + 1,
                "Histology": "cyst" if label == "benign" else "carcinoma",
                "Pathology": label,
                "BIRADS": 2 + n % 2 if label == "benign" else 4,
                "Device": "one" if n < count // 2 else "two",
                "Width": 160,
                "Height": 120,
                "Side": ("left", "right")[n % 2],
                "BBOX": "[10,20,30,40]",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "bus_data.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, eager: None) -> Iterator[Path]:
    """A project with a trained model of three classes, and a second site without normal images."""
    root = tmp_path_factory.mktemp("sites")
    site = write_bus_bra(root / "BUSBRA", COUNT)
    changes = {
        "sites": {"elsewhere": {"folder": str(site)}},
        "external": {"site": "elsewhere", "min_images": 5},
        "adaptation": {"sizes": [15, 25], "n_draws": 5, "images": 20},
    }
    with hide_machine():
        project = create_project(root / "project", None, changes, select_default(EXPERIMENT))
        run_pipeline(project, f"train_{EXPERIMENT}")
        run_pipeline(project, "validate_external")
        yield project


def of_site(project: Path, name: str) -> Path:
    return project / "data/08_reporting" / EXPERIMENT / "external/elsewhere" / name


def test_the_delivered_model_is_tested_as_it_is(project: Path) -> None:
    scores = read_json(of_site(project, "metrics.json"))["external"]
    assert scores["site"] == "elsewhere"
    assert scores["images"]["flag"]["images"] == COUNT
    assert scores["patients"]["flag"]["images"] == COUNT // 2
    assert scores["reader"]["sensitivity"] == 1
    assert {"inside", "verdict", "likeliest"} <= scores.keys()
    predictions = read_table(
        project / f"data/07_model_output/{EXPERIMENT}/external/elsewhere/predictions.csv"
    )
    model = load_delivered_model(project / f"data/06_models/{EXPERIMENT}")
    row = predictions.iloc[3]
    finding = model.predict_file(project.parent / "BUSBRA" / f"{row['image_id']}.png")
    assert row["flagged"] == finding.flagged
    assert row["positive_score"] == pytest.approx(finding.positive_score, abs=1e-5)


def test_subgroups_are_what_the_table_of_the_site_says(project: Path) -> None:
    table = read_table(of_site(project, "subgroups.csv"))
    assert {"device", "BI-RADS", "lesion size", "histology", "view"} <= set(table["variable"])
    device = table[table["variable"] == "device"].set_index("value")
    assert device["images"].to_dict() == {"one": COUNT // 2, "two": COUNT // 2}


def test_what_people_read_is_written(project: Path) -> None:
    assert "60 images" in of_site(project, "summary.md").read_text()
    for name in ("site_curves.png", "subgroups.png"):
        assert of_site(project, name).stat().st_size > 5000
    flag = read_json(of_site(project, "metrics.json"))["external"]["images"]["flag"]
    none_is_wrong = flag["missed"] + flag["false_alarms"] == 0
    assert of_site(project, "worst_mistakes.png").exists() is not none_is_wrong
    assert of_site(project, "worst_mistakes.txt").exists() is none_is_wrong
    comparison = read_table(project / "data/08_reporting/external/elsewhere/comparison.csv")
    assert comparison["inside"].tolist() == [True, False]
    card = (project / f"data/06_models/{EXPERIMENT}/model_card.md").read_text()
    assert "| elsewhere | 60 (20) |" in card


def test_the_run_is_linked_to_that_of_the_model(project: Path) -> None:
    validation, training = (
        next(run for run in find_runs(project) if run.info.run_name.startswith(f"{name} on"))
        for name in ("validate_external", f"train_{EXPERIMENT}")
    )
    assert validation.data.tags["model_run_id"] == training.info.run_id
    assert validation.data.metrics["external.images.auc"] > 0
    assert validation.data.tags["external.overlap_searched"] == "yes"


def test_a_copy_of_a_training_image_stops_the_validation(project: Path) -> None:
    split = read_table(project / "data/03_primary/split_manifest.csv")
    path = split.loc[(split["split"] == "train") & (split["label"] == "benign"), "path"].iloc[0]
    site = project.parent / "copies"
    for label in ("benign", "malignant"):
        (site / label).mkdir(parents=True)
        for n in range(3):
            scan = simulate_scan(label, 120, 160, np.random.default_rng([5, n]))
            Image.fromarray(scan.image).save(site / label / f"{n}.png")
    scan = np.asarray(Image.open(project / RAW / path))
    brighter = np.clip(scan.astype(float) * 1.1 + 3, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(site / "benign/copy.png")
    with pytest.raises(BadInputError, match=r"models learned from.*benign/copy"):
        run_pipeline(
            project,
            f"validate_external_{EXPERIMENT}",
            {"external": {"site": "copies", "folder": str(site)}},
        )
    predicted = project / f"data/07_model_output/{EXPERIMENT}/external/copies/predictions.csv"
    assert not predicted.exists()


def test_the_model_is_fitted_to_the_site_and_names_its_parent(project: Path) -> None:
    run_pipeline(project, "adapt")
    curve = read_table(project / f"data/08_reporting/{EXPERIMENT}/adaptation/elsewhere/curve.csv")
    assert curve["images"].tolist() == [0, 15, 25]
    parent = load_delivered_model(project / f"data/06_models/{EXPERIMENT}")
    adapted = load_delivered_model(project / f"data/06_models/{EXPERIMENT}/adapted/elsewhere")
    about = adapted.description
    assert about["parent"]["model_sha256"] == parent.description["model_sha256"]
    assert about["adapted_to"] == "elsewhere"
    assert parent.training_pixels < adapted.training_pixels
    assert len(adapted.training_pixels - parent.training_pixels) == 20
    predictions = read_table(
        project / f"data/07_model_output/{EXPERIMENT}/adaptation/elsewhere/predictions.csv"
    )
    row = predictions.iloc[0]
    finding = adapted.predict_file(project.parent / "BUSBRA" / f"{row['image_id']}.png")
    assert row["positive_score"] == pytest.approx(finding.positive_score, rel=1e-3, abs=1e-5)
    assert row["flagged"] == finding.flagged
    metrics = read_json(
        project / f"data/08_reporting/{EXPERIMENT}/adaptation/elsewhere/metrics.json"
    )["adaptation"]
    assert metrics["after"]["flag"]["images"] == len(predictions)
    assert metrics["before"]["flag"]["images"] == len(predictions)


def test_the_report_begins_with_the_other_site(project: Path) -> None:
    run_pipeline(project, "reporting")
    page = (project / "data/08_reporting/report.html").read_text()
    assert page.index("At elsewhere, a site that no model has seen") < page.index('id="use"')


def test_each_site_is_left_out_in_turn(project: Path) -> None:
    two_classes = {
        "classes": ["benign", "malignant"],
        "ingestion": {"sites": ["main", "elsewhere"], "min_images_per_class": 10},
        "external": {"site": None},
    }
    run_pipeline(project, "leave_one_site_out", two_classes)
    table = read_table(project / "data/08_reporting/leave_one_site_out.csv")
    assert sorted(set(zip(table["site"], table["learned_from"], strict=True))) == [
        ("elsewhere", "other sites"),
        ("elsewhere", "own site"),
        ("main", "other sites"),
        ("main", "own site"),
    ]
    assert set(table["model"]) == {"fine-tuned", "linear-probe"}
    images = table[table["model"] == "fine-tuned"].set_index(["site", "learned_from"])["images"]
    assert images["main", "other sites"] == images["main", "own site"] == 24
    manifest = read_table(project / "data/02_intermediate/manifest.csv")
    assert set(manifest["site"]) == {"main", "elsewhere"}
    split = read_table(project / "data/03_primary/leave_one_site_out/main.csv")
    tested = split["split"] == "test"
    assert set(split.loc[tested, "image_id"].str.partition("/")[0]) == {"main"}
    assert set(split.loc[~tested, "image_id"].str.partition("/")[0]) == {"elsewhere"}


def test_patients_stay_whole_over_sites_and_folds(project: Path) -> None:
    manifest = read_table(project / "data/02_intermediate/manifest.csv")
    folds = read_table(project / "data/03_primary/cross_validation/fold_manifest.csv")
    patient = manifest.set_index("image_id")["patient"].dropna()
    known = folds[folds["image_id"].isin(patient.index)]
    assert len(known) == COUNT
    of_patient = known.groupby(known["image_id"].map(patient))
    for column in ["group", *known.filter(like="repeat")]:
        assert of_patient[column].nunique().max() == 1, column


def test_each_site_left_out_is_a_picture_and_a_node(project: Path) -> None:
    assert (project / "data/08_reporting/leave_one_site_out.png").stat().st_size > 5000
    outputs = project / f"data/07_model_output/{EXPERIMENT}/leave_one_site_out"
    assert {path.stem for path in outputs.glob("*.csv")} >= {"main", "elsewhere"}


def test_one_site_cannot_be_left_out(project: Path) -> None:
    with pytest.raises(BadInputError, match="needs two sites or more"):
        run_pipeline(project, f"leave_one_site_out_{EXPERIMENT}")


def test_no_external_site_is_one_line(project: Path) -> None:
    with pytest.raises(BadInputError, match=r"--params external\.folder="):
        run_pipeline(project, f"validate_external_{EXPERIMENT}", {"external": {"site": None}})


def test_nothing_of_the_second_site_is_lost(project: Path) -> None:
    manifest = read_table(project / "data/02_intermediate/external/elsewhere/manifest.csv")
    assert len(manifest) == COUNT
    assert manifest["masks"].eq(1).all()
    assert manifest["patient"].nunique() == COUNT // 2
    assert json.loads(manifest["mask_paths"][0]) == ["Masks/mask_0001-l.png"]
