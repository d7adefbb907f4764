import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from busi_pipeline.errors import BadInputError
from busi_pipeline.stats.decision_curve import measure_net_benefit
from busi_pipeline.stats.external import (
    NET_BENEFIT_AT,
    gather_patients,
    measure_calibration,
    measure_sensitivity,
    score_reader,
    score_site,
    score_subgroups,
)


def make_site(count: int = 200, seed: int = 0, per_patient: int = 2) -> pd.DataFrame:
    """Return images of patients who have one label, with scores that rank them fairly well."""
    rng = np.random.default_rng(seed)
    patients = np.arange(count) // per_patient
    truth = rng.random(patients.max() + 1)[patients] < 0.4
    score = expit(rng.normal(np.where(truth, 0.6, -0.6), 1))
    names = [f"patient_{number}" for number in patients]
    return pd.DataFrame(
        {
            "is_positive": truth,
            "positive_score": score,
            "flagged": score >= 0.4,
            "group": names,
            "patient": names,
        }
    )


def test_sensitivity_is_counted_above_the_negatives_left_alone():
    truth = np.array([True] * 4 + [False] * 10)
    score = np.array([0.95, 0.85, 0.5, 0.1, *np.arange(10) / 10])
    # Nine of ten negatives lie below 0.9, so those above 0.8 alarm once: 0.95 and 0.85 are found.
    assert measure_sensitivity(truth, score, 0.9) == 0.5


def test_calibration_equals_that_of_statsmodels():
    site = make_site(400)
    truth, score = site["is_positive"].to_numpy(), site["positive_score"].to_numpy() ** 2
    odds = logit(score)
    measured = measure_calibration(truth, score)
    slope = sm.Logit(truth.astype(float), sm.add_constant(odds)).fit(disp=0).params[1]
    shift = sm.GLM(
        truth.astype(float), np.ones(len(truth)), family=sm.families.Binomial(), offset=odds
    ).fit()
    assert measured["slope"] == pytest.approx(slope, abs=1e-3)
    assert measured["intercept"] == pytest.approx(shift.params[0], abs=1e-6)
    assert measured["observed_expected"] == pytest.approx(truth.sum() / score.sum())
    assert measured["brier"] == pytest.approx(np.mean((truth - score) ** 2))


def test_calibration_of_scores_of_0_and_1_is_finite():
    measured = measure_calibration(np.array([True, False, True, False]), np.array([1.0, 0, 0, 1]))
    assert all(np.isfinite(value) for value in measured.values())


def test_calibration_needs_both_kinds_of_images():
    with pytest.raises(ValueError, match="positive and negative"):
        measure_calibration(np.array([True, True]), np.array([0.2, 0.7]))


def test_a_site_is_scored_with_intervals_over_patients():
    site = make_site()
    scores = score_site(site, prevalence=0.05, n_resamples=60, seed=1)
    assert scores["auc"] == roc_auc_score(site["is_positive"], site["positive_score"])
    assert scores["flag"]["images"] == len(site)
    alone = score_site(
        site.assign(group=np.arange(len(site)).astype(str)), prevalence=0.05, n_resamples=60, seed=1
    )
    for one in (scores, alone):
        assert one["auc_ci_low"] < one["auc"] < one["auc_ci_high"]
        assert one["calibration"]["slope_ci_low"] < one["calibration"]["slope_ci_high"]
    assert scores["auc_ci_low"] != alone["auc_ci_low"]


def test_the_net_benefit_is_that_of_the_decision_curve():
    site = make_site()
    scores = score_site(site, prevalence=0.05, n_resamples=30, seed=1)["net_benefit"]
    truth, score = site["is_positive"].to_numpy(bool), site["positive_score"].to_numpy()
    for threshold, name in zip(NET_BENEFIT_AT, ("at_5", "at_10", "at_20", "at_30"), strict=True):
        expected = measure_net_benefit(truth, score, np.array([threshold]))[0]
        assert scores[name] == pytest.approx(expected)
        assert scores[f"{name}_ci_low"] <= scores[name] <= scores[f"{name}_ci_high"]
        odds = threshold / (1 - threshold)
        assert scores[f"of_all_{name}"] == pytest.approx(truth.mean() - (1 - truth.mean()) * odds)


def test_all_positives_flagged_get_the_interval_of_their_patients():
    site = make_site()
    site["flagged"] = True
    scores = score_site(site, prevalence=0.05, n_resamples=30, seed=1)
    positives = site.loc[site["is_positive"], "group"].nunique()
    assert scores["flag"]["sensitivity"] == 1
    assert scores["flag"]["sensitivity_ci_low"] == pytest.approx(
        proportion_confint(positives, positives, method="wilson")[0]
    )


