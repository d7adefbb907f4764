import hashlib
import json
import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from busi_pipeline.caching.cache import Cache
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.delivered import DeliveredModel
from busi_pipeline.pipelines.external_validation.characteristics import (
    list_failures,
    list_variables,
    read_birads,
)
from busi_pipeline.pipelines.external_validation.nodes import (
    check_overlap,
    describe_model,
    find_site_duplicates,
    judge,
    predict_site,
    score_external,
    take_lesion_for_granted,
)
from busi_pipeline.pipelines.external_validation.plots import (
    outline_lesion,
    plot_inside_and_outside,
    plot_site_curves,
    plot_subgroups,
    plot_worst_mistakes,
)
from busi_pipeline.pipelines.external_validation.properties import measure_properties
from busi_pipeline.pipelines.external_validation.summary import (
    _describe_calibration,
    compare_sites,
    write_summary,
)
from busi_pipeline.plotting.style import NothingToShow
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import probability_columns
from busi_pipeline.synthetic import simulate_scan
from tests.evaluation_factories import EVALUATION, THREE, TWO, make_predictions
from tests.factories import (
    as_raw_images,
    encode_image,
    group_alone,
    load_parameters,
    make_settings,
    store_array,
)

PARAMETERS = load_parameters()
EXTERNAL, DATASET = PARAMETERS["external"], PARAMETERS["dataset"]
SETTINGS = make_settings()
RECORD = {
    "title": "ResNet50",
    "threshold": 0.012,
    "model_run_id": "abc",
    "model_sha256": "f" * 64,
}


def make_site_manifest(count: int, **columns: object) -> pd.DataFrame:
    """Return the manifest of a site that says a device and a BI-RADS category, and no more."""
    ids = [f"Images/bus_{n:04d}" for n in range(count)]
    names = ("age", "density", "histology", "view", "overlay", "box", "pixel_spacing_mm")
    unknown = dict.fromkeys(names, "")
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{name}.png" for name in ids],
            "label": ["malignant" if n % 3 == 0 else "benign" for n in range(count)],
            "height": 40,
            "width": 50,
            "byte_sha256": [f"b{n}" for n in range(count)],
            "pixel_sha256": [f"p{n}" for n in range(count)],
            "colour_overlay": False,
            "site": "elsewhere",
            "patient": [f"patient_{n // 2}" for n in range(count)],
            "device": ["GE" if n % 2 else "Toshiba" for n in range(count)],
            "birads": ["4A" if n % 3 == 0 else str(2 + n % 2) for n in range(count)],
            "mask_paths": "[]",
            **unknown,
            **columns,
        }
    )


