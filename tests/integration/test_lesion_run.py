"""An experiment that looks at the lesion: trained, cross-validated, audited, tested elsewhere."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.crops import Window
from busi_pipeline.models.delivered import LOCALIZER_FILE, load_delivered_model
from busi_pipeline.models.packaged import load_package
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import fit_operating_point
from tests.factories import TINY_EXPERIMENTS, load_parameters
from tests.integration.projects import (
    RAW,
    create_project,
    find_all_runs,
    hide_machine,
    read_json,
    read_table,
    run_pipeline,
    select_default,
)
from tests.integration.test_sites_run import write_bus_bra

EXPERIMENT, OTHER = "resnet50_lesion", "vgg16_lesion"
BAG = "lesion_ensemble"
COUNT = 24
TINY_LOCALIZER = {
    "backbones": ["vgg16", "resnet50"],
    "weights": "none",
    "image_size": 64,
    "channels": 8,
    "per_image": 1,
    "width": 16,
    "epochs": 6,
    "folds": 2,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, eager: None) -> Iterator[Path]:
    """A project whose experiment looks at the lesion, trained and tested at a second site."""
    root = tmp_path_factory.mktemp("lesion")
    site = write_bus_bra(root / "BUSBRA", COUNT)
    tiny = yaml.safe_load(TINY_EXPERIMENTS)["experiments"]
    changes = {
        "sites": {"elsewhere": {"folder": str(site)}},
        "external": {"site": "elsewhere", "min_images": 5},
        "localization": TINY_LOCALIZER,
        "experiments": {
            EXPERIMENT: tiny["resnet50"],
            OTHER: tiny["vgg16"],
            BAG: {"members": [EXPERIMENT, OTHER], "of_folds": True},
            "densenet121_lesion": {"image_size": 32},
        },
        "cross_validation": {"folds": 2, "repeats": 1},
    }
    with hide_machine():
        project = create_project(root / "project", None, select_default(), changes)
        run_pipeline(project, f"train_{EXPERIMENT}")
        run_pipeline(project, f"validate_external_{EXPERIMENT}")
        yield project


def test_boxes_are_found_and_scored(project: Path) -> None:
    boxes = read_table(project / "data/04_feature/lesion_boxes.csv")
    split = read_table(project / "data/03_primary/split_manifest.csv")
    sources = dict(zip(boxes["image_id"], boxes["source"], strict=True))
    parts = dict(zip(split["image_id"], split["split"], strict=True))
    assert {parts[image] for image, source in sources.items() if source == "out of fold"} == {
        "train"
    }
    scores = read_json(project / "data/06_models/localizer/metrics.json")["localizer"]
    assert set(scores) == {"train", "validation", "test"}
    assert scores["train"]["images"] > 0
    assert (project / "data/08_reporting/lesion_boxes.png").stat().st_size > 5000


def test_the_delivered_model_finds_the_lesion_itself(project: Path) -> None:
    """What the pipeline predicts at the other site is what the folder of the model says."""
    folder = project / f"data/06_models/{EXPERIMENT}"
    assert (folder / LOCALIZER_FILE).is_file()
    model = load_delivered_model(folder)
    outputs = project / f"data/07_model_output/{EXPERIMENT}/external/elsewhere"
    predictions = read_table(outputs / "predictions.csv").set_index("image_id")
    boxes = read_table(
        project / "data/04_feature/external/elsewhere/resnet50_lesion/lesion_boxes.csv"
    )
    assert len(boxes) == COUNT
    for box in boxes.head(4).to_dict("records"):
        finding = model.predict_file(project.parent / "BUSBRA" / f"{box['image_id']}.png")
        assert finding.box == pytest.approx([box[edge] for edge in Window._fields], abs=0.06)
        assert finding.confidence == pytest.approx(box["confidence"], abs=1e-3)
        by_pipeline = predictions.loc[box["image_id"], "positive_score"]
        assert finding.positive_score == pytest.approx(by_pipeline, abs=5e-3)


def test_both_figures_are_reported(project: Path) -> None:
    folder = project / f"data/08_reporting/{EXPERIMENT}/external/elsewhere"
    scores = read_json(folder / "metrics.json")["external"]
    assert scores["reader_box"]["flag"]["images"] == scores["images"]["flag"]["images"] == COUNT
    assert "shown the box that readers drew" in (folder / "summary.md").read_text()
    assert scores["given_lesion"]["flag"]["images"] == COUNT
    assert "Every image here shows a lesion" in (folder / "summary.md").read_text()
    outputs = project / f"data/07_model_output/{EXPERIMENT}/external/elsewhere"
    found, shown = (
        read_table(outputs / f"{name}.csv").set_index("image_id")["positive_score"]
        for name in ("predictions", "reader_box_predictions")
    )
    assert (found != shown).any()


def read_uncalibrated(project: Path, name: str) -> np.ndarray:
    table = read_table(project / f"data/07_model_output/{name}/uncalibrated_predictions.csv")
    ordered = table.sort_values(["fold", "split", "image_id"])
    return ordered.filter(like="uncalibrated_").to_numpy()


def test_a_bag_has_learned_from_all_images(project: Path) -> None:
    run_pipeline(project, f"train_{BAG}")
    run_pipeline(project, f"validate_external_{BAG}")
    folder = project / f"data/06_models/{BAG}"
    bag = load_delivered_model(folder)
    one, other, both = (
        read_uncalibrated(project, name) for name in (f"{EXPERIMENT}/bag", f"{OTHER}/bag", BAG)
    )
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3
    manifest = read_table(project / "data/02_intermediate/manifest.csv")
    folds = read_table(project / "data/03_primary/cross_validation/fold_manifest.csv")
    learned = manifest[manifest["image_id"].isin(folds["image_id"])]
    assert bag.training_pixels == set(learned["pixel_sha256"])
    metrics = read_json(project / f"data/08_reporting/{BAG}/metrics.json")
    assert (metrics["folds"], metrics["test"]["images"]) == (2, len(folds))
    predicted = read_table(project / f"data/07_model_output/{BAG}/predictions.csv")
    tested = predicted[predicted["split"] == "test"]
    assert set(tested["image_id"]) == set(folds["image_id"]), "each out of fold"
    # The flag of the delivered model is set on all images, that of a fold on its own.
    parameters = load_parameters()
    classes = Classes(parameters["classes"].names, ["malignant"], ["normal"])
    raw = read_table(project / f"data/07_model_output/{BAG}/uncalibrated_predictions.csv")
    point = fit_operating_point(raw[raw["split"] == "test"], classes, parameters["evaluation"])
    assert bag.description["threshold"] == pytest.approx(point.threshold)
    assert bag.description["temperature"] == pytest.approx(point.calibration.temperature)
    assert bag.description["chosen_on"] == "all images, out of fold"
    outputs = project / f"data/07_model_output/{BAG}/external/elsewhere"
    predictions = read_table(outputs / "predictions.csv").set_index("image_id")
    for image, own in predictions.head(2).iterrows():
        finding = bag.predict_file(project.parent / "BUSBRA" / f"{image}.png")
        assert finding.positive_score == pytest.approx(own["positive_score"], abs=5e-3)
    card = (folder / "model_card.md").read_text()
    assert f"from all {len(folds)} images of the folds" in card
    assert "each member on 2 folds of a cross-validation" in card


def test_a_lost_localizer_is_named(project: Path) -> None:
    folder = project / f"data/06_models/{EXPERIMENT}"
    (folder / LOCALIZER_FILE).rename(folder / "away.keras")
    with pytest.raises(BadInputError, match=r"localizer\.keras is missing"):
        load_delivered_model(folder)
    (folder / "away.keras").rename(folder / LOCALIZER_FILE)


def test_lesions_are_found_out_of_fold_and_occluded(project: Path) -> None:
    occluded = f"{EXPERIMENT}.cross_validation.occluded_images"
    run_pipeline(project, f"bias_audit_{EXPERIMENT}", to_outputs=[occluded])
    boxes = read_table(project / "data/04_feature/cross_validation_lesion_boxes.csv")
    assert set(boxes["source"]) == {"out of fold"}
    scores = read_json(project / "data/06_models/localizer/cross_validation_metrics.json")
    assert scores["localizer"]["out_of_fold"]["images"] > 0
    seen, hidden = (
        project / f"data/04_feature/{EXPERIMENT}" / name
        for name in ("cross_validation_images.json", "occluded_images.json")
    )
    assert read_json(seen)["index"] == read_json(hidden)["index"]


def test_lesions_of_a_site_left_out_are_found_by_the_others(project: Path) -> None:
    two = {
        "classes": ["benign", "malignant"],
        "ingestion": {"sites": ["main", "elsewhere"], "min_images_per_class": 10},
        "external": {"site": None},
    }
    left_out = f"{EXPERIMENT}.leave_one_site_out"
    run_pipeline(
        project,
        f"leave_one_site_out_{EXPERIMENT}",
        two,
        to_outputs=[f"{left_out}.predictions", f"{left_out}.linear_probe_predictions"],
    )
    for site in ("main", "elsewhere"):
        boxes = read_table(project / f"data/04_feature/leave_one_site_out/{site}_lesion_boxes.csv")
        split = read_table(project / f"data/03_primary/leave_one_site_out/{site}.csv")
        parts = boxes["image_id"].map(split.set_index("image_id")["split"])
        sites = boxes["image_id"].str.partition("/")[0]
        assert set(sites[parts == "test"]) == {site}
        assert set(boxes.loc[sites == site, "source"]) == {"not learned from"}
        assert set(boxes.loc[parts == "train", "source"]) == {"out of fold"}
        assert set(sites[parts == "train"]) == {"main", "elsewhere"} - {site}
    metrics = project / "data/06_models/localizer/leave_one_site_out_main_metrics.json"
    assert read_json(metrics)["localizer"]["left_out"]["images"] > 0
    predicted = read_table(
        project / f"data/07_model_output/{EXPERIMENT}/leave_one_site_out/predictions.csv"
    )
    tested = predicted.loc[predicted["split"] == "test", "image_id"]
    assert tested.is_unique
    assert set(tested.str.partition("/")[0]) == {"main", "elsewhere"}


def test_images_without_masks_are_refused_in_one_line(project: Path) -> None:
    for mask in (project / RAW).rglob("*_mask*.png"):
        mask.unlink()
    with pytest.raises(BadInputError, match="a localizer learns from masks or boxes") as caught:
        run_pipeline(project, f"train_{EXPERIMENT}")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def packed(project: Path) -> Path:
    """The project with the model of the experiment packed."""
    run_pipeline(project, f"package_{EXPERIMENT}")
    return project


def test_a_package_answers_as_the_delivered_model(packed: Path) -> None:
    delivered = load_delivered_model(packed / f"data/06_models/{EXPERIMENT}")
    model = load_package(packed / f"data/06_models/{EXPERIMENT}/package")
    assert model.description["model_sha256"] == delivered.description["model_sha256"]
    for path in sorted((packed.parent / "BUSBRA").glob("Images/*.png"))[:5]:
        for box in (None, Window(20, 20, 90, 80)):
            expected, answer = delivered.predict_file(path, box), model.predict_file(path, box)
            assert answer.positive_score == pytest.approx(expected.positive_score, abs=1e-4)
            assert answer.threshold == expected.threshold
            assert answer.box == pytest.approx(expected.box, abs=1e-3)
            if expected.confidence is not None:
                assert answer.confidence == pytest.approx(expected.confidence, abs=1e-4)


def test_the_packages_limits_are_of_the_images_learned_from(packed: Path) -> None:
    model = load_package(packed / f"data/06_models/{EXPERIMENT}/package")
    split = read_table(packed / "data/03_primary/split_manifest.csv")
    taught = split[split["split"] == "train"].iloc[0]
    answer = model.predict_file(packed / RAW / f"{taught['image_id']}.png")
    assert "seen_in_training" in answer.reasons
    tested = split[split["split"] == "test"]["image_id"]
    reasons = [model.predict_file(packed / RAW / f"{image}.png").reasons for image in tested]
    assert not any("seen_in_training" in own for own in reasons)
    card = (packed / f"data/06_models/{EXPERIMENT}/package/model_card.md").read_text()
    assert card == (packed / f"data/06_models/{EXPERIMENT}/model_card.md").read_text()


def test_the_packed_model_answers_in_mlflow(packed: Path) -> None:
    run = next(
        r for r in find_all_runs(packed) if r.info.run_name.startswith(f"package_{EXPERIMENT} ")
    )
    logged = [
        model
        for model in mlflow.search_logged_models(output_format="list")
        if model.source_run_id == run.info.run_id
    ]
    assert [model.name for model in logged] == [f"{EXPERIMENT}_package"]
    service = mlflow.pyfunc.load_model(logged[0].model_uri)
    path = next((packed.parent / "BUSBRA").glob("Images/*.png"))
    image = base64.b64encode(path.read_bytes()).decode()
    boxes = ["", "", "20,20,90,80", "20,20"]
    table = pd.DataFrame({"image": [image, "no base64", image, image], "box": boxes})
    answers = service.predict(table)
    model = load_package(packed / f"data/06_models/{EXPERIMENT}/package")
    assert answers["positive_score"][0] == model.predict_file(path).positive_score
    drawn = model.predict_file(path, (20, 20, 90, 80))
    assert answers["positive_score"][2] == drawn.positive_score
    assert answers["error"].tolist()[:3:2] == ["", ""]
    assert "base64" in answers["error"][1]
    assert answers["error"][3].startswith("a box is left, top, right and bottom")
    assert json.loads(answers["box"][2]) == [20, 20, 90, 80]


def test_a_folder_is_predicted_by_its_name(packed: Path) -> None:
    site = packed.parent / "BUSBRA" / "Images"
    run_pipeline(packed, "predict", {"prediction": {"folder": str(site)}})
    findings = pd.read_parquet(packed / "data/07_model_output/predictions/images/findings.parquet")
    assert len(findings) == COUNT
    assert (findings["problem"] == "").all()
    predictions = read_table(
        packed / f"data/07_model_output/{EXPERIMENT}/external/elsewhere/predictions.csv"
    ).set_index("image_id")
    scores = dict(zip(findings["image"], findings["positive_score"], strict=True))
    for image_id, expected in predictions["positive_score"].items():
        name = Path(str(image_id)).name
        assert scores[f"{name}.png"] == pytest.approx(expected, abs=5e-3)
    reports = packed / "data/08_reporting/predictions/images"
    drawn = [path.stem for path in (reports / "overlays").glob("*.png")]
    assert len(drawn) == 2 * COUNT
    assert sum(name.endswith("_attribution") for name in drawn) == COUNT
    assert (reports / "sheet.html").stat().st_size > 5000


def test_a_packed_model_becomes_the_champion_and_answers(packed: Path) -> None:
    """The gate refuses what is not there; what is not asked lets it pass."""
    lenient = dict.fromkeys(
        ["min_sensitivity", "min_specificity", "min_external_auc", "max_calibration_error"]
    )
    why = {"why": "the first one"}
    with pytest.raises(BadInputError, match="does not become the champion"):
        run_pipeline(
            packed, f"promote_{EXPERIMENT}", {"promotion": why | {"min_sensitivity": 0.999}}
        )
    run_pipeline(packed, f"promote_{EXPERIMENT}", {"promotion": why | lenient})
    gate = read_table(packed / f"data/08_reporting/{EXPERIMENT}/promotion_gate.csv")
    assert gate.set_index("line").loc["duplicates", "passed"]
    run_pipeline(packed, "ledger")
    champions = read_table(packed / "data/08_reporting/promotion/champions.csv")
    assert champions["experiment"].tolist() == [EXPERIMENT]
    version = mlflow.MlflowClient().get_model_version_by_alias("breast_ultrasound", "champion")
    assert version.tags["package_version"] == champions["version"][0]
    kept = packed / f"data/06_models/registry/versions/{champions['version'][0]}/package"
    assert load_package(kept).version == champions["version"][0]
    site = packed.parent / "BUSBRA" / "Images"
    run_pipeline(packed, "predict", {"prediction": {"folder": str(site)}})
    run_pipeline(packed, "monitor", {"prediction": {"folder": str(site)}})
    summary = (packed / "data/08_reporting/monitoring/summary.md").read_text()
    assert "Cannot tell" in summary
    with pytest.raises(BadInputError, match="no previous model"):
        run_pipeline(packed, "rollback", {"promotion": why})
