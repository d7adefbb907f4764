"""The report says what was found, of the data that it was found on, and names what was not run."""

import base64
import re
from html import unescape
from typing import Any

import pandas as pd
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.pipelines.model_comparison.nodes import compare_experiments
from busi_pipeline.pipelines.reporting import create_experiment_pipeline, create_pipeline
from busi_pipeline.pipelines.reporting.checklists import ITEMS
from busi_pipeline.pipelines.reporting.nodes import write_model_card
from busi_pipeline.pipelines.reporting.rendering import INTERVALS, show_table, stack_interval
from busi_pipeline.pipelines.reporting.wording import describe_plan
from busi_pipeline.plotting.style import DEMO_BANNER
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.comparison import compare_predictions
from busi_pipeline.stats.scoring import format_number, format_share
from tests.evaluation_factories import (
    CLASS_SETS,
    EVALUATION,
    FOUR,
    THREE,
    TWO,
    make_external_metrics,
    make_metrics,
    make_predictions,
)
from tests.factories import load_parameters, make_settings
from tests.report_factories import (
    FACT,
    LIMITATION,
    PICTURE,
    describe_dataset,
    evaluate,
    make_audit,
    make_training_card,
    summarise_data,
    summarise_duplicates,
    summarise_split,
    write_card,
    write_page,
)


def write(classes: Classes = THREE, **found: Any) -> str:
    """Return the page with single spaces."""
    return re.sub(r"\s+", " ", write_page(classes, **found))


def test_what_was_not_run_is_named() -> None:
    page = write()
    for command in (
        "ingestion",
        "deduplication",
        "splitting",
        "cross_validation",
        "model_comparison",
        "leakage",
        "bias_audit_resnet50",
    ):
        assert f"kedro run --pipeline={command}<" in page
    assert "<img" not in page


def test_an_experiment_beside_the_default_is_there_once_it_was_run() -> None:
    assert "bias_audit_other" not in write()
    page = write(other__cross_validation_metrics=evaluate(THREE))
    assert "<strong>Another</strong>: AUC for malignant" in page
    assert "kedro run --pipeline=bias_audit_other<" in page


def test_report_says_how_much_the_lesion_carries() -> None:
    page = write(
        resnet50__bias_audit=make_audit(0.93, 0.887),
        resnet50__bias_audit_plot=PICTURE,
        other__bias_audit=make_audit(0.5, 0.6),
        other__bias_audit_plot=PICTURE,
    )
    assert "0.887" in page
    assert "<td>10 %</td>" in page, "0.043 of 0.43"
    assert "0.849" in page
    assert "<td>–</td>" in page, "it knows nothing to lose"
    negative = write(resnet50__bias_audit=make_audit(0.9, 0.95), resnet50__bias_audit_plot=PICTURE)
    assert "<td>–</td>" in negative, "no share"
    assert "goes with the lesion" not in write(resnet50__bias_audit=make_audit(*[float("nan")] * 2))


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_report_holds_every_class_whatever_its_name(classes: Classes) -> None:
    metrics = evaluate(classes)
    better, probe = evaluate(classes, 3.0), evaluate(classes, 1.0)
    names = {name: make_predictions(classes, seed=n) for n, name in enumerate(("resnet50", "b"))}
    page = write(
        classes,
        resnet50__cross_validation_metrics=metrics,
        resnet50__linear_probe_metrics={"linear_probe": probe["test"]},
        resnet50__confusion_matrix_plot=PICTURE,
        ensemble__cross_validation_metrics=better,
        data_summary=summarise_data(classes),
        split_summary=summarise_split(classes),
        comparison_table=compare_experiments(
            classes, describe_dataset(classes), None, resnet50=metrics
        ),
        cross_validation_comparisons=compare_predictions(classes, EVALUATION, **names),
    )
    *first, last = classes.names
    assert f"<h1>Breast ultrasound: {', '.join(first)} or {last}</h1>" in page
    for name in classes:
        assert f"10 {name}" in page
        assert str(stack_interval(format_share(better["test"][name], "sensitivity"))) in page
    for scores in (metrics["test"], better["test"], probe["test"]):
        assert format_number(scores["positive"], "auc").split(" ")[0] in page
    for scores in (metrics["test"], better["test"]):
        flag = scores["flag"]
        assert f"<td>{flag['missed']} of {flag['positives']}</td>" in page
    assert f"AUC, {classes.positive_name}" in page
    assert "<strong>All together</strong> has the highest AUC" in page
    if "malignant" not in classes.names:
        assert "malignant" not in page