def make_site_predictions(manifest: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return predictions of three classes on a site that has no normal images."""
    rng = np.random.default_rng(seed)
    truth = (manifest["label"] == "malignant").to_numpy()
    logits = rng.normal(size=(len(manifest), 3))
    logits[:, 1] += np.where(truth, 0.8, -0.8)
    table = manifest[["image_id", "site", "patient", "label"]].copy()
    table.insert(3, "group", table["patient"])
    table[probability_columns(THREE)] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table["predicted"] = np.array(THREE.names)[logits.argmax(1)]
    table["is_positive"] = truth
    table["positive_score"] = table["p_malignant"]
    return table.assign(flagged=table["positive_score"] >= 0.15)


def make_properties(manifest: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """Return properties of images whose lesions grow from one image to the next."""
    count = len(manifest)
    return pd.DataFrame(
        {
            "image_id": manifest["image_id"],
            "brightness": np.linspace(20, 120, count),
            "contrast": np.linspace(60, 10, count),
            "lesion_share": np.linspace(0.01, 0.4, count),
            "lesion_at_border": 0.0,
            "lesion_mm": np.nan,
            "annotated": np.arange(count) % 2,
            "colour": 0,
            **columns,
        }
    )


def score(
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    inside: pd.DataFrame | None = None,
    classes: Classes = THREE,
):
    properties = make_properties(manifest)
    return score_external(
        predictions,
        manifest,
        properties,
        inside,
        RECORD,
        SETTINGS,
        EVALUATION,
        EXTERNAL,
        classes,
    )


@pytest.fixture(scope="module")
def site():
    """Manifest, predictions and scores of one site, beside the model's own test images."""
    manifest = make_site_manifest(150)
    predictions = make_site_predictions(manifest)
    return manifest, predictions, score(manifest, predictions, make_predictions(THREE))


class Answering:
    """A delivered network that answers by the brightness of an image."""

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        share = images.reshape(len(images), -1).mean(axis=1) / 255
        probabilities = np.stack([1 - share, share, 0 * share], axis=1).astype("float32")
        return {
            "probabilities": probabilities,
            "positive_score": probabilities[:, 1],
            "flagged": probabilities[:, 1] >= 0.5,
        }


def deliver(pixels: frozenset[str] = frozenset(), **description: object) -> DeliveredModel:
    about = {
        "title": "ResNet50",
        "classes": list(THREE.names),
        "positive_classes": ["malignant"],
        "model_sha256": "f" * 64,
    }
    return DeliveredModel(Answering(), about | description, pixels)  # type: ignore[arg-type]


# Overlap with what models learned from


def draw_scan(seed: int) -> bytes:
    scan = simulate_scan("benign", 120, 160, np.random.default_rng(seed))
    return encode_image(Image.fromarray(scan.image))


def make_scans(seeds: list[int], folder: str) -> tuple[dict, pd.DataFrame]:
    files = {f"{folder}/{n}.png": draw_scan(seed) for n, seed in enumerate(seeds)}
    hashes = [hashlib.sha256(content).hexdigest() for content in files.values()]
    manifest = pd.DataFrame(
        {
            "image_id": [path.removesuffix(".png") for path in files],
            "path": list(files),
            "label": "benign",
            "byte_sha256": hashes,
            "pixel_sha256": hashes,
        }
    )
    return as_raw_images(files), manifest


def search(outside: list[int], inside: list[int] | None, tmp_path):
    settings = load_parameters({"deduplication": {"longest_side": 128, "keypoints": 60}})
    known = make_scans(inside, "benign") if inside is not None else (None, None)
    return find_site_duplicates(
        *make_scans(outside, "Images"), *known, settings["deduplication"], Cache(tmp_path)
    )


def test_copies_among_external_and_training_images_are_found(tmp_path):
    pairs = search([5, 6, 7, 7], [1, 2, 5], tmp_path)
    assert pairs.duplicate_pairs[["image_a", "image_b"]].to_numpy().tolist() == [
        ["Images/2", "Images/3"]
    ]
    (copy,) = pairs.overlap.to_dict("records")
    assert (copy["image_a"], copy["image_b"]) == ("Images/0", "benign/2")
    assert copy["known_pixel_sha256"] == make_scans([1, 2, 5], "benign")[1]["pixel_sha256"].iloc[2]
    assert pairs.tags == {"overlap_searched": "yes"}


def test_without_the_training_images_it_is_said_that_copies_were_not_looked_for(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        pairs = search([5, 6, 6], None, tmp_path)
    assert len(pairs.duplicate_pairs) == 1
    assert pairs.overlap.empty
    assert pairs.tags == {"overlap_searched": "no"}
    assert "not at hand" in caplog.text


def make_overlap(same_frame: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_a": ["Images/bus_0001"],
            "image_b": ["benign/2"],
            "same_frame": [same_frame],
            "known_pixel_sha256": ["own"],
        }
    )


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_copy_of_an_image_that_was_learned_from_is_refused(part):
    split = pd.DataFrame({"image_id": ["benign/2"], "split": [part]})
    with pytest.raises(BadInputError, match=r"1 in all \(Images/bus_0001 and benign/2, for one\)"):
        check_overlap(make_overlap(True), split)


@pytest.mark.parametrize("part", ["test", "excluded"])
def test_a_copy_of_an_image_that_was_not_learned_from_is_none(part):
    split = pd.DataFrame({"image_id": ["benign/2"], "split": [part]})
    assert check_overlap(make_overlap(True), split) == {"same_frame": 0, "neighbouring_frame": 0}


def test_where_the_split_is_not_known_every_copy_is_refused():
    with pytest.raises(BadInputError, match="not external"):
        check_overlap(make_overlap(True), None)


def test_images_that_are_a_little_alike_are_counted_and_said(caplog):
    split = pd.DataFrame({"image_id": ["benign/2"], "split": ["train"]})
    with caplog.at_level(logging.WARNING):
        summary = check_overlap(make_overlap(False), split)
    assert summary == {"same_frame": 0, "neighbouring_frame": 1}
    assert "look at them" in caplog.text


# Predictions


def predict(model: DeliveredModel, classes=THREE, copied: bool = False) -> pd.DataFrame:
    overlap = make_overlap(copied)
    manifest = make_site_manifest(5)
    values = np.repeat(np.arange(5, dtype=np.uint8) * 60, 4 * 4 * 3).reshape(5, 4, 4, 3)
    groups = group_alone(manifest)
    settings = make_settings(training={"extraction_batch_size": 2})
    images = store_array(manifest["image_id"], values)
    return predict_site(images, manifest, groups, overlap, {}, model, settings, classes)


def test_every_image_is_predicted_by_the_model_as_it_is():
    table = predict(deliver())
    np.testing.assert_allclose(table["positive_score"], np.arange(5) * 60 / 255, rtol=1e-6)
    assert table["flagged"].tolist() == [False, False, False, True, True]
    assert table["predicted"].tolist() == ["benign"] * 3 + ["malignant"] * 2
    assert table["is_positive"].tolist() == [True, False, False, True, False]
    assert table["group"].tolist() == table["image_id"].tolist()


def test_what_a_model_says_given_a_lesion_stands_beside_it():
    classes = Classes(THREE.names, THREE.positive, ("normal",))
    model = deliver()
    table = predict(model, classes)
    assert "score_given_lesion" not in table, "the model knows no threshold for it"
    model = model._replace(description=model.description | {"threshold_given_lesion": 0.5})
    table = predict(model, classes)
    share = table["p_malignant"] / (table["p_malignant"] + table["p_benign"])
    np.testing.assert_allclose(table["score_given_lesion"], share, rtol=1e-6)
    assert table["flagged_given_lesion"].tolist() == (share >= 0.5).tolist()
    np.testing.assert_allclose(table["positive_score"], table["p_malignant"])
    for threshold, expected in ((share[3] * (1 + 1e-5), True), (share[3] * (1 + 1e-3), False)):
        model = model._replace(
            description=model.description | {"threshold_given_lesion": threshold}
        )
        flagged = predict(model, classes)["flagged_given_lesion"]
        assert flagged[3] == expected, "single precision does not take the flag"
    granted = take_lesion_for_granted(table)
    assert granted["positive_score"].tolist() == table["score_given_lesion"].tolist()
    assert granted["flagged"].tolist() == table["flagged_given_lesion"].tolist()


def test_a_site_of_lesions_alone_is_scored_given_a_lesion():
    manifest = make_site_manifest(60)
    predictions = make_site_predictions(manifest)
    share = predictions["p_malignant"] / (1 - predictions["p_normal"])
    predictions = predictions.assign(score_given_lesion=share, flagged_given_lesion=share >= 0.3)
    classes = Classes(THREE.names, THREE.positive, ("normal",))
    external = score(manifest, predictions, classes=classes).metrics["external"]
    assert external["given_lesion"]["auc"] == pytest.approx(
        roc_auc_score(predictions["is_positive"], share)
    )
    assert external["given_lesion"]["auc"] != external["images"]["auc"]
    assert external["given_lesion"]["flag"]["flagged"] == (share >= 0.3).sum()
    labels = manifest["label"].where(manifest.index > 5, "normal")
    mixed = predictions.assign(label=labels, is_positive=labels == "malignant")
    scores = score(manifest.assign(label=labels), mixed, classes=classes)
    assert "given_lesion" not in scores.metrics["external"], "not all images show a lesion"


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(BadInputError, match=r"trained with classes \['benign', 'malignant', 'nor"):
        predict(deliver(), TWO)


def test_a_model_that_learned_from_an_image_is_refused():
    with pytest.raises(BadInputError, match=r"learned from 1 of these images, .*bus_0003"):
        predict(deliver(frozenset({"p3", "other"})))


def test_a_model_that_learned_from_a_copy_of_an_image_is_refused():
    """Whatever part of the split the copy is in: a bag has learned from all."""
    assert len(predict(deliver(frozenset({"another"})), copied=True)) == 5
    assert len(predict(deliver(frozenset({"own"})), copied=False)) == 5, "a little alike"
    with pytest.raises(BadInputError, match=r"or from copies of them \('Images/bus_0001'"):
        predict(deliver(frozenset({"own"})), copied=True)


def test_a_run_is_linked_to_that_of_the_model():
    record, tags = describe_model(deliver(mlflow_run_id="abc", data_sha256="d"))
    assert tags == {"model_run_id": "abc", "model_sha256": "f" * 64}
    assert record == {"title": "ResNet50", "data_sha256": "d"} | tags
    assert describe_model(deliver())[1]["model_run_id"] == "not known"


# Scores


def test_images_patients_and_own_test_images_are_scored(site):
    _, predictions, scores = site
    external = scores.metrics["external"]
    assert external["images"]["flag"]["images"] == 150
    assert external["patients"]["flag"]["images"] == 75
    assert external["site"] == "elsewhere"
    flagged = predictions.groupby("patient")["flagged"].any()
    assert external["patients"]["flag"]["flagged"] == flagged.sum()


def test_own_test_images_of_labels_that_the_site_lacks_do_not_count(site):
    inside = make_predictions(THREE)
    expected = inside["label"].isin(["benign", "malignant"]).sum()
    assert site[2].metrics["external"]["inside"]["flag"]["images"] == expected


def test_a_reader_stands_beside_the_model(site):
    reader = site[2].metrics["external"]["reader"]
    assert reader["images"] == 150
    assert reader["sensitivity"] == reader["specificity"] == 1  # 4A where malignant, else 2 or 3
    assert 0 <= reader["model_specificity"] < 1


def test_without_patients_birads_and_own_test_images_their_parts_are_left_out():
    manifest = make_site_manifest(60, patient="", birads="")
    predictions = make_site_predictions(manifest).assign(group=manifest["image_id"])
    external = score(manifest, predictions).metrics["external"]
    assert not {"patients", "inside", "reader"} & external.keys()
    assert external["likeliest"].keys() == set(THREE.names)


def test_a_site_of_one_kind_of_image_is_refused():
    manifest = make_site_manifest(30, label="benign")
    with pytest.raises(BadInputError, match="0 malignant and 30 other images"):
        score(manifest, make_site_predictions(manifest))


def make_images_scores(**changes: float) -> dict:
    values = {"auc": 0.81, "sensitivity": 0.9, "specificity": 0.4, "slope": 1.0, "ratio": 1.0}
    values |= changes
    return {
        "auc_ci_low": values["auc"],
        "flag": {
            "sensitivity_ci_low": values["sensitivity"],
            "specificity": values["specificity"],
        },
        "calibration": {"slope": values["slope"], "observed_expected": values["ratio"]},
    }


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"auc": 0.79}, ["ranking"]),
        ({"sensitivity": 0.89}, ["finding"]),
        ({"specificity": 0.39}, ["cost"]),
        ({"slope": 0.79}, ["calibration"]),
        ({"slope": 1.26}, ["calibration"]),
        ({"ratio": 1.3}, ["calibration"]),
        ({"auc": 0.5, "ratio": 0.1}, ["ranking", "calibration"]),
    ],
)
def test_a_model_travels_only_if_every_criterion_holds(changes, missed):
    verdict = judge(make_images_scores(**changes), EXTERNAL)
    assert [name for name, value in verdict.items() if value == "missed"] == missed
    assert verdict["travels"] == ("no" if missed else "yes")


