"""Scoring of tables: any classes, honest intervals, what the flag means."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.calibration import Calibration, measure_calibration_error
from busi_pipeline.stats.classes import RESERVED_NAMES, Classes
from busi_pipeline.stats.scoring import (
    OperatingPoint,
    apply_operating_point,
    can_promise_target,
    fit_operating_point,
    format_number,
    format_share,
    probability_columns,
    score_predictions,
    select_test,
)

Make = Callable[..., Any]
KINDS = ["two", "three", "four", "odd"]
SCORES = {
    "images", "correct", "accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "loss",
    "loss_smoothed", "positive", "calibration", "flag",
}  # fmt: skip


def list_shares(
    scores: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float, float, float]]:
    """Yield the path, value and interval of every share."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from list_shares(value, (*path, name))
        elif isinstance(value, float) and not name.endswith(("_ci_low", "_ci_high")):
            ends = scores[f"{name}_ci_low"], scores[f"{name}_ci_high"]
            yield (*path, name), value, *ends


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_every_share_of_any_classes_has_an_interval(
    make_classes: Make, make_predictions: Make, make_evaluation: Make, kind: str
) -> None:
    classes = make_classes(kind)
    scores = score_predictions(make_predictions(classes), classes, make_evaluation())
    names = {name for name in scores if not name.endswith(("_ci_low", "_ci_high"))}
    assert names == SCORES | set(classes)
    shares = list(list_shares(scores))
    assert len(shares) == 6 + 7 * (len(classes) + 1) + 4 + 6
    for path, value, low, high in shares:
        assert low < high, path
        assert low - 0.02 <= value <= high + 0.02, path
    json.dumps(scores)


