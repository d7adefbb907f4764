"""Drift is noticed and nothing else is; the verdict goes by labels where there are some."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.datasets.journal import Journal
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.pipelines.monitoring.nodes import (
    ALL,
    describe,
    judge_sensitivity,
    list_reference,
    measure_evidence,
    observe,
    summarise_drift,
)
from busi_pipeline.pipelines.monitoring.plots import plot_evidence
from tests.factories import load_parameters
from tests.package_factories import ANYTHING, make_parts, make_tested, write_tiny_package

TARGET = 0.95


def load_settings(**changes: Any) -> Any:
    return load_parameters({"monitoring": changes})["monitoring"]


def load_prediction(folder: str = "/scans/week one") -> Any:
    return load_parameters({"prediction": {"folder": folder}})["prediction"]


@pytest.fixture
def model(tmp_path: Path) -> PackagedModel:
    """A model that was tested on 300 images."""
    described = make_parts().description | {"target_sensitivity": TARGET}
    folder = write_tiny_package(
        tmp_path / "package",
        tested=make_tested(300),
        description=described,
        limits=ANYTHING._replace(distance=0.96),
    )
    return load_package(folder)


def make_findings(
    model: PackagedModel, count: int = 200, seed: int = 1, start: int = 0, **changes: Any
) -> pd.DataFrame:
    """Return findings as those of the test are, changed."""
    tested = make_tested(count, seed=seed)
    names = ["positive_score", "flagged", "distance", "shorter_side", "contrast", "detail"]
    novel = (tested["distance"] > 0.96).map({True: "out_of_distribution", False: ""})
    return tested[[*names, "colour", "brightness"]].assign(
        image=[f"{number}.png" for number in range(start, start + count)],
        byte_sha256=[f"{seed}-{number}" for number in range(start, start + count)],
        problem="",
        device="",
        same_as="",
        box_source="",
        reasons=novel,
        model_version=model.version,
        **changes,
    )


def look(
    findings: pd.DataFrame, model: PackagedModel, journal: Journal, folder: str = "/scans/week one"
) -> pd.DataFrame:
    return observe(findings, model, journal, load_prediction(folder), load_settings())


def watch(
    model: PackagedModel,
    findings: pd.DataFrame,
    journal: Journal,
    labels: Any = None,
    folder: str = "/scans/week one",
) -> tuple[pd.DataFrame, dict[str, Any]]:
    settings = load_settings()
    observations = observe(findings, model, journal, load_prediction(folder), settings)
    evidence = measure_evidence(observations, model, settings)
    drift = summarise_drift(evidence, observations, model, settings)
    return drift, judge_sensitivity(observations, labels, drift, model, settings)


def make_labels(findings: pd.DataFrame, sensitivity: float) -> pd.DataFrame:
    """Return labels by which this share of positive images is flagged."""
    flagged = findings["flagged"].to_numpy()
    count = round(flagged.sum() / sensitivity) - int(flagged.sum())
    missed = np.flatnonzero(~flagged)[:count]
    positive = flagged.copy()
    positive[missed] = True
    return pd.DataFrame(
        {"image": findings["image"], "label": np.where(positive, "malignant", "benign")}
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "observations.jsonl")


def test_images_like_those_of_the_test_raise_nothing(
    model: PackagedModel, journal: Journal
) -> None:
    drift, verdict = watch(model, make_findings(model), journal)
    assert not drift["alarm"].any()
    assert (verdict["supported"], verdict["drift"]) == ("yes", False)
    assert "nothing differs" in verdict["because"]


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("brightness", lambda table: table["brightness"] + 12),
        ("contrast", lambda table: 100 + 3 * (table["contrast"] - 100)),
        ("shorter_side", lambda table: 480.0),
        ("distance", lambda table: table["distance"] + 0.4),
        ("flagged", lambda table: np.arange(len(table)) % 10 < 8),
    ],
)
def test_each_kind_of_drift_is_named(
    model: PackagedModel, journal: Journal, quantity: str, change: Any
) -> None:
    findings = make_findings(model)
    findings[quantity] = change(findings)
    drift, verdict = watch(model, findings, journal)
    rows = drift.set_index("quantity")
    assert rows.loc[quantity, "alarm"]
    assert rows.loc[ALL, "alarm"]
    assert rows.loc[ALL, "since"] <= 150
    assert not rows.drop([quantity, ALL])["alarm"].any()
    assert verdict["supported"] == "cannot tell"


def test_more_novel_images_are_drift(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model)
    findings["reasons"] = ["out_of_distribution;colour", ""] * 100
    drift, _ = watch(model, findings, journal)
    row = drift.set_index("quantity").loc["out_of_distribution"]
    assert row["alarm"]
    assert (row["observed"], row["tested"] < 0.1) == (0.5, True)


def test_a_device_that_is_new_is_drift(tmp_path: Path, journal: Journal) -> None:
    known = make_parts().description | {"target_sensitivity": TARGET, "devices": ["GE Logiq 7"]}
    folder = write_tiny_package(tmp_path / "p", tested=make_tested(300), description=known)
    model = load_package(folder)
    old = watch(model, make_findings(model).assign(device="GE Logiq 7"), journal)[0]
    assert not old["alarm"].any()
    later = make_findings(model, seed=2).assign(device="Toshiba Aplio")
    drift = watch(model, later, journal, folder="/scans/week two")[0].set_index("quantity")
    assert drift.loc["new_device", "alarm"]
    assert drift.loc["new_device", "observed"] == 0.5


def test_a_sorted_folder_is_no_drift(model: PackagedModel, journal: Journal) -> None:
    """TRAP: files sorted by class look like a change in the middle."""
    findings = make_findings(model).sort_values("positive_score", ignore_index=True)
    assert not watch(model, findings, journal)[0]["alarm"].any()


def test_the_same_images_count_once(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model, 60)
    first = look(findings, model, journal)
    renamed = findings.assign(image="again " + findings["image"])
    again = look(renamed, model, journal, "/scans/week two")
    pd.testing.assert_frame_equal(first, again)
    later = make_findings(model, 40, seed=2)
    both = look(later, model, journal, "/scans/week two")
    assert both["batch"].value_counts().to_dict() == {"week_one": 60, "week_two": 40}


def test_what_was_observed_is_kept_over_runs(model: PackagedModel, journal: Journal) -> None:
    watch(model, make_findings(model, 100), journal)
    later = make_findings(model, 100, seed=2).assign(brightness=130.0)
    drift, verdict = watch(model, later, Journal(journal._path), folder="/scans/week two")
    assert verdict["images"] == 200
    assert drift.set_index("quantity").loc["brightness", "since"] > 100


@pytest.mark.parametrize(
    ("sensitivity", "expected"), [(1.0, "yes"), (0.6, "no")], ids=["found", "missed"]
)
def test_labels_decide(
    model: PackagedModel, journal: Journal, sensitivity: float, expected: str
) -> None:
    findings = make_findings(model, 600)
    findings["brightness"] += 12  # drift
    labels = make_labels(findings, sensitivity)
    _, verdict = watch(model, findings, journal, labels)
    assert verdict["supported"] == expected
    assert verdict["sensitivity"] == pytest.approx(sensitivity, abs=0.01)
    assert verdict["sensitivity_low"] < verdict["sensitivity"] <= verdict["sensitivity_high"]
    assert verdict["labelled"] == 600


def test_few_labels_cannot_tell(model: PackagedModel, journal: Journal) -> None:
    """TRAP: nothing differs, and yet cancers are missed."""
    findings = make_findings(model, 60)
    verdict = watch(model, findings, journal, make_labels(findings, 0.85))[1]
    assert not verdict["drift"]
    assert verdict["supported"] == "cannot tell"
    assert "labels are too few" in verdict["because"]


def test_copies_and_readers_boxes_are_not_observed(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model, 40)
    findings.loc[:4, "same_as"] = "39.png"
    findings.loc[5:9, "box_source"] = "reader"
    assert sorted(look(findings, model, journal)["image"]) == sorted(
        f"{number}.png" for number in range(10, 40)
    )


def test_a_growing_folder_does_not_change_what_was_seen(
    model: PackagedModel, journal: Journal
) -> None:
    """TRAP: a new order at every look is a new chance at every look."""
    first = look(make_findings(model, 30), model, journal)
    both = look(make_findings(model, 60), model, journal)
    pd.testing.assert_frame_equal(both.head(30), first)
    assert first["image"].tolist() != sorted(first["image"], key=lambda name: int(name[:-4]))


def test_of_a_model_of_folds_the_pictures_alone_are_watched(tmp_path: Path) -> None:
    described = make_parts().description | {"target_sensitivity": TARGET, "of_folds": True}
    bag = load_package(
        write_tiny_package(tmp_path / "p", tested=make_tested(300), description=described)
    )
    assert not {"distance", "positive_score", "flagged"} & set(list_reference(bag))
    assert {"brightness", "new_device"} <= set(list_reference(bag))


def test_labels_find_their_folder_by_its_name(model: PackagedModel, journal: Journal) -> None:
    one, two = make_findings(model, 60), make_findings(model, 60, seed=2)
    look(one, model, journal)
    labels = make_labels(two, 1.0)
    with pytest.raises(BadInputError, match="which several folders have"):
        watch(model, two, journal, labels, "/scans/week-48")
    named = labels.assign(batch="week-48")
    assert watch(model, two, journal, named, "/scans/week-48")[1]["labelled"] == 60
    with pytest.raises(BadInputError, match="has no column label"):
        watch(model, two, journal, named.drop(columns="label"), "/scans/week-48")


def test_few_images_cannot_tell(model: PackagedModel, journal: Journal) -> None:
    verdict = watch(model, make_findings(model, 20), journal)[1]
    assert verdict["supported"] == "cannot tell"
    assert "20 images are too few" in verdict["because"]


def test_wrong_probabilities_are_noticed(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model, 300)
    findings["positive_score"] = findings["positive_score"].clip(0.4, 0.6)
    _, verdict = watch(model, findings, journal, make_labels(findings, 1.0))
    assert verdict["calibration_alarm"]


BAD_LABELS = {
    "another class": ({"label": "cyst"}, "the label 'cyst'; allowed: benign, malignant, normal"),
    "other images": ({"image": "other.png"}, "more than once"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_wrong_labels_are_refused(model: PackagedModel, journal: Journal, name: str) -> None:
    changes, expected = BAD_LABELS[name]
    findings = make_findings(model, 60)
    with pytest.raises(BadInputError, match=expected):
        watch(model, findings, journal, make_labels(findings, 1.0).assign(**changes))
    with pytest.raises(BadInputError, match="names no image that was observed"):
        watch(model, findings, journal, pd.DataFrame({"image": ["x"], "label": ["benign"]}))


def test_findings_of_another_model_are_refused(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model).assign(model_version="0123456789ab")
    with pytest.raises(BadInputError, match="of the model 0123456789ab, and tiny"):
        look(findings, model, journal)


def test_files_that_cannot_be_used_are_not_observed(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model, 30)
    findings.loc[:9, ["problem", "model_version"]] = ["too small", ""]
    assert len(look(findings, model, journal)) == 20
    with pytest.raises(BadInputError, match="nothing to watch"):
        look(findings.head(10), model, Journal(Path("/nowhere")))


def test_the_summary_says_it_in_words(model: PackagedModel, journal: Journal) -> None:
    findings = make_findings(model, 300)
    findings["brightness"] += 12
    drift, verdict = watch(model, findings, journal, make_labels(findings, 0.6))
    text = describe(drift, verdict, model, load_settings())
    assert "**Is the sensitivity of 0.95 still supported? No:**" in text
    assert re.search(r"\| brightness \| (89|90)", text)
    assert "positive ones are flagged, 60" in text
    assert "| yes, after" in text


def test_the_plot_has_a_line_a_quantity_and_both_limits(
    model: PackagedModel, journal: Journal
) -> None:
    observations = look(make_findings(model, 60), model, journal)
    evidence = measure_evidence(observations, model, load_settings())
    assert len(evidence) == 60
    np.testing.assert_allclose(
        evidence[ALL], evidence.drop(columns=["batch", ALL]).max(axis=1) / 10, rtol=1e-12
    )
    (axis,) = plot_evidence(evidence, load_settings()).axes
    assert len(axis.lines) == len(list_reference(model).columns) + 3
    limits = {line.get_label(): line.get_ydata()[0] for line in axis.lines[-2:]}
    assert limits == {"alarm, all together": 100, "alarm, one alone": 1000}