# Characteristics


@pytest.mark.parametrize(
    ("written", "category"),
    [("4", 4), ("4A", 4), ("BI-RADS 4c", 4), ("5.0", 5), ("", np.nan), ("not assigned", np.nan)],
)
def test_birads_is_read_however_it_is_written(written, category):
    np.testing.assert_equal(read_birads(pd.Series([written]))[0], category)


def test_images_are_grouped_by_what_the_site_knows():
    manifest = make_site_manifest(6, age=["39", "40", "49", "70", "", "85"])
    variables = list_variables(manifest, make_properties(manifest))
    assert variables["age"].tolist() == [
        "below 40 years",
        "40 to below 50 years",
        "40 to below 50 years",
        "70 years and above",
        "",
        "70 years and above",
    ]
    assert (
        variables["lesion size"].tolist()
        == ["small third"] * 2 + ["middle third"] * 2 + ["large third"] * 2
    )
    assert set(variables["density"]) == {""}
    assert variables["burned-in annotations"].tolist() == ["without", "with"] * 3


def test_sizes_are_in_millimetres_where_the_spacing_is_known():
    manifest = make_site_manifest(4)
    properties = make_properties(manifest, lesion_mm=[5.0, 10.0, 25.0, np.nan])
    assert list_variables(manifest, properties)["lesion size"].tolist() == [
        "below 10 mm",
        "10 to below 20 mm",
        "20 mm and above",
        "",
    ]