def test_a_patient_is_as_its_worst_image():
    images = pd.DataFrame(
        {
            "patient": ["a", "a", "b", ""],
            "group": ["1", "1", "2", "3"],
            "is_positive": [False, True, False, True],
            "positive_score": [0.7, 0.2, 0.1, 0.9],
            "flagged": [True, False, False, True],
        }
    )
    patients = gather_patients(images)
    assert patients.to_dict("list") == {
        "patient": ["a", "b"],
        "is_positive": [True, False],
        "positive_score": [0.7, 0.1],
        "flagged": [True, False],
        "group": ["1", "2"],
    }


def test_the_model_is_compared_at_the_readers_own_rates():
    site = make_site()
    truth, score = site["is_positive"].to_numpy(), site["positive_score"].to_numpy()
    called = score >= 0.45  # a reader who sees what the model sees
    scores = score_reader(truth, called, score, site["group"].tolist(), 30, 1)
    assert scores["model_specificity"] == pytest.approx(scores["specificity"], abs=0.02)
    assert scores["model_sensitivity"] == pytest.approx(scores["sensitivity"], abs=0.02)


def test_a_reader_who_calls_everything_positive_cannot_be_compared():
    site = make_site(40)
    truth = site["is_positive"].to_numpy()
    with pytest.raises(ValueError, match="a reader who parts them"):
        score_reader(truth, np.ones(40, bool), np.ones(40), site["group"].tolist(), 30, 1)


def test_each_value_of_a_variable_is_scored_on_its_own():
    site = make_site()
    device = pd.Series(np.where(np.arange(200) < 120, "A", "B"))
    table = score_subgroups(site, {"device": device}, min_images=10, n_resamples=30, seed=1)
    assert table["value"].tolist() == ["A", "B"]
    assert table["images"].tolist() == [120, 80]
    part = site[:120]
    assert table["auc"][0] == roc_auc_score(part["is_positive"], part["positive_score"])
    assert table["specificity"][0] == pytest.approx(
        1 - part.loc[~part["is_positive"], "flagged"].mean()
    )


def test_a_subgroup_of_one_label_has_the_flags_share_alone():
    site = make_site()
    kind = pd.Series(np.where(site["is_positive"], "carcinoma", "cyst"))
    table = score_subgroups(site, {"histology": kind}, min_images=5, n_resamples=30, seed=1)
    carcinoma, cyst = table.to_dict("records")
    assert carcinoma["sensitivity"] == site.loc[site["is_positive"], "flagged"].mean()
    assert np.isnan(carcinoma["specificity"])
    assert np.isnan(carcinoma["auc"])
    assert np.isnan(cyst["sensitivity"])
    assert cyst["specificity"] > 0


def test_small_subgroups_have_counts_and_no_figures():
    site = make_site()
    device = pd.Series(["rare"] * 8 + ["common"] * 192)
    table = score_subgroups(site, {"device": device}, min_images=10, n_resamples=30, seed=1)
    rare = table.set_index("value").loc["rare"]
    assert rare["images"] == 8
    assert rare[["auc", "sensitivity", "specificity"]].isna().all()


def test_many_images_of_few_patients_are_a_small_subgroup():
    site = make_site()
    site["group"] = np.where(site["is_positive"], "one patient", site["group"])
    device = pd.Series(["A"] * 180 + ["B"] * 20)
    table = score_subgroups(site, {"device": device}, min_images=10, n_resamples=30, seed=1)
    assert np.isnan(table["sensitivity"][0])
    assert table["specificity"][0] > 0


def test_a_variable_that_parts_nothing_gives_no_rows():
    site = make_site()
    variables = {
        "age": pd.Series([""] * 200),
        "colour": pd.Series(["without"] * 200),
        "device": pd.Series(["A"] * 150 + [""] * 50),
    }
    table = score_subgroups(site, variables, min_images=10, n_resamples=30, seed=1)
    assert table[["variable", "value"]].to_numpy().tolist() == [
        ["device", "A"],
        ["device", "not known"],
    ]


def test_a_site_with_one_positive_patient_has_no_interval():
    site = make_site(40).assign(group=["a"] + ["b"] * 39, is_positive=np.arange(40) == 0)
    with pytest.raises(BadInputError, match="too few images for an interval"):
        score_site(site, 0.05, 20, 3)