def test_positive_classes_and_missed_are_defined() -> None:
    assert "Positive class: malignant. All other images are non-malignant." in write()
    page = write(FOUR)
    assert "Positive classes: suspicious and cancer." in page
    assert "is suspicious or cancer and is not flagged for review" in page
    assert "the flag is the decision" in page


def test_missed_counts_what_is_not_flagged() -> None:
    metrics = evaluate(THREE, 0.8)
    flag, by_class = metrics["test"]["flag"], metrics["test"]["positive"]
    assert flag["missed"] != by_class["missed"], "the case says nothing otherwise"
    page = write(resnet50__cross_validation_metrics=metrics)
    assert f"<td>{flag['missed']} of {flag['positives']}</td>" in page
    assert f"{by_class['missed']} of {by_class['images']}" not in page


def test_figures_and_pictures_are_on_the_page() -> None:
    gain = pd.DataFrame(
        {
            "metric": ["accuracy", "sensitivity of the flag"],
            "difference": [0.0421, 0.0999],
            "difference_ci_low": [0.01, 0.01],
            "difference_ci_high": [0.07, 0.07],
            "verdict": ["better", "better"],
        }
    )
    page = write(
        resnet50__cross_validation_metrics=evaluate(THREE),
        resnet50__confusion_matrix_plot=PICTURE,
        resnet50__fine_tuning_gain=gain,
        leakage_table=pd.DataFrame(
            {"experiment": ["resnet50", "<b>"], "random": 0.91, "p_value": 0.1, "p_corrected": 1e-5}
        ),
        duplicate_summary=summarise_duplicates(),
    )
    assert "343 images belong to 153 groups" in page
    encoded = base64.b64encode(PICTURE).decode()
    assert page.count("data:image/png;base64,") == page.count(encoded) == 1
    assert "<strong>ResNet &lt;50&gt;</strong>" in page, "names are escaped"
    assert "<td>ResNet &lt;50&gt;</td>" in page, "titles, not names of parameters"
    assert "<td>&lt;b&gt;</td>" in page
    assert "0.910" in page
    assert "&lt; 0.001" in page, "a p-value is never 0"
    assert "+0.042" in page
    assert "+0.100" not in page, "the flag has a section of its own"
    assert "Every image was evaluated" not in page
    assert "http" not in page.replace("https://www.w3.org", ""), "nothing is loaded from elsewhere"


def test_repeated_evaluations_do_not_pass_for_images() -> None:
    thrice = evaluate(THREE) | {"repeats": 3}
    page = write(resnet50__cross_validation_metrics=thrice)
    assert "Every image was evaluated 3 times" in page
    assert "5 folds, each image 3 times" in page


def test_interval_is_explained_as_what_it_is() -> None:
    assert "about 95 of 100 intervals made this way would contain the true value" in INTERVALS
    page = write(resnet50__cross_validation_metrics=evaluate(THREE))
    assert INTERVALS in page
    assert "95 of 100 repetitions" not in page


def test_facts_appear_only_where_counts_match() -> None:
    data = summarise_data(THREE)
    known = write(data_summary=data)
    assert all(text in known for text in ("BUSI (Al-Dhabyani 2020)", FACT, LIMITATION))
    for page in (write(data_summary=summarise_data(THREE, 11)), write()):
        assert not any(text in page for text in ("BUSI (", "Dhabyani", FACT, LIMITATION))
        assert "put them under <code>dataset.limitations</code>" in page
    assert "are not configured for these images" in write(data_summary=summarise_data(THREE, 11))


def test_synthetic_data_put_a_banner_on_the_page() -> None:
    demo = describe_dataset(THREE, synthetic=True)
    page = write(dataset=demo, data_summary=summarise_data(THREE, 12))
    assert f'<aside class="demo" aria-label="Warning"><p>{DEMO_BANNER}</p></aside>' in page
    assert "there are no patients" in page
    assert "not configured" not in page
    assert "DEMO" not in write()


def test_a_known_set_without_facts_is_said_so() -> None:
    bare = describe_dataset(THREE, facts=(), limitations=())
    page = write(dataset=bare, data_summary=summarise_data(THREE))
    assert "Facts about patients, scanners and place are not configured" in page
    assert "Limitations of this data set are not configured" in page
    assert "Facts of BUSI" not in page


def test_initial_weights_are_those_of_the_results() -> None:
    assert "pretrained on everyday photographs (ImageNet)" in write()
    random = write(resnet50__cross_validation_metrics=evaluate(THREE, weights="none"))
    assert "Training starts from random weights." in random
    assert "ImageNet" not in random


