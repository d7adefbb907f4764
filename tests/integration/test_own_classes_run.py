"""Classes are the user's: any names, two or four, one or two positive, through to the report."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from busi_pipeline.models.delivered import load_delivered_model
from busi_pipeline.stats.classes import Classes
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

PER_CLASS = 12
CLASS_SETS = [
    Classes(("benign", "malignant"), ("malignant",)),
    Classes(("None", "malign", "simple cyst", "suspicious"), ("malign", "suspicious")),
]


class Own(NamedTuple):
    """A project of these classes, of which one experiment went all the way to the report."""

    project: Path
    classes: Classes


@pytest.fixture(scope="module", params=CLASS_SETS, ids=["two", "four"])
def own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, eager: None
) -> Iterator[Own]:
    classes: Classes = request.param
    project = tmp_path_factory.mktemp("classes") / "project"
    parameters = {
        "classes": list(classes.names),
        "positive_classes": list(classes.positive),
        "training": {"fine_tuning": {"epochs": 1}},
        "ingestion": {"layout": "table" if len(classes) == 2 else "auto"},
    }
    with hide_machine():
        counts = dict.fromkeys(classes, PER_CLASS)
        create_project(project, counts, select_default("vgg16"), parameters)
        if len(classes) == 2:
            write_table(project / RAW)
        for pipeline in (
            "train_vgg16",
            "cross_validation",
            "bias_audit_vgg16",
            "model_comparison",
            "reporting",
        ):
            run_pipeline(project, pipeline)
        yield Own(project, classes)


def write_table(folder: Path) -> None:
    """Write `images.csv`, as a newcomer has one; six images of a class are of three patients."""
    rows = ["image,label,patient,mask"]
    for path in sorted(folder.rglob("*.png")):
        if "_mask" not in path.name:
            label, number = path.stem.rstrip(")").split(" (")
            patient = f"{label}-{(int(number) + 1) // 2}" if int(number) <= 6 else "NA"
            rows.append(f"{label}/{path.name},{label},{patient},{label}/{path.stem}_mask.png")
    (folder / "images.csv").write_text("\n".join(rows))


def test_patients_of_a_table_stay_whole(own: Own) -> None:
    manifest = read_table(own.project / "data/02_intermediate/manifest.csv")
    patients = manifest.set_index("image_id")["patient"].dropna()
    assert patients.nunique() == (6 if len(own.classes) == 2 else 0)
    split = read_table(own.project / "data/03_primary/split_manifest.csv")
    folds = read_table(own.project / "data/03_primary/cross_validation/fold_manifest.csv")
    for table, columns in ((split, ["split"]), (folds, list(folds.filter(like="repeat")))):
        known = table[table["image_id"].isin(patients.index)]
        assert len(known) == len(patients)
        parts = known.groupby(known["image_id"].map(patients))[["group", *columns]].nunique()
        assert parts.empty or parts.max().max() == 1


def test_every_image_keeps_its_label(own: Own) -> None:
    manifest = read_table(own.project / "data/02_intermediate/manifest.csv")
    assert manifest["label"].value_counts().to_dict() == dict.fromkeys(own.classes, PER_CLASS)
    split = read_table(own.project / "data/03_primary/split_manifest.csv")
    assert set(split["label"]) == set(own.classes)


def test_probabilities_are_in_the_order_of_the_classes(own: Own) -> None:
    table = read_table(own.project / "data/07_model_output/vgg16/predictions.csv")
    columns = [f"p_{name}" for name in own.classes]
    assert [name for name in table if name.startswith("p_")] == columns
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-4)
    score = table[[f"p_{name}" for name in own.classes.positive]].sum(axis=1)
    assert (table["flagged"] == (score >= table["threshold"] - 1e-12)).all()


def test_every_class_has_metrics_in_file_and_run(own: Own) -> None:
    test = read_json(own.project / "data/08_reporting/vgg16/metrics.json")["test"]
    run = next(r for r in find_runs(own.project) if r.info.run_name.startswith("train_vgg16"))
    for name in own.classes:
        assert run.data.metrics[f"test.{name}.sensitivity"] == test[name]["sensitivity"]
        assert run.data.metrics[f"images.{name}"] == PER_CLASS
    positives = sum(test[name]["images"] for name in own.classes.positive)
    assert test["flag"]["positives"] == test["positive"]["images"] == positives
    assert run.data.params["classes"] == ",".join(own.classes)
    assert run.data.params["positive_classes"] == ",".join(own.classes.positive)


def test_folds_test_every_image_of_every_class(own: Own) -> None:
    folder = own.project / "data/08_reporting/vgg16/cross_validation"
    test = read_json(folder / "metrics.json")["test"]
    assert {name: test[name]["images"] for name in own.classes} == dict.fromkeys(
        own.classes, PER_CLASS
    )
    of_classes = read_table(folder / "per_class_metrics.csv")
    assert list(of_classes["class"]) == list(own.classes)


def test_delivered_model_flags_the_positive_classes(own: Own) -> None:
    delivered = load_delivered_model(own.project / "data/06_models/vgg16")
    assert delivered.description["classes"] == list(own.classes.names)
    table = read_table(own.project / "data/07_model_output/vgg16/predictions.csv")
    for row in table.to_dict("records"):
        finding = delivered.predict_file(own.project / RAW / f"{row['image_id']}.png")
        assert list(finding.probabilities) == list(own.classes)
        summed = sum(finding.probabilities[name] for name in own.classes.positive)
        assert finding.positive_score == pytest.approx(summed, abs=1e-5)
        near = abs(finding.positive_score - finding.threshold) < 1e-4
        assert near or finding.flagged == row["flagged"]


def test_comparison_is_of_the_positive_classes(own: Own) -> None:
    table = read_table(own.project / "data/08_reporting/comparison.csv")
    test = read_json(own.project / "data/08_reporting/vgg16/metrics.json")["test"]
    assert list(table["source"]) == ["this project"], "published work had other classes"
    assert table.loc[0, "positive_images"] == test["positive"]["images"]


def test_report_and_card_speak_of_these_classes(own: Own) -> None:
    card = (own.project / "data/06_models/vgg16/model_card.md").read_text()
    page = (own.project / "data/08_reporting/report.html").read_text()
    for text in (card, page):
        for name in own.classes.positive:
            assert name in text
        assert "Cairo" not in text, "facts of BUSI are not of these images"
    assert own.classes.positive_name in page
    if "malignant" not in own.classes.names:
        assert "malignant" not in card


def test_bias_audit_is_of_images_with_a_lesion(own: Own) -> None:
    audit = read_table(own.project / "data/08_reporting/vgg16/bias_audit.csv")
    images = audit.set_index("question")["images"]
    lesions = sum(PER_CLASS for name in own.classes if name != "None")
    assert images["bounding box of the lesion alone"] == lesions
    assert images["fine-tuned, all images"] == PER_CLASS * len(own.classes)