def test_failures_are_set_beside_images_that_were_handled_right():
    manifest = make_site_manifest(60)
    predictions = make_site_predictions(manifest)
    positive = predictions["is_positive"].to_numpy()
    small = np.arange(60) < 15
    predictions["flagged"] = ~small  # all small lesions missed, everything else flagged
    table = list_failures(predictions, manifest, make_properties(manifest))
    row = table[
        (table["failure"] == "missed") & (table["characteristic"] == "smallest lesions (a quarter)")
    ].iloc[0]
    assert row["failures"] == (positive & small).sum()
    assert row["share_of_failures"] == 1
    assert row["share_of_others"] == 0
    alarms = table[table["failure"] == "false alarm"]
    assert alarms["failures"].max() <= (~positive & ~small).sum()


def test_what_is_seen_and_not_found_is_a_characteristic():
    manifest = make_site_manifest(60, birads="")
    manifest.loc[:9, "overlay"] = "doppler, marks"
    manifest.loc[10:19, "view"] = "left axilla"
    predictions = make_site_predictions(manifest).assign(flagged=False)
    properties = make_properties(manifest).assign(colour=[1] * 15 + [0] * 45)
    found = pd.Series([False] * 5 + [True] * 55, index=manifest["image_id"])[::-1]

    def count(*given: pd.Series) -> pd.Series:
        table = list_failures(predictions, manifest, properties, *given)
        missed = table[table["failure"] == "missed"].set_index("characteristic")
        return missed["failures"]

    positive = predictions["is_positive"].to_numpy()
    counts = count(found)
    assert counts["Doppler"] == positive[:10].sum()
    assert counts["colour, not said to be Doppler"] == positive[10:15].sum(), (
        "not said to be Doppler"
    )
    assert counts["axilla"] == positive[10:20].sum()
    assert counts["no lesion found"] == positive[:5].sum()
    assert "no lesion found" not in count(), "of a model that looks for none"


