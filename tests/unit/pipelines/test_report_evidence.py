"""What the report rests on, what it says of each picture, and how it was made."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro_datasets.text import TextDataset

from busi_pipeline.hooks import ReportPlace
from busi_pipeline.pipelines.reporting.commands import write_command
from busi_pipeline.pipelines.reporting.evidence import PLOTS
from busi_pipeline.plotting.style import NothingToShow
from busi_pipeline.stats.scoring import format_number
from tests.evaluation_factories import THREE
from tests.report_factories import (
    PICTURE,
    RUN,
    draw_delivered,
    evaluate,
    make_everything,
    make_training_card,
    score_boxes_as,
    summarise_data,
    write_page,
)


class Reader(HTMLParser):
    """Keeps the tags of a page with their attributes, in order."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def find(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            own
            for name, own in self.tags
            if name == tag and all(own.get(key) == value for key, value in attributes.items())
        ]


def write(**found: Any) -> str:
    """Return the page with single spaces."""
    return re.sub(r"\s+", " ", write_page(**found))


def read_section(page: str, name: str) -> str:
    """Return a section of the page, from its heading up to the next."""
    start = page.index(f'<h2 id="{name}">')
    stop = page.find("<h2 ", start + 1)
    return page[start:] if stop < 0 else page[start:stop]


def list_alts(page: str) -> list[str]:
    return [own["alt"] or "" for own in Reader(page).find("img")]


# Evidence


def deliver(**more: Any) -> str:
    """Write the report of an experiment that was trained and tested, and not cross-validated."""
    delivered = {f"resnet50__{item}": plot for item, plot in draw_delivered().items()}
    metrics = evaluate(THREE, folds=1)
    card = make_training_card()
    return write(resnet50__metrics=metrics, resnet50__training_card=card, **delivered, **more)


@pytest.mark.parametrize("section", ["summary", "scores", "threshold", "calibration"])
def test_test_images_count_without_cross_validation(section: str) -> None:
    part = read_section(deliver(), section)
    assert "the test images of the hold-out split (120 images, 40 of them malignant)" in part
    assert "--pipeline=cross_validation<" not in part
    assert part.count("<img") == {"summary": 0, "scores": 2}.get(section, 1)


def test_summary_of_test_images_has_their_figures() -> None:
    summary = read_section(deliver(), "summary")
    test = evaluate(THREE, folds=1)["test"]
    assert format_number(test["positive"], "auc") in summary
    assert f"{test['flag']['missed']} of 40 malignant missed" in summary
    assert "One split leaves much to chance" in summary
    assert "kedro run --pipeline=cross_validate_resnet50<" in summary, "what would say more"


@pytest.mark.parametrize("section", ["summary", "scores", "threshold", "calibration"])
def test_cross_validation_goes_before_test_images(section: str) -> None:
    validated = evaluate(THREE, skill=3.0)
    page = deliver(resnet50__cross_validation_metrics=validated)
    part = read_section(page, section)
    assert "cross-validation, out of fold (5 folds, 120 evaluations)" in part
    assert "hold-out" not in part.partition("<h3>")[0]


def test_validation_images_are_the_last_resort() -> None:
    metrics = evaluate(THREE, folds=1)
    metrics["validation"] = metrics.pop("test")
    summary = read_section(write(resnet50__metrics=metrics), "summary")
    assert "on which thresholds were chosen: the figures are too good" in summary


def test_a_model_of_folds_is_evidence_of_its_own() -> None:
    delivered = {f"other__{item}": plot for item, plot in draw_delivered().items()}
    page = write(other__metrics=evaluate(THREE), **delivered)
    summary = read_section(page, "summary")
    assert "each image predicted by networks that did not learn from it (120 images)" in summary
    assert page.count("<img") == 4


def test_what_was_not_cross_validated_keeps_its_plots() -> None:
    page = deliver(other__cross_validation_metrics=evaluate(THREE))
    assert "<strong>Another</strong>: AUC for malignant" in page
    alts = list_alts(page)
    assert len(alts) == 4
    assert all("the test images of the hold-out split" in alt for alt in alts)