def find_least(trials: int) -> float:
    """Return the lower bound of a share of 1."""
    return float(proportion_confint(trials, trials, method="wilson")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_of_a_perfect_model_is_without_width(
    make_classes: Make, make_predictions: Make, make_evaluation: Make, kind: str
) -> None:
    classes = make_classes(kind)
    table = make_predictions(classes, skill=12, count=24 * len(classes), group_size=2)
    table["flagged"] = classes.is_positive(table["label"])
    scores = score_predictions(table, classes, make_evaluation())
    trials = {  # 12 groups a class
        "sensitivity": 12 * len(classes.positive),
        "specificity": 12 * (len(classes) - len(classes.positive)),
    }
    for path, value, low, high in list_shares(scores):
        assert low < high, path
        if value == 1:
            assert high == pytest.approx(1), path
            assert low < find_least(12 * len(classes)) + 1e-9 or "at_prevalence" in path[-1]
        if path[0] in ("positive", "flag") and path[-1] in trials:
            assert low == pytest.approx(find_least(trials[path[-1]])), path
    of_class = scores[classes.names[0]]
    for metric in ("sensitivity", "precision", "f1", "auc", "average_precision"):
        assert of_class[f"{metric}_ci_low"] == pytest.approx(find_least(12)), metric
    of_rest = find_least(12 * (len(classes) - 1))
    for metric in ("specificity", "specificity_at_90_sensitivity"):
        assert of_class[f"{metric}_ci_low"] == pytest.approx(of_rest), metric
    for metric in ("balanced_accuracy", "macro_f1", "macro_auc"):
        assert scores[f"{metric}_ci_low"] == pytest.approx(find_least(12)), metric
    assert scores["accuracy_ci_low"] == pytest.approx(find_least(12 * len(classes)))


def test_class_that_is_never_predicted_is_known_badly(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("three")
    table = make_predictions(classes, skill=0)
    table["p_normal"] = 0.0
    scores = score_predictions(table, classes, make_evaluation())["normal"]
    assert (scores["sensitivity"], scores["sensitivity_ci_low"]) == (0, 0)
    assert scores["sensitivity_ci_high"] == pytest.approx(1 - find_least(40))
    assert (scores["precision_ci_low"], scores["precision_ci_high"]) == (0, 1)
    assert scores["f1_ci_high"] > scores["sensitivity_ci_high"]


def test_repeats_of_an_image_are_one_trial(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("two")
    table = make_predictions(classes, skill=12)
    thrice = pd.concat([table.assign(repeat=r) for r in (1, 2, 3)], ignore_index=True)
    once, again = (score_predictions(t, classes, make_evaluation()) for t in (table, thrice))
    low = once["positive"]["sensitivity_ci_low"]
    assert again["positive"]["sensitivity_ci_low"] == pytest.approx(low)


def test_scores_do_not_depend_on_the_names(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    plain, odd = make_classes("three"), make_classes("odd")
    one = score_predictions(make_predictions(plain), plain, make_evaluation())
    other = score_predictions(make_predictions(odd), odd, make_evaluation())
    for name, odd_name in zip(plain, odd, strict=True):
        assert one.pop(name) == other.pop(odd_name)
    assert one == other


def test_reserved_names_are_the_keys_of_the_scores(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("two")
    scores = score_predictions(make_predictions(classes), classes, make_evaluation())
    assert set(scores) - set(classes) <= RESERVED_NAMES


def test_class_missing_from_the_table_is_refused(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("three")
    table = make_predictions(classes)
    with pytest.raises(BadInputError, match=r"no image of class \['normal'\]"):
        score_predictions(table[table["label"] != "normal"], classes, make_evaluation())


@pytest.mark.parametrize("kind", KINDS)
def test_flag_and_likeliest_class_are_two_things(make_classes: Make, kind: str) -> None:
    classes: Classes = make_classes(kind)
    probabilities = np.full((2, len(classes)), 0.1 / (len(classes) - 1))
    first_negative = next(i for i, name in enumerate(classes) if name not in classes.positive)
    probabilities[:, first_negative] = 0.9
    table = pd.DataFrame({"label": [classes.positive[0]] * 2})
    table[probability_columns(classes, uncalibrated=True)] = probabilities
    score = float(classes.positive_score(probabilities)[0])
    unchanged = Calibration(1.0, (0.0,) * len(classes))
    applied = [
        apply_operating_point(table, OperatingPoint(unchanged, at, 0.9), classes)
        for at in (score - 1e-6, score + 1e-6)
    ]
    assert [t["flagged"].tolist() for t in applied] == [[True, True], [False, False]]
    assert set(applied[0]["predicted"]) == {classes.names[first_negative]}
    assert not applied[0]["correct"].any()
    np.testing.assert_allclose(applied[0][probability_columns(classes)], probabilities)


def test_image_at_the_threshold_is_flagged(make_classes: Make) -> None:
    classes = make_classes("two")
    table = pd.DataFrame({"label": ["benign"]})
    table[probability_columns(classes, uncalibrated=True)] = [[0.75, 0.25]]
    calibrated = apply_operating_point(
        table, OperatingPoint(Calibration(1.0, (0.0, 0.0)), 0.0, 0.9), classes
    )
    at = float(calibrated["p_malignant"].iloc[0])
    again = apply_operating_point(
        table, OperatingPoint(Calibration(1.0, (0.0, 0.0)), at, 0.9), classes
    )
    assert again["flagged"].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["conformal", "empirical"])
def test_operating_point_reaches_its_target(
    make_classes: Make, make_predictions: Make, make_evaluation: Make, kind: str, rule: str
) -> None:
    classes = make_classes(kind)
    evaluation = make_evaluation(target_sensitivity=0.9, threshold_rule=rule)
    table = make_predictions(classes)
    chosen = fit_operating_point(table, classes, evaluation)
    assert can_promise_target(chosen, evaluation)
    flagged = apply_operating_point(table, chosen, classes)["flagged"]
    assert flagged[classes.is_positive(table["label"])].mean() >= 0.9
    record = chosen.describe()
    assert set(record) == {"temperature", "offsets", "threshold", "expected_sensitivity"}
    assert len(record["offsets"]) == len(classes)
    json.dumps(record)


def test_the_threshold_given_a_lesion_is_chosen_on_lesions(
    make_predictions: Make, make_evaluation: Make
) -> None:
    classes = Classes(("benign", "malignant", "normal"), ("malignant",), ("normal",))
    evaluation = make_evaluation(target_sensitivity=0.9, threshold_rule="empirical")
    table = make_predictions(classes)
    chosen = fit_operating_point(table, classes, evaluation)
    assert chosen.threshold_given_lesion is not None
    assert chosen.describe()["threshold_given_lesion"] == chosen.threshold_given_lesion
    lesions = table[table["label"] != "normal"]
    calibrated = apply_operating_point(lesions, chosen, classes)[probability_columns(classes)]
    shares = calibrated["p_malignant"] / (calibrated["p_malignant"] + calibrated["p_benign"])
    flagged = shares >= chosen.threshold_given_lesion
    is_positive = lesions["label"] == "malignant"
    assert 0.9 <= flagged[is_positive].mean() < 0.95
    assert flagged[~is_positive].mean() < 1
    alone = fit_operating_point(table[table["label"] != "benign"], classes, evaluation)
    assert alone.threshold_given_lesion is None, "every lesion is malignant"


def test_without_a_positive_image_there_is_no_threshold(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("four")
    table = make_predictions(classes)
    benign = table[table["label"] == "benign"]
    with pytest.raises(BadInputError, match="validation images is malignant or suspicious"):
        fit_operating_point(benign, classes, make_evaluation())


@pytest.mark.parametrize(
    ("rule", "expected", "target", "promised"),
    [
        ("conformal", 1 - 7 / 100, 0.93, True),
        ("conformal", 0.94, 0.95, False),
        ("conformal", 0.96, 0.95, True),
        ("empirical", 0.5, 0.95, True),
    ],
)
def test_target_reached_to_rounding_is_promised(
    make_evaluation: Make, rule: str, expected: float, target: float, promised: bool
) -> None:
    evaluation = make_evaluation(threshold_rule=rule, target_sensitivity=target)
    point = OperatingPoint(Calibration(1.0, ()), 0.5, expected)
    assert can_promise_target(point, evaluation) == promised


def test_ninety_nine_positives_promise_93_percent(
    make_classes: Make, make_evaluation: Make
) -> None:
    classes = make_classes("two")
    table = pd.DataFrame({"label": ["malignant"] * 99 + ["benign"] * 99})
    malignant = np.concatenate([np.linspace(0.3, 0.9, 99), np.linspace(0.1, 0.7, 99)])
    table[probability_columns(classes, uncalibrated=True)] = np.stack(
        [1 - malignant, malignant], axis=1
    )
    evaluation = make_evaluation(target_sensitivity=0.93)
    assert can_promise_target(fit_operating_point(table, classes, evaluation), evaluation)


def test_columns_are_named_by_class(make_classes: Make) -> None:
    assert probability_columns(make_classes("two")) == ["p_benign", "p_malignant"]
    names = probability_columns(make_classes("two"), uncalibrated=True)
    assert names == ["uncalibrated_benign", "uncalibrated_malignant"]


def test_only_test_images_are_selected() -> None:
    table = pd.DataFrame({"split": ["validation", "test"], "n": [1, 2]})
    assert select_test(table)["n"].tolist() == [2]


def test_numbers_are_printed_with_their_interval() -> None:
    scores = {"a": 0.8553, "a_ci_low": 0.7861, "a_ci_high": 0.9149}
    assert format_share(scores, "a") == "85.5 % (78.6 to 91.5)"
    assert format_number(scores, "a") == "0.855 (0.786 to 0.915)"
    assert format_share(dict.fromkeys(scores, float("nan")), "a") == "–"


def test_the_rule_chooses_the_operating_point(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    """To promise it for new images, more of those at hand are flagged."""
    classes = make_classes("three")
    table = make_predictions(classes)
    conformal, empirical = (
        fit_operating_point(
            table, classes, make_evaluation(target_sensitivity=0.9, threshold_rule=rule)
        )
        for rule in ("conformal", "empirical")
    )
    assert conformal.threshold < empirical.threshold
    assert conformal.calibration == empirical.calibration


def test_calibration_is_scored_before_and_after(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("three")
    table = make_predictions(classes, skill=2.0)
    point = OperatingPoint(Calibration(2.0, (0.0,) * 3), 0.3, 0.9)
    table = apply_operating_point(table, point, classes)
    found = score_predictions(table, classes, make_evaluation())["calibration"]
    for name, columns in (
        ("uncalibrated", probability_columns(classes, uncalibrated=True)),
        ("calibrated", probability_columns(classes)),
    ):
        probabilities = table[columns].to_numpy()
        labels = classes.positions(table["label"])
        correct = probabilities.argmax(axis=1) == labels
        assert found[name]["error"] == pytest.approx(
            measure_calibration_error(correct, probabilities.max(axis=1))
        )
        assert found[name]["brier"] == pytest.approx(
            ((probabilities - np.eye(3)[labels]) ** 2).sum(axis=1).mean()
        )
