"""The report says what was found, and names what was not run."""

import base64
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busi_pipeline.stats.bootstrap import HIGH, LOW
from busi_pipeline.stats.scoring import (
    score_predictions_with_intervals,
    format_number,
    format_share,
)
from busi_pipeline.pipelines.cross_validation.nodes import judge_folds, score_folds
from busi_pipeline.pipelines.reporting.checklists import ITEMS
from busi_pipeline.pipelines.reporting.nodes import (
    show_table,
    stack_interval,
    write_model_card,
    write_report,
)
from busi_pipeline.pipelines.reporting.pipeline import COMMON, OF_ENSEMBLE, OF_ROW
from tests.conftest import CLASSES
from tests.pipelines.test_cross_validation import JUDGING, make_raw

PICTURE = b"\x89PNG picture"


@pytest.fixture(scope="module")
def cv_metrics() -> dict[str, Any]:
    judged = judge_folds(make_raw(np.random.default_rng(0), 2.0), JUDGING, CLASSES)
    return score_folds(judged, judged, {"title": "ResNet <50>"}, {}, JUDGING, CLASSES)


def list_nothing() -> dict[str, Any]:
    """What a project has in which nothing was run yet."""
    return {
        **dict.fromkeys(COMMON),
        **{f"resnet50__{item}": None for item in OF_ROW},
        **{f"ensemble__{item}": None for item in OF_ENSEMBLE},
        "evaluation": JUDGING,
    }


def test_what_was_not_run_is_named() -> None:
    page = write_report(**list_nothing())
    for command in ("ingestion", "copies", "cross_validation", "leakage", "shortcuts_resnet50"):
        assert f"kedro run --pipeline={command}" in page
    assert "<img" not in page


def test_figures_and_pictures_are_on_the_page(cv_metrics: dict[str, Any]) -> None:
    table = pd.DataFrame({"experiment": ["<b>"], "random": [0.91], "grouped": [0.82]})
    found = list_nothing() | {
        "resnet50__cv_metrics": cv_metrics,
        "resnet50__cv_confusion_matrix": PICTURE,
        "resnet50__cv_gain": pd.DataFrame(
            {
                "metric": ["accuracy", "sensitivity of the flag"],
                "difference": [0.0421, 0.0999],
                "difference_ci_low": [0.01, 0.01],
                "difference_ci_high": [0.07, 0.07],
                "verdict": ["better", "better"],
            }
        ),
        "leakage_table": table,
        "duplicate_summary": {
            "copies": {
                "groups": 590,
                "groups_with_copies": 153,
                "images_in_them": 343,
                "largest_group": 5,
                "groups_of_mixed_labels": 8,
                "images_of_mixed_labels": 19,
            }
        },
    }
    page = write_report(**found)
    test = cv_metrics["cross_validation"]["test"]
    assert format_share(test, "accuracy") in page
    assert format_number(test["malignant"], "auc") in page
    assert "343 images belong" in re.sub(r"\s+", " ", page)
    encoded = base64.b64encode(PICTURE).decode()
    assert page.count("data:image/png;base64,") == page.count(encoded) == 1
    assert "ResNet &lt;50&gt;" in page, "names are escaped"
    assert "<td>&lt;b&gt;</td>" in page
    assert "0.910" in page
    assert "+0.042" in page
    assert "+0.100" not in page, "thresholds are judged in a section of their own"
    assert "Every image was judged" not in page
    assert "http" not in page.replace("https://www.w3.org", ""), "nothing is loaded from elsewhere"


def test_models_that_are_handed_over_carry_intervals() -> None:
    row: dict[str, Any] = {"model": "VGG16", "source": "this project", "seconds": 540}
    names = ("accuracy", "malignant_sensitivity", "malignant_auc")
    for value, name in zip((0.8, 0.7, 0.9), names, strict=True):
        row |= {name: value, name + LOW: value - 0.05, name + HIGH: value + 0.05}
    table = pd.DataFrame([row | {"split_method": "grouped", "weights": "imagenet"}])
    page = write_report(**list_nothing() | {"comparison_table": table})
    for told in ("0.800 (0.750 to 0.850)", "0.700 (0.650 to 0.750)", "0.900 (0.850 to 0.950)"):
        assert told in page
    assert "imagenet" not in page