def test_a_model_that_ranks_like_chance_is_named() -> None:
    permuted = write(resnet50__cross_validation_metrics=evaluate(THREE, skill=0.0))
    assert (
        "ResNet &lt;50&gt;: it is not shown that malignant is ranked better than by chance, AUC 0."
        in permuted
    )
    right = write(resnet50__cross_validation_metrics=evaluate(THREE))
    assert "by chance, AUC" not in right


def test_random_folds_are_no_clean_evaluation() -> None:
    page = write(resnet50__cross_validation_metrics=evaluate(THREE, split_method="random"))
    assert "these figures are too high" in page
    assert "or a duplicate of it" not in page
    assert "or a duplicate of it" in write(resnet50__cross_validation_metrics=evaluate(THREE))


def test_none_significant_is_said_so() -> None:
    same = make_predictions(THREE)
    pairs = compare_predictions(THREE, EVALUATION, resnet50=same, ensemble=same)
    page = write(cross_validation_comparisons=pairs)
    assert "<p>None significant.</p>" in page
    assert "Significant differences" not in page
    assert "None significant" not in write(cross_validation_comparisons=pairs.head(0))


@pytest.mark.parametrize("images", [0, 12])
def test_localization_may_lack_masks(images: int) -> None:
    names = ("pointing_hit", "lesion_area", "gradcam_inside")
    scores = {name + end: 0.5 for name in names for end in ("", "_ci_low", "_ci_high")}
    record = {"localization": {"images": images} | (scores if images else {})}
    page = write(resnet50__localization_metrics=record)
    assert ("50.0 %" in page) == bool(images)
    assert ("No test image has a lesion mask." in page) == (not images)


def test_every_item_points_to_a_section() -> None:
    page = write()
    sections = set(re.findall(r'<h2 id="(\w+)"', page))
    assert {item.place for item in ITEMS} <= sections
    assert set(re.findall(r'href="#(\w+)"', page)) == sections
    guidelines = {item.guideline for item in ITEMS}
    assert guidelines == {"TRIPOD+AI", "CLAIM", "STARD, STARD-AI", "FUTURE-AI"}


def test_checklists_hold_for_any_data_set() -> None:
    text = " ".join(item.answer for item in ITEMS)
    for word in ("ImageNet", "public", "vendor", "cancer", "hospital"):
        assert word not in text


def test_model_card_of_a_model_that_was_tested_nowhere_else_says_so() -> None:
    card = write_card()
    assert "The model was not tested on another site." in card
    assert card.index("## At other sites") < card.index("## On the test images")


def test_model_card_has_the_external_figures_of_this_model_alone() -> None:
    predictions = make_predictions(TWO, skill=0.7)
    of_site = make_external_metrics(predictions, TWO)
    earlier = make_external_metrics(predictions, TWO, "old clinic", training="earlier")
    card = write_card(external={"elsewhere": of_site, "old clinic": earlier})
    auc = format_number(of_site["external"]["images"], "auc")
    assert f"| elsewhere | 120 (60) | {auc} |" in card
    assert "old clinic" not in card
    assert "not tested on another site" not in card


def test_model_card_takes_the_newest_external_figures() -> None:
    of_site = make_external_metrics(make_predictions(TWO, skill=0.7), TWO)
    newest = make_external_metrics(make_predictions(TWO, skill=3.0), TWO)
    card = write_card(external={"elsewhere": of_site}, newest=newest)
    assert format_number(newest["external"]["images"], "auc") in card
    assert format_number(of_site["external"]["images"], "auc") not in card


def test_report_sets_external_figures_before_all_others() -> None:
    metrics = evaluate(THREE, training_sha256="t")
    of_site = make_external_metrics(make_predictions(TWO, skill=0.7), TWO)
    page = write(
        resnet50__metrics=metrics,
        resnet50__cross_validation_metrics=metrics,
        resnet50__external_results={"elsewhere": of_site},
        resnet50__external_curves={"elsewhere": PICTURE},
        external_comparison_plots={"elsewhere": PICTURE},
    )
    auc = format_number(of_site["external"]["images"], "auc")
    inside = page.index("<strong>ResNet &lt;50&gt;</strong>: AUC for malignant")
    assert page.index(f"ResNet &lt;50&gt; has an AUC of {auc}") < inside
    assert page.count("<img") == 2
    assert "finding, cost missed" in page
    assert "Not run yet. Nothing here says" not in page


