"""Experiments compared in pairs on the same images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from busi_pipeline.stats.comparison import COLUMNS, METRICS, compare_predictions, name_metric
from busi_pipeline.stats.paired_tests import delong_test, mcnemar_p_value

Make = Callable[..., Any]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["two", "three", "four", "odd"])
def test_pairs_are_better_worse_or_inconclusive(
    make_classes: Make, make_predictions: Make, make_evaluation: Make, kind: str
) -> None:
    classes = make_classes(kind)
    good, bad, alike = (
        make_predictions(classes, skill, seed, count=600, group_size=2)
        for skill, seed in ((3.5, 0), (0.7, 1), (3.5, 2))
    )
    pairs = compare_predictions(classes, make_evaluation(), good=good, bad=bad, alike=alike)
    assert list(dict.fromkeys(pairs["metric"])) == [name_metric(m, classes) for m in METRICS]
    verdicts = pairs.set_index(["metric", "first", "second"])["verdict"]
    auc = f"AUC of {classes.positive_name}"
    for metric in ("accuracy", auc, "specificity at 90 % sensitivity"):
        assert verdicts[metric, "good", "bad"] == "better"
        assert verdicts[metric, "bad", "alike"] == "worse"
        assert verdicts[metric, "good", "alike"] == "inconclusive"
    row = pairs.iloc[0]
    assert row["difference"] == pytest.approx(good["correct"].mean() - bad["correct"].mean())
    assert row["difference_ci_low"] < row["difference"] < row["difference_ci_high"]
    assert (pairs["p_corrected"] >= pairs["p_value"]).all()
    known = pairs["metric"].isin(["accuracy", auc])
    assert pairs["p_independent"].notna().tolist() == known.tolist()


@pytest.mark.parametrize("kind", ["two", "four"])
def test_values_are_those_of_the_test_images(
    make_classes: Make, make_predictions: Make, make_evaluation: Make, kind: str
) -> None:
    classes = make_classes(kind)
    one, other = make_predictions(classes, 1.0, 0), make_predictions(classes, 1.0, 1)
    validation = one.assign(split="validation", correct=False)
    pairs = compare_predictions(
        classes, make_evaluation(), one=pd.concat([validation, one]), other=other
    ).set_index("metric")
    is_positive = one["label"].isin(classes.positive).to_numpy()
    scores = [t[[f"p_{name}" for name in classes.positive]].sum(axis=1) for t in (one, other)]
    flagged = one["flagged"].to_numpy()
    values = pairs["first_value"]
    auc = f"AUC of {classes.positive_name}"
    assert values["accuracy"] == pytest.approx(one["correct"].mean())
    assert values[auc] == pytest.approx(roc_auc_score(is_positive, scores[0]))
    assert values["sensitivity of the flag"] == pytest.approx(flagged[is_positive].mean())
    assert values["specificity of the flag"] == pytest.approx((~flagged[~is_positive]).mean())
    independent = pairs["p_independent"]
    assert independent["accuracy"] == pytest.approx(
        mcnemar_p_value(one["correct"].to_numpy(), other["correct"].to_numpy())
    )
    expected = delong_test(is_positive, *(each.to_numpy() for each in scores)).p_value
    assert independent[auc] == pytest.approx(expected)


def test_independent_tests_take_the_first_repeat(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("two")
    one, other = make_predictions(classes, 1.0, 0), make_predictions(classes, 1.0, 1)
    twice = [
        pd.concat([table, turned.assign(repeat=2)], ignore_index=True)
        for table, turned in ((one, other), (other, one))
    ]
    once = compare_predictions(classes, make_evaluation(), one=one, other=other)
    both = compare_predictions(classes, make_evaluation(), one=twice[0], other=twice[1])
    pd.testing.assert_series_equal(once["p_independent"], both["p_independent"])
    assert both["difference"].iloc[0] == pytest.approx(0)


def test_only_the_same_images_are_compared(
    make_classes: Make,
    make_predictions: Make,
    make_evaluation: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    classes = make_classes("three")
    first, other = make_predictions(classes), make_predictions(classes, seed=1).iloc[:-1]
    pairs = compare_predictions(
        classes, make_evaluation(), first=first, other=other, never_run=None
    )
    assert pairs.empty
    assert list(pairs.columns) == COLUMNS
    assert "other has other test images than first" in caplog.text


def test_order_of_images_does_not_matter(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    classes = make_classes("three")
    first, other = make_predictions(classes), make_predictions(classes, seed=1)
    straight = compare_predictions(classes, make_evaluation(), first=first, other=other)
    for table in (other.iloc[::-1], other.sample(frac=1, random_state=0, ignore_index=True)):
        turned = compare_predictions(classes, make_evaluation(), first=first, other=table)
        pd.testing.assert_frame_equal(straight, turned)


@pytest.mark.filterwarnings("error")
def test_samples_without_a_positive_do_not_count(
    make_classes: Make, make_predictions: Make, make_evaluation: Make
) -> None:
    """Two positive groups among twenty: every seventh sample or so has none."""
    classes = make_classes("two")
    tables = [make_predictions(classes, 1.0, seed, count=20) for seed in (0, 1)]
    for table in tables:
        table.loc[4:, "label"] = "benign"
    pairs = compare_predictions(classes, make_evaluation(), one=tables[0], two=tables[1])
    assert np.isfinite(pairs[["difference_ci_low", "difference_ci_high", "p_value"]]).all(axis=None)


def test_what_cannot_be_compared_stops_no_other(
    make_classes: Make,
    make_predictions: Make,
    make_evaluation: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    classes = make_classes("three")
    pairs = compare_predictions(
        classes,
        make_evaluation(),
        never_run=None,
        first=make_predictions(classes),
        shorter=make_predictions(classes, seed=1).iloc[:-1],
        second=make_predictions(classes, seed=2),
    )
    assert set(pairs["first"]) | set(pairs["second"]) == {"first", "second"}
    caplog.clear()
    compare_predictions(classes, make_evaluation(), first=make_predictions(classes))
    assert "fewer than two experiments have the same test images: nothing" in caplog.text