def test_images_are_grouped_by_density_and_overlay():
    manifest = make_site_manifest(6)
    manifest["density"] = ["dense", ""] * 3
    manifest["overlay"] = ["marks"] * 6
    variables = list_variables(manifest, make_properties(manifest))
    assert variables["density"].tolist() == ["dense", ""] * 3
    assert set(variables["overlay"]) == {"marks"}


def test_an_image_with_no_characteristic_is_counted_as_such():
    manifest = make_site_manifest(60, birads="")
    properties = make_properties(manifest, annotated=0)
    predictions = make_site_predictions(manifest).assign(flagged=False)
    table = list_failures(predictions, manifest, properties).set_index(
        ["failure", "characteristic"]
    )
    none = table.loc["missed", "none of these"]
    middle = np.ones(60, bool)
    middle[:15] = middle[45:] = False
    assert none["failures"] == (predictions["is_positive"].to_numpy() & middle).sum()


def make_mask(left: int, right: int) -> bytes:
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[10:30, left:right] = 255
    return encode_image(Image.fromarray(mask))


def test_the_lesion_is_measured_by_its_mask_else_by_its_box(tmp_path):
    picture = encode_image(Image.fromarray(np.full((40, 50), 100, dtype=np.uint8)))
    files = {"a.png": picture, "b.png": picture, "c.png": picture, "m.png": make_mask(0, 25)}
    manifest = make_site_manifest(
        3,
        path=["a.png", "b.png", "c.png"],
        mask_paths=[json.dumps(["m.png"]), "[]", "[]"],
        box=["", "10 10 25 20", ""],
        pixel_spacing_mm=["0.1", "0.2", ""],
    )
    table = measure_properties(as_raw_images(files), manifest, Cache(tmp_path))
    assert table["brightness"].tolist() == [100] * 3
    np.testing.assert_allclose(table["lesion_share"][:2], [0.25, 0.25 * np.pi / 4], atol=0.01)
    np.testing.assert_allclose(table["lesion_mm"][:2], [2.5, 5.0], atol=0.05)
    assert table["lesion_at_border"].tolist()[:2] == [1, 0]
    assert table.loc[2, ["lesion_share", "lesion_at_border", "lesion_mm"]].isna().all()


