"""How far an image is from those that were learned from."""

from pathlib import Path

import numpy as np
import pytest

from busi_pipeline.models.novelty import build_reference, load_reference

RNG = np.random.default_rng(5)
# As features are: many channels that go together, of few kinds of difference.
KINDS = RNG.normal(0, 1, (3, 12)) * np.linspace(1, 50, 12)


def draw(count: int, rng: np.random.Generator = RNG) -> np.ndarray:
    return rng.normal(0, 1, (count, 3)) @ KINDS + 0.1 * rng.normal(0, 1, (count, 12)) + 7


KNOWN = draw(200)
ALONE = np.arange(200)


def test_other_images_are_farther_than_new_ones_of_the_same_kind() -> None:
    reference = build_reference(KNOWN, ALONE, 5)
    new = draw(500)
    other = RNG.permuted(draw(10), axis=1)  # the same values, in other channels
    limit = reference.choose_limit(0.05)
    assert (reference.measure_distance(new) > limit).mean() == pytest.approx(0.05, abs=0.04)
    assert (reference.measure_distance(other) > limit).all()


def test_the_limit_refuses_no_more_than_promised_on_average() -> None:
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        known, new = draw(60, rng), draw(200, rng)
        reference = build_reference(known, np.arange(60), 3)
        limit = reference.choose_limit(0.1)
        shares.append((reference.measure_distance(new) > limit).mean())
    assert 0.05 < np.mean(shares) < 0.12


def test_images_of_one_group_are_no_neighbours() -> None:
    doubled = np.concatenate([KNOWN, KNOWN + 1e-6])
    apart = build_reference(doubled, np.arange(400), 1)
    together = build_reference(doubled, np.concatenate([ALONE, ALONE]), 1)
    assert apart.distances.max() < together.distances.min()


def test_too_few_images_promise_nothing() -> None:
    reference = build_reference(KNOWN[:10], ALONE[:10], 5)
    assert reference.choose_limit(0.05) == 2.0
    assert reference.choose_limit(0.2) < 2.0


def test_a_silent_channel_makes_no_endless_distance() -> None:
    silent = KNOWN.copy()
    silent[:, 3] = 1.5
    reference = build_reference(silent, ALONE, 5)
    assert np.isfinite(reference.measure_distance(np.zeros((2, 12)))).all()
    assert np.isfinite(reference.measure_distance(silent[:3] * 0)).all()


def test_a_stored_reference_measures_the_same(tmp_path: Path) -> None:
    reference = build_reference(KNOWN, ALONE, 5)
    reference.save(tmp_path / "reference.npz")
    loaded = load_reference(tmp_path / "reference.npz")
    np.testing.assert_array_equal(
        loaded.measure_distance(KNOWN[:20]), reference.measure_distance(KNOWN[:20])
    )
    assert loaded.choose_limit(0.05) == reference.choose_limit(0.05)