def test_a_threshold_is_named_where_all_images_were_flagged_at_it() -> None:
    point = {"threshold": 0.0123}
    delivered = {f"other__{item}": plot for item, plot in draw_delivered().items()}
    card = make_training_card() | {"operating_point": point}
    plots = {f"other__{name}_plot": PICTURE for name in PLOTS}
    of_folds = write(other__metrics=evaluate(THREE), other__training_card=card, **delivered)
    crossed = write(
        other__cross_validation_metrics=evaluate(THREE),
        other__operating_point={"operating_point": point},
        **plots,
    )
    for page in (of_folds, crossed):
        (alt,) = (own for own in list_alts(page) if "what a threshold costs" in own)
        assert "At the threshold: " in alt
        assert "each image is flagged at the threshold of its fold" in read_section(
            page, "threshold"
        )
    of_split = write(
        other__metrics=evaluate(THREE, folds=1), other__training_card=card, **delivered
    )
    (alt,) = (own for own in list_alts(of_split) if "what a threshold costs" in own)
    assert "At the threshold 0.0123: " in alt
    assert "threshold of its fold" not in of_split


def test_cross_validation_is_asked_for_where_one_split_is_all() -> None:
    assert "Cross-validation says more" in deliver()
    assert "Cross-validation says more" not in write(other__metrics=evaluate(THREE))


def test_figures_of_other_images_are_marked() -> None:
    """A cross-validation stays the best evidence when images were added, but not in silence."""
    old = evaluate(THREE, data_sha256="a")
    more = {"data_tags": {"data_sha256": "b"}, "resnet50__metrics": evaluate(THREE, folds=1)}
    page = write(resnet50__cross_validation_metrics=old, **more)
    assert "are of other images than there are now" in page
    assert "--pipeline=cross_validate_resnet50<" in read_section(page, "summary")
    same = write(resnet50__cross_validation_metrics=evaluate(THREE, data_sha256="b"), **more)
    assert "other images than there are now" not in same
    joined = write(ensemble__cross_validation_metrics=old, **more)
    assert "--pipeline=cross_validation<" in read_section(joined, "summary")


def test_lesion_boxes_are_described_by_the_images_that_are_drawn() -> None:
    found = {
        "lesion_boxes_plot": PICTURE,
        "localizer_metrics": {
            "localizer": {"validation": score_boxes_as(0.71), "test": score_boxes_as(0.82)}
        },
        "other__external_localizer": {
            "elsewhere": {"localizer": {"external": score_boxes_as(0.63)}}
        },
    }
    (alt,) = (own for own in list_alts(write(**found)) if "Lesions of test images" in own)
    assert "82.0 %" in alt
    assert "63.0 %" not in alt


# How it was made


def test_the_page_says_how_it_was_made() -> None:
    described = {"training_sha256": "t", "model_sha256": 8 * "feedbeef"}
    metrics = evaluate(THREE, folds=1, training_sha256="t")
    found = {
        "run_provenance": RUN,
        "data_summary": summarise_data(THREE),
        "data_tags": {"data_sha256": 8 * "0123abcd"},
        "resnet50__metrics": metrics,
        "resnet50__training_card": make_training_card(),
        "resnet50__model_description": described,
    }
    made = read_section(write(**found), "made")
    for text in (
        *(RUN["date"], RUN["git_commit"], "<code>demo</code>", "BUSI, 30 images"),
        *(8 * "0123abcd", 8 * "feedbeef", metrics["depends_on"]["split_sha256"]),
        *("0.0731, chosen on validation images", "cpu, float32"),
        "kedro run --env=demo --pipeline=train_resnet50 --params training.weights=none<",
        "kedro run --env=demo --pipeline=reporting --params training.weights=none<",
    ):
        assert text in made, text
    other = write(**found | {"resnet50__model_description": described | {"training_sha256": "u"}})
    assert "feedbeef" not in other, "a model file of another training"
    dirty = write(run_provenance=RUN | {"git_commit": "c0ffee-dirty"})
    assert "tracked files differ from this commit" in dirty


def test_every_command_has_the_environment_of_the_run() -> None:
    for page in (write(run_provenance=RUN), write(**make_everything())):
        commands = re.findall(r"kedro run[^<`]*", page)
        assert len(commands) > 5
        for command in commands:
            assert command.startswith("kedro run --env=demo --pipeline="), command


