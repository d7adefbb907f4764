import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from busi_pipeline.stats.adaptation import (
    draw_images,
    fit_site,
    measure_adaptation,
    promise_sensitivity,
)
from busi_pipeline.stats.calibration import (
    Calibration,
    apply_calibration,
    invert_calibration,
    relate_calibrations,
)
from busi_pipeline.stats.classes import Classes
from busi_pipeline.stats.scoring import OperatingPoint, apply_operating_point, probability_columns
from tests.factories import CLASSES, load_parameters

TWO = Classes(("benign", "malignant"), ("malignant",))


def make_predictions(count: int = 600, seed: int = 0, classes: Classes = CLASSES) -> pd.DataFrame:
    """Return images of two a patient, benign and malignant, with scores that are far too low."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count // 2)[np.arange(count) // 2] < 0.35
    logits = rng.normal(0, 0.3, (count, len(classes)))
    logits[:, 1] += rng.normal(np.where(truth, 1.2, -0.4), 1) - 2
    table = pd.DataFrame(
        {
            "group": [f"patient_{i // 2}" for i in range(count)],
            "label": np.where(truth, "malignant", "benign"),
        }
    )
    probabilities = softmax(logits, axis=1)
    table[probability_columns(classes, uncalibrated=True)] = probabilities
    delivered = OperatingPoint(Calibration(1.0, (0.0,) * len(classes)), 0.5, 0.95)
    table = apply_operating_point(table, delivered, classes)
    score = classes.positive_score(table[probability_columns(classes)].to_numpy())
    return table.assign(positive_score=score)


def measure(
    predictions: pd.DataFrame, sizes: list[int], classes: Classes = CLASSES, draws: int = 20
):
    evaluation = load_parameters()["evaluation"]
    return measure_adaptation(predictions, classes, evaluation, sizes, draws, seed=3)


def test_no_patient_is_both_fitted_to_and_tested_on():
    groups = [f"g{i // 3}" for i in range(90)]
    draw = draw_images(groups, 20, np.random.default_rng(0))
    fitted, tested = ({groups[row] for row in rows} for rows in draw)
    assert len(draw.fitted) == 20
    assert not fitted & tested
    # The last patient is cut: the rest of its images is in neither part.
    assert len(draw.fitted) + len(draw.tested) == 89


def test_draws_differ_and_the_same_seed_repeats_them():
    groups = [f"g{i // 2}" for i in range(60)]
    first, second, again = (
        draw_images(groups, 10, np.random.default_rng(seed)).fitted.tolist() for seed in (0, 1, 0)
    )
    assert first == again != second


def test_forty_malignant_images_assure_a_sensitivity_of_90_percent():
    assert promise_sensitivity(40) == pytest.approx(0.05 ** (1 / 40))
    assert promise_sensitivity(40) > 0.9 > promise_sensitivity(28)
    assert promise_sensitivity(0) == 0


def test_what_is_assured_holds_in_so_many_draws():
    rng = np.random.default_rng(0)
    lowest = rng.random((4000, 40)).min(axis=1)  # sensitivity of it is 1 - its value
    assert np.mean(1 - lowest >= promise_sensitivity(40)) == pytest.approx(0.95, abs=0.01)


def test_the_first_row_is_the_model_as_delivered():
    predictions = make_predictions()
    row = measure(predictions, [50]).iloc[0]
    positive = predictions["label"] == "malignant"
    assert row["images"] == 0
    assert row["sensitivity"] == predictions.loc[positive, "flagged"].mean()
    assert row["specificity"] == pytest.approx(1 - predictions.loc[~positive, "flagged"].mean())
    assert np.isnan(row["promised"])


@pytest.mark.parametrize("classes", [CLASSES, TWO], ids=["class_absent_at_the_site", "two"])
def test_fitting_brings_sensitivity_to_the_target_and_calibrates(classes):
    predictions = make_predictions(classes=classes)
    table = measure(predictions, [200], classes)
    delivered, fitted = table.to_dict("records")
    assert delivered["sensitivity"] < 0.5
    assert fitted["sensitivity"] > 0.9
    assert fitted["promised"] >= 0.95
    assert fitted["target_promised"] == 1
    assert abs(fitted["observed_expected"] - 1) < 0.15 < abs(delivered["observed_expected"] - 1)
    assert fitted["brier"] < delivered["brier"]
    assert fitted["sensitivity_ci_low"] < fitted["sensitivity"] < fitted["sensitivity_ci_high"]


def test_few_images_promise_less_than_the_target():
    few, many = measure(make_predictions(), [25, 200]).iloc[1:].to_dict("records")
    assert few["target_promised"] < 0.5
    assert few["promised"] < many["promised"]
    assert few["assured"] < many["assured"]
    assert few["positives"] == pytest.approx(25 * 0.35, abs=2)


def test_sizes_that_leave_too_little_to_test_on_are_left_out():
    assert measure(make_predictions(120), [30, 70])["images"].tolist() == [0, 30]


def test_draws_without_a_malignant_image_do_not_count():
    predictions = make_predictions(200)
    predictions.loc[predictions.index[4:], "label"] = "benign"
    predictions.loc[predictions.index[:4], "label"] = "malignant"
    table = measure(predictions, [20], draws=40)
    assert 0 < table["draws"][1] < 40


def test_a_calibration_is_taken_back():
    probabilities = softmax(np.random.default_rng(0).normal(0, 3, (50, 3)), axis=1)
    calibration = Calibration(0.6, (-0.3, -1.1, -2.0))
    calibrated = apply_calibration(probabilities, calibration)
    np.testing.assert_allclose(
        invert_calibration(calibrated, calibration), probabilities, rtol=1e-9
    )


def test_one_calibration_leads_from_the_old_to_the_new():
    probabilities = softmax(np.random.default_rng(0).normal(0, 2, (50, 3)), axis=1)
    old, new = Calibration(0.6, (-0.3, -1.1, -2.0)), Calibration(1.7, (0.1, -0.4, 0.0))
    step = relate_calibrations(old, new)
    np.testing.assert_allclose(
        apply_calibration(apply_calibration(probabilities, old), step),
        apply_calibration(probabilities, new),
        rtol=1e-9,
    )


def test_the_threshold_is_chosen_on_the_rows_it_is_given():
    predictions = make_predictions()
    evaluation = load_parameters()["evaluation"]
    first = fit_site(predictions, np.arange(100), CLASSES, evaluation)
    assert first == fit_site(predictions[:100], np.arange(100), CLASSES, evaluation)
    assert first != fit_site(predictions, np.arange(100, 200), CLASSES, evaluation)