def test_judgements_do_not_pass_for_images(cv_metrics: dict[str, Any]) -> None:
    thrice = cv_metrics | {"cross_validation": cv_metrics["cross_validation"] | {"repeats": 3}}
    page = write_report(**list_nothing() | {"resnet50__cv_metrics": thrice})
    assert "Every image was judged 3 times" in page


def test_every_item_points_to_a_section_of_the_page() -> None:
    page = write_report(**list_nothing())
    sections = set(re.findall(r'<h2 id="(\w+)"', page))
    assert {item.place for item in ITEMS} <= sections
    assert set(re.findall(r'href="#(\w+)"', page)) == sections
    assert {item.guideline for item in ITEMS} == {"TRIPOD+AI", "CLAIM"}


def test_a_share_that_could_not_be_had_is_a_dash() -> None:
    nothing = dict.fromkeys(("ppv", "ppv_ci_low", "ppv_ci_high"), float("nan"))
    assert format_share(nothing, "ppv") == "–"
    assert format_share({"a": 0.5, "a_ci_low": 0.4, "a_ci_high": 0.6}, "a") == "50.0 % (40.0 to 60.0)"


@pytest.mark.parametrize(
    ("best_epoch", "told"),
    [
        ({"head": 1}, "head fitted on what it sees; averaged over the image"),
        ({"head": 1, "fine_tuning": 0}, "was undone; averaged over the image"),
        ({"head": 1, "fine_tuning": 7}, "for 7 epochs, averaged with itself before fine-tuning; a"),
    ],
)
def test_model_card_holds_the_threshold_and_what_it_costs(
    best_epoch: dict[str, int], told: str
) -> None:
    judged = judge_folds(make_raw(np.random.default_rng(0), 2.0), JUDGING, CLASSES)
    scores = score_predictions_with_intervals(judged, CLASSES, JUDGING)
    part = {"all": 10, **dict.fromkeys(CLASSES, 3)}
    card = write_model_card(
        {
            "title": "ResNet50",
            "backbone": "resnet50",
            "image_size": 224,
            "training": {"average_with_pretuned": True, "tta_horizontal_flip": True},
        },
        {"training": {"best_epoch": best_epoch}},
        {
            "test": scores,
            "depends_on": dict.fromkeys(
                (
                    "weights",
                    "weights_sha256",
                    "split_method",
                    "split_sha256",
                    "precision",
                    "device",
                ),
                "told",
            ),
        },
        {
            "decision": {
                "threshold": 0.0731,
                "temperature": 0.9,
                "offsets": [-0.2, -0.5, -0.9],
                "target_sensitivity": 0.95,
                "threshold_rule": "conformal",
                "expected_sensitivity": 30 / 31,
            }
        },
        {"images": {"all": 780, **dict.fromkeys(CLASSES, 260)}},
        {
            "split": {
                "train": part,
                "validation": part,
                "test": part,
                "excluded": {"all": 19},
                "test_images_with_copy_in_train": 0,
            }
        },
        JUDGING,
        CLASSES,
    )
    (made_of,) = (line for line in card.splitlines() if line.startswith("| made of |"))
    assert told in made_of
    assert made_of.count("|") == 3, "one row of the table"
    assert "from a probability of 0.0731 on" in card
    assert "of 95 % on new cancers like theirs; on new ones it can promise 96.8 %" in card
    assert format_share(scores["decision"], "specificity") in card
    assert "No medical device" in card


def test_an_interval_is_stacked_below_its_figure() -> None:
    stacked = stack_interval("85.2 % (82.4 to 87.9)")
    assert re.sub("<[^>]*>", "", stacked) == "85.2 % (82.4 to 87.9)"
    assert stacked.endswith('<span class="interval">(82.4 to 87.9)</span>')
    assert stack_interval("–") == "–"


def test_a_figure_of_a_table_carries_its_interval() -> None:
    table = pd.DataFrame(
        {
            "model": ["<new>", "old"],
            "malignant_auc": [0.9, 0.8],
            "malignant_auc_ci_low": [0.85, None],
            "malignant_auc_ci_high": [0.95, None],
            "seconds": [540.4, 5349.0],
            "found": ["this", None],
        }
    )

    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", show_table(table))

    assert cells == [
        *("model", "malignant auc", "seconds", "found"),
        *("&lt;new&gt;", "0.900 (0.850 to 0.950)", "540", "this"),
        *("old", "0.800", "5349", "–"),
    ]