@pytest.mark.parametrize(
    ("run", "params", "expected"),
    [
        (None, [], "kedro run --pipeline=train_a"),
        ({"environment": None, "params": []}, [], "kedro run --pipeline=train_a"),
        (
            {"environment": "demo", "params": ["split.seed=1"]},
            ["external.site=rio"],
            "kedro run --env=demo --pipeline=train_a --params split.seed=1,external.site=rio",
        ),
        (
            {"params": ["external.site=cairo"]},
            ["external.site=rio"],
            "kedro run --pipeline=train_a --params external.site=rio",
        ),
        (
            {"params": ["external.folder=my images"]},
            [],
            "kedro run --pipeline=train_a --params 'external.folder=my images'",
        ),
    ],
)
def test_a_command_can_be_run_as_it_stands(
    run: dict[str, Any] | None, params: list[str], expected: str
) -> None:
    assert write_command("train_a", run, params) == expected


def test_a_run_says_where_its_report_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = DataCatalog({"report": TextDataset(filepath=str(tmp_path / "report.html"))})
    writes, reads = Node(len, "a", "report", name="w"), Node(len, "report", "b", name="r")
    with caplog.at_level("INFO", logger="busi_pipeline"):
        ReportPlace().after_pipeline_run(Pipeline([reads]), catalog)
        assert caplog.messages == []
        ReportPlace().after_pipeline_run(Pipeline([writes]), catalog)
    assert caplog.messages == [f"report: {tmp_path / 'report.html'}"]


# Pictures


def test_each_picture_says_what_it_shows() -> None:
    page = deliver()
    test = evaluate(THREE, folds=1)["test"]
    flag = test["flag"]
    confusion, curves, decision, calibration = list_alts(page)
    assert f"{test['correct']} of 120 correct" in confusion
    flagged = f"{flag['missed']} of 40 malignant missed, {flag['false_alarms']} of 80 non-malignant"
    assert flagged in confusion
    assert f"malignant against all others {format_number(test['positive'], 'auc')}" in curves
    assert "At the threshold 0.0731" in decision
    assert flagged in decision
    after = format_number(test["calibration"]["calibrated"], "error")
    assert f"{after} after" in calibration


def test_no_picture_is_named_and_nothing_else() -> None:
    page = write(**make_everything())
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    bare = [
        alt
        for alt, caption in zip(list_alts(page), captions, strict=True)
        if len(alt) <= len(caption)
    ]
    assert len(captions) > 20
    assert bare == ["Burned-in annotations that were found, the least certain of each kind"]


def test_nothing_to_show_is_said_in_place_of_a_picture() -> None:
    why = NothingToShow("No test image is misclassified.")
    metrics = evaluate(THREE, folds=1)
    page = write(resnet50__metrics=metrics, resnet50__misclassified_plot=why)
    assert f"Nothing to show: {why}</p>" in page
    assert "<img" not in page


# Lesions and sites


def test_lesions_and_sites_are_there_beside_the_default() -> None:
    page = write(**make_everything())
    outside = read_section(page, "external")
    for text in (
        *("found by the localizer, or the whole image", "known to be there", "box of a reader"),
        *("Each site left out in turn", "<td>0.812 <span", "own site"),
        *("AUC and flag in subgroups", "the images on which it is most wrong"),
    ):
        assert text in outside, text
    lesion = read_section(page, "lesion")
    for text in ("hold-out split", "at elsewhere", "85.0 %", "60.0 %", "as drawn by readers"):
        assert text in lesion, text
    assert "misclassified images" in lesion
    assert "of what is known above chance" in read_section(page, "bias")


# Reading


def test_page_has_landmarks_and_headings_in_order() -> None:
    read = Reader(write(**make_everything()))
    assert [len(read.find(tag)) for tag in ("main", "header", "nav", "h1")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert read.find("meta", name="viewport")
    assert read.find("nav", **{"aria-label": "Sections"})


def test_what_scrolls_can_be_reached_and_is_named_once() -> None:
    read = Reader(write(**make_everything()))
    regions = [own for own in read.find("div") if own.get("class") == "scroll"]
    assert len(regions) == len(read.find("table")) + len(read.find("img")) > 30
    assert all(own["role"] == "region" and own["tabindex"] == "0" for own in regions)
    labels = [own["aria-label"] for own in regions]
    assert all(labels)
    assert sorted({*labels}) == sorted(labels), "no two are called the same"


def test_text_of_pictures_is_ten_pixels_or_more() -> None:
    (image,) = Reader(write(duplicate_pairs_plot=PICTURE)).find("img")
    style = image["style"] or ""
    least = int(re.findall(r"min-width:(\d+)px", style)[0])
    assert least / 11 * 8.5 / 72 >= 10, "eleven inches with a text of 8.5 points"
    assert least <= 1056, "and it fits the page at 1300 pixels"