# What people read


def test_the_summary_says_what_a_reader_has_to_know(site):
    scores = site[2]
    text = write_summary(scores.metrics, scores.failures, SETTINGS, DATASET, EXTERNAL, THREE)
    flag = scores.metrics["external"]["images"]["flag"]
    assert text.startswith("# ResNet50 at elsewhere\n")
    assert "75 patients" in text
    assert f"misses about {100 * (1 - flag['sensitivity']):.0f}" in text
    assert "do not use it there as it is" in text
    assert "BI-RADS category" in text
    assert "DEMO" not in text


@pytest.mark.parametrize(
    ("slope", "ratio", "said"),
    [
        ((0.5, 0.3, 0.7), (1.6, 1.4, 1.8), ["too extreme", "1.60 times as many malignant"]),
        ((1.5, 1.3, 1.7), (0.5, 0.4, 0.6), ["not extreme enough", "2.00 times fewer malignant"]),
        ((0.9, 0.8, 1.1), (0.9, 0.8, 1.1), ["as far as one can tell", "about as many malignant"]),
    ],
)
def test_the_summary_says_of_probabilities_what_their_intervals_allow(slope, ratio, said):
    ends = ("", "_ci_low", "_ci_high")
    calibration = {f"slope{end}": value for end, value in zip(ends, slope, strict=True)}
    calibration |= {f"observed_expected{end}": v for end, v in zip(ends, ratio, strict=True)}
    text = _describe_calibration(calibration, THREE)
    for words in said:
        assert words in text


def test_the_summary_of_synthetic_images_says_so_first(site):
    scores = site[2]
    synthetic = DATASET.model_copy(update={"synthetic": True})
    text = write_summary(scores.metrics, scores.failures, SETTINGS, synthetic, EXTERNAL, THREE)
    assert text.startswith("**DEMO on synthetic images")


def compare(site) -> pd.DataFrame:
    return compare_sites(
        resnet50__settings=SETTINGS,
        resnet50__metrics=site[2].metrics,
        vgg16__settings=make_settings("VGG16"),
        vgg16__metrics=site[2].metrics,
    )


def test_inside_and_outside_stand_in_one_table(site):
    table = compare(site)
    assert table[["experiment", "inside", "travels"]].to_numpy().tolist() == [
        ["resnet50", True, ""],
        ["resnet50", False, "no"],
        ["vgg16", True, ""],
        ["vgg16", False, "no"],
    ]
    outside = site[2].metrics["external"]["images"]
    assert table["auc"][1] == round(outside["auc"], 4)
    assert table["sensitivity_ci_low"][1] == round(outside["flag"]["sensitivity_ci_low"], 4)