def test_report_names_external_figures_of_an_earlier_model_as_such() -> None:
    of_site = make_external_metrics(make_predictions(TWO), TWO, training="earlier")
    page = write(
        resnet50__metrics=evaluate(THREE, training_sha256="t"),
        resnet50__external_results={"elsewhere": of_site},
    )
    assert "At elsewhere, ResNet &lt;50&gt; was tested before the last training." in page
    assert format_number(of_site["external"]["images"], "auc") not in page


@pytest.mark.parametrize(
    ("best_epoch", "expected"),
    [
        ({"head": 1}, "the frozen network; no fine-tuning; averaged over the image"),
        ({"head": 1, "fine_tuning": 0}, "was rolled back; averaged over the image"),
        (
            {"head": 1, "fine_tuning": 7},
            "for 7 epochs, averaged with the network before fine-tuning; a",
        ),
    ],
)
def test_model_card_says_how_it_was_trained(best_epoch: dict[str, int], expected: str) -> None:
    assert expected in read_row(write_card(best_epoch=best_epoch), "training")


def read_row(card: str, name: str) -> str:
    """Return a row of the card's table, which is one line."""
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {name} |"))
    assert line.count("|") == 3, "one row of the table"
    return line


@pytest.mark.parametrize(
    ("best_epoch", "training", "learned"),
    [
        ({"head": 1, "fine_tuning": 7}, {}, "8 of each training image: rotated"),
        ({"head": 1, "fine_tuning": 0}, {}, "none: what is delivered has learned from the"),
        ({"head": 1}, {}, "none: what is delivered has learned from the images as they are"),
        ({"head": 1, "fine_tuning": 0}, {"head_learns_from": "all"}, "8 of each training image"),
        ({"head": 3}, {"head_solver": "gradient"}, "8 of each training image"),
    ],
)
def test_model_card_says_which_images_were_augmented(
    best_epoch: dict[str, int], training: dict[str, Any], learned: str
) -> None:
    settings = make_settings(augmentation={"per_image": 8}, training=training)
    card = write_card(best_epoch=best_epoch, settings=settings)
    assert learned in read_row(card, "augmented images")


def test_what_was_rolled_back_is_nowhere_called_fine_tuned() -> None:
    best_epoch = {"head": 1, "fine_tuning": 0}
    card = write_card(best_epoch=best_epoch)
    page = write(
        resnet50__metrics=evaluate(THREE, folds=1),
        resnet50__training_card=make_training_card(best_epoch=best_epoch),
    )
    for text in (card, page):
        assert "fine-tuning was no better on validation images and was rolled back" in text
        assert "fine-tuned for" not in text
        assert "averaged with the network before fine-tuning" not in text
    assert "as set" not in page[page.index('<h2 id="models">') :].partition("Another")[0]


def test_models_without_a_record_are_described_as_set() -> None:
    page = write(resnet50__cross_validation_metrics=evaluate(THREE))
    assert "as set: up to" in page
    frozen = make_settings(training={"fine_tuning": {"epochs": 0}})
    assert describe_plan(frozen).endswith("of the frozen network; no fine-tuning")


def test_model_card_of_the_fold_networks_has_no_test_images() -> None:
    bag = load_parameters()["experiments"]["lesion_ensemble"]
    card = write_card(settings=bag)
    assert "## Out of fold" in card
    assert "On the test images" not in card
    assert "test images leave much to chance" not in card
    assert "as each member's" in read_row(card, "augmented images")
    assert "for testing" not in card


def test_model_card_says_where_the_target_cannot_be_promised() -> None:
    too_few = write_card(expected_sensitivity=11 / 12)
    assert "below the target, since there were too few malignant images" in too_few
    assert "below the target" not in write_card()


def test_commands_of_a_card_have_the_environment_of_its_run() -> None:
    commands = re.findall(r"kedro run[^`]*", write_card())
    assert len(commands) == 3
    assert all(own.startswith("kedro run --env=demo --pipeline=") for own in commands)
    earlier = make_training_card()
    del earlier["run"]
    assert "`kedro run --pipeline=reporting`" in write_model_card(earlier, {})


def test_a_card_without_a_record_of_the_training_is_refused() -> None:
    with pytest.raises(BadInputError, match="train the experiment again"):
        write_model_card(None, {})


