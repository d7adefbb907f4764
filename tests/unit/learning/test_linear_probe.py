"""The linear probe: scikit-learn's regression on standardised features, unfolded."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from busi_pipeline.learning.linear_probe import PooledRows, fit_linear_probe

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


def draw_rows(classes: int, count: int, augmentations: int = 1, seed: int = 0) -> PooledRows:
    """Return features of other scales, whose class one can guess."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    vectors = rng.normal(size=(count, augmentations, 5)) + 0.8 * np.eye(classes, 5)[labels][:, None]
    return PooledRows((vectors * [1, 10, 0.1, 3, 1] + 7).astype(np.float32), labels)


def regress(part: PooledRows, strength: float, weights: list[float]) -> LogisticRegression:
    """Return scikit-learn's own answer."""
    augmentations = part.vectors.shape[1]
    regression = LogisticRegression(
        C=strength / augmentations, class_weight=dict(enumerate(weights)), max_iter=1000
    )
    return make_pipeline(StandardScaler(), regression).fit(
        part.vectors.reshape(-1, 5), np.repeat(part.labels, augmentations)
    )


@pytest.mark.parametrize("augmentations", [1, 3])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_probe_is_scikit_learns_regression(classes: int, augmentations: int) -> None:
    training = draw_rows(classes, 61, augmentations)
    validation = draw_rows(classes, 40, augmentations, seed=1)
    weights = [1.0, 3.0, 0.5, 2.0][:classes]
    probe = fit_linear_probe(training, validation, weights, STRENGTHS)
    assert probe.kernel.shape == (5, classes)
    assert probe.kernel.dtype == probe.bias.dtype == np.float32
    regression = regress(training, probe.strength, weights)
    expected = regression.predict_proba(validation.vectors.reshape(-1, 5))
    expected = expected.reshape(40, augmentations, classes).mean(axis=1)
    np.testing.assert_allclose(probe.predict(validation.vectors), expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_penalty_is_the_one_validation_chooses(seed: int) -> None:
    training, validation = draw_rows(3, 30 * (1 + seed), seed=seed), draw_rows(3, 60, seed=9 + seed)
    weights = [1.0, 1.0, 1.0]
    losses = [
        log_loss(
            validation.labels,
            regress(training, strength, weights).predict_proba(validation.vectors[:, 0]),
        )
        for strength in STRENGTHS
    ]
    probe = fit_linear_probe(training, validation, weights, STRENGTHS)
    assert probe.strength == STRENGTHS[int(np.argmin(losses))]


def test_the_strongest_and_weakest_penalty_can_be_chosen(rng: np.random.Generator) -> None:
    training = draw_rows(2, 40)
    assert fit_linear_probe(training, training, [1.0, 1.0], STRENGTHS).strength == 0.1
    misleading = PooledRows(training.vectors, 1 - training.labels)
    assert fit_linear_probe(training, misleading, [1.0, 1.0], STRENGTHS).strength == 1e-4


def test_the_worst_site_can_choose_the_penalty() -> None:
    """Many images of an easy site hide a site on which certain answers are wrong."""
    training = draw_rows(2, 60)
    misleading = PooledRows(training.vectors[:10], 1 - training.labels[:10])
    validation = PooledRows(
        np.concatenate([training.vectors, misleading.vectors]),
        np.concatenate([training.labels, misleading.labels]),
        sites=np.repeat([0, 1], [60, 10]),
    )
    given = (training, validation._replace(sites=None), [1.0, 1.0], STRENGTHS)
    assert fit_linear_probe(*given).strength > 1e-4
    assert fit_linear_probe(training, validation, [1.0, 1.0], STRENGTHS).strength == 1e-4


def test_class_weights_move_the_probe_towards_the_class() -> None:
    training = draw_rows(3, 60)
    means = [
        fit_linear_probe(training, training, weights, STRENGTHS)
        .predict(training.vectors)
        .mean(axis=0)[1]
        for weights in ([1.0, 1.0, 1.0], [1.0, 10.0, 1.0])
    ]
    assert means[1] > means[0] + 0.2


def test_a_class_without_validation_image_is_no_hindrance() -> None:
    training, validation = draw_rows(3, 60), draw_rows(3, 30, seed=1)
    kept = validation.labels != 2
    part = PooledRows(validation.vectors[kept], validation.labels[kept])
    assert fit_linear_probe(training, part, [1.0] * 3, STRENGTHS).kernel.shape == (5, 3)


def test_weights_of_images_are_those_of_the_regression() -> None:
    training = draw_rows(3, 60, augmentations=2)
    weights = np.where(np.arange(60) < 20, 5.0, 1.0)
    plain, weighted = (
        fit_linear_probe(part, training, [1.0] * 3, (0.1,)).predict(training.vectors[:, :1])
        for part in (training, training._replace(weights=weights))
    )
    rows = training.vectors.reshape(-1, 5)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000)).fit(
        rows,
        np.repeat(training.labels, 2),
        logisticregression__sample_weight=np.repeat(weights, 2),
    )
    found = expected.predict_proba(training.vectors[:, 0])
    np.testing.assert_allclose(weighted, found, atol=1e-4)
    assert np.abs(weighted - plain).max() > 0.01