def test_plots_name_site_counts_and_operating_point(site):
    _, predictions, scores = site
    figure = plot_site_curves(predictions, scores.metrics, SETTINGS, EVALUATION, THREE)
    title = figure.get_suptitle().replace("\n", " ")
    assert "elsewhere, a site it has not seen: 150 images, 50 malignant" in title
    roc = figure.axes[0]
    labels = [text.get_text() for text in roc.get_legend().get_texts()]
    assert "flag at the delivered threshold 0.012" in labels
    assert "readers: BI-RADS 4 or higher" in labels
    flag = scores.metrics["external"]["images"]["flag"]
    points = [line for line in roc.lines if line.get_marker() == "D"]
    assert points[0].get_xydata().tolist() == [[1 - flag["specificity"], flag["sensitivity"]]]
    benefit = next(axis for axis in figure.axes if "net benefit" in axis.get_title())
    assert "33 % of the images are malignant" in " ".join(benefit.get_title().split())
    shown = [text.get_text() for text in benefit.get_legend().get_texts()]
    assert "delivered threshold 0.012" in shown
    (cells,) = (axis.tables[0].get_celld() for axis in figure.axes if axis.tables)
    assert [cells[2, n].get_text().get_text() for n in range(10)] == ["15"] * 10


def test_the_plot_of_subgroups_has_a_line_each(site):
    scores = site[2]
    figure = plot_subgroups(scores.subgroups, scores.metrics, SETTINGS)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert "device: GE (75)" in labels
    assert "lesion size: small third (50)" in labels


def test_the_plot_over_models_shows_both_places(site):
    figure = plot_inside_and_outside(compare(site), THREE)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["VGG16", "ResNet50"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["inside", "site not seen"]


def test_the_worst_mistakes_keep_their_shape_and_lose_their_text(site, monkeypatch):
    manifest, predictions, _ = site
    picture = make_mask(5, 20)
    raw = as_raw_images(dict.fromkeys(manifest["path"], picture) | {"m.png": picture})
    manifest = manifest.assign(mask_paths=json.dumps(["m.png"]))
    covered = []
    monkeypatch.setattr(
        "busi_pipeline.pipelines.external_validation.plots.cover_text",
        lambda pixels: covered.append(pixels) or pixels,
    )
    privacy = PARAMETERS["privacy"]
    figure = plot_worst_mistakes(raw, manifest, predictions, SETTINGS, privacy, THREE)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(covered) == len(shown) > 0
    assert shown[0].images[0].get_array().shape[:2] == (40, 50)
    wrong = predictions[predictions["is_positive"] & ~predictions["flagged"]]
    assert f"{len(wrong)} missed malignant images" in figure.get_suptitle().replace("\n", " ")
    off = privacy.model_copy(update={"cover_text": False})
    covered.clear()
    plot_worst_mistakes(raw, manifest, predictions, SETTINGS, off, THREE)
    assert not covered


def test_no_mistake_at_a_site_is_no_picture(site):
    manifest, predictions, _ = site
    right = predictions.assign(flagged=predictions["is_positive"])
    privacy = PARAMETERS["privacy"]
    nothing = plot_worst_mistakes({}, manifest, right, SETTINGS, privacy, THREE)
    assert isinstance(nothing, NothingToShow)
    assert "no malignant image is missed" in nothing


def test_no_subgroup_is_no_picture(site):
    nothing = plot_subgroups(site[2].subgroups.iloc[:0], site[2].metrics, SETTINGS)
    assert isinstance(nothing, NothingToShow)


def test_the_outline_lies_on_the_lesion():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    axis.imshow(np.zeros((40, 50)))
    mask = np.zeros((256, 256), np.uint8)
    mask[:64, 128:] = 1  # a quarter at the top, to the right
    outline_lesion(axis, mask, (40, 50, 3))
    box = axis.collections[0].get_paths()[0].get_extents()
    assert box.y1 == pytest.approx(9.5, abs=0.2)
    assert box.x0 == pytest.approx(24.5, abs=0.2)