def test_model_card_of_joined_members_names_them() -> None:
    joined = load_parameters()["experiments"]["lesion_ensemble"]
    card = write_card(settings=joined)
    assert f"The mean of the probabilities of {' and '.join(joined.members)} at 224 x 224" in card
    assert "| training | each member on 5 folds of a cross-validation" in card
    assert "cross-conformal: an estimate" in card
    images = make_predictions(THREE)["split"].eq("test").sum()
    assert f"from all {images} images of the folds" in card
    hold_out = write_card(settings=joined.updated({"of_folds": False}))
    assert "| training | none of its own: each member has a card" in hold_out
    assert "split conformal prediction" in hold_out
    assert (
        "(n, 3, 224, 224, 3): the lesion with 50, 20 and 80 % of its longer side around it" in card
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "uint8 RGB, (n, 224, 224, 3), stretched to this size (bilinear); norm"),
        (
            {"keep_aspect": True, "remove_borders": True},
            "(n, 224, 224, 3): the whole image, at its true shape, empty borders cut off; norm",
        ),
        (
            {"view": "both", "margin": 0.25, "grey": True},
            "(n, 2, 224, 224, 3): the lesion with 25 % of its longer side around it and the whole "
            "image, stretched, without colour; the localizer beside the model finds the lesion; n",
        ),
    ],
)
def test_model_card_says_what_the_network_sees(changes: dict[str, Any], expected: str) -> None:
    card = write_card(settings=make_settings(input=changes))
    (line,) = (line for line in card.splitlines() if line.startswith("| input |"))
    assert expected in line


@pytest.mark.parametrize("classes", CLASS_SETS, ids=len)
def test_model_card_puts_the_flag_first(classes: Classes) -> None:
    card = write_card(classes)
    flag = make_metrics(make_predictions(classes), classes)["test"]["flag"]
    assert "**The flag for review is the decision.**" in card
    assert "0.0731 or higher" in card
    assert "of 95 % on new images like them (split conformal prediction)" in card
    assert "expected sensitivity on new images like them: 96.8 %" in card
    positive = classes.positive_name
    assert f"| missed (not flagged) | {flag['missed']} of {flag['positives']} {positive} |" in card
    assert format_share(flag, "specificity") in card
    assert "no medical device" in card
    assert INTERVALS in card
    assert all(f"-0.200 {name}" in card for name in classes)


def test_model_card_holds_facts_of_its_own_data_alone() -> None:
    assert all(text in write_card() for text in ("BUSI (Al-Dhabyani 2020)", FACT, LIMITATION))
    other = write_card(dataset=describe_dataset(THREE, images={"benign": 1}))
    assert not any(text in other for text in ("BUSI", FACT, LIMITATION))
    assert "are not configured for these images" in other
    demo = describe_dataset(THREE, images={"benign": 1}, synthetic=True)
    assert f"> **{DEMO_BANNER}**" in write_card(dataset=demo)
    assert "DEMO" not in other


def test_model_card_of_random_weights_says_so() -> None:
    card = write_card(weights="none")
    assert "| initial weights | random |" in card
    assert "ImageNet" not in card


def test_old_words_are_gone() -> None:
    page = unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", write()))
    for word in ("judge", "cannot tell", "told", "frozen probe", "copies", "cancers", "recipe"):
        assert word not in page + write_card(), word


def test_an_interval_is_stacked_below_its_figure() -> None:
    stacked = stack_interval("85.2 % (82.4 to 87.9)")
    assert re.sub("<[^>]*>", "", stacked) == "85.2 % (82.4 to 87.9)"
    assert stacked.endswith('<span class="interval">(82.4 to 87.9)</span>')
    assert stack_interval("–") == "–"


def test_a_figure_of_a_table_carries_its_interval() -> None:
    table = pd.DataFrame(
        {
            "model": ["<new>", "old"],
            "positive_auc": [0.9, 0.8],
            "positive_auc_ci_low": [0.85, None],
            "positive_auc_ci_high": [0.95, None],
            "seconds": [540.4, 5349.0],
            "found": ["this", None],
        }
    )
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", show_table(table))
    assert cells == [
        *("model", "positive auc", "seconds", "found"),
        *("&lt;new&gt;", '0.900 <span class="interval">(0.850 to 0.950)</span>', "540", "this"),
        *("old", "0.800", "5349", "–"),
    ]


def test_pipelines_read_what_the_catalog_names() -> None:
    inputs = create_pipeline(["vgg16"]).inputs()
    assert {
        "vgg16.metrics",
        "vgg16.cross_validation.metrics",
        "vgg16.cross_validation.decision_curve_plot",
        "ensemble.cross_validation.linear_probe_metrics",
        "cross_validation_comparisons",
        "params:dataset",
    } <= inputs
    assert "ensemble.metrics" not in inputs
    card = create_experiment_pipeline("vgg16")
    assert card.outputs() == {"vgg16.model_card"}
    assert {
        "vgg16.operating_point",
        "data_summary",
        "params:dataset",
        "params:experiments.vgg16",
    } <= card.inputs()
