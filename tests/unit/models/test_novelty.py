"""How far an image is from those that were learned from, and whether it is turned."""

from pathlib import Path

import numpy as np
import pytest

from busi_pipeline.models.novelty import (
    UNLIMITED,
    Reference,
    build_reference,
    choose_limit,
    load_reference,
    turn_images,
)

RNG = np.random.default_rng(5)
# As features are: many channels that go together, of few kinds of difference.
KINDS = RNG.normal(0, 1, (3, 12)) * np.linspace(1, 50, 12)
TURN = RNG.normal(0, 2, 3)


def draw(count: int, rng: np.random.Generator = RNG, turned: bool = False) -> np.ndarray:
    inside = rng.normal(0, 1, (count, 3)) + turned * TURN
    return inside @ KINDS + 0.1 * rng.normal(0, 1, (count, 12)) + 7


KNOWN, TURNED = draw(200), draw(100, turned=True)
ALONE = np.arange(200)


def build(known: np.ndarray = KNOWN, groups: np.ndarray = ALONE, components: int = 3) -> Reference:
    return build_reference(known, groups, TURNED, groups[:100], components)


def test_other_images_are_farther_than_new_ones_of_the_same_kind() -> None:
    reference = build()
    new = draw(500)
    other = RNG.permuted(draw(10), axis=1)  # the same values, in other channels
    limit = choose_limit(reference.distances, 0.05)
    assert (reference.measure_distance(new) > limit).mean() == pytest.approx(0.05, abs=0.04)
    assert (reference.measure_distance(other) > limit).all()


def test_turned_images_lie_near_and_are_known_all_the_same() -> None:
    reference = build()
    turned = draw(200, turned=True)
    assert (reference.measure_turned(turned) > 0).mean() > 0.9
    assert (reference.measure_turned(draw(200)) > 0).mean() < 0.15
    limit = choose_limit(reference.distances, 0.05)
    assert (reference.measure_distance(turned) > limit).mean() < 0.15


def test_the_limit_refuses_no_more_than_promised_on_average() -> None:
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        known, new = draw(60, rng), draw(200, rng)
        reference = build_reference(known, np.arange(60), TURNED[:60], np.arange(60), 3)
        limit = choose_limit(reference.distances, 0.1)
        shares.append((reference.measure_distance(new) > limit).mean())
    assert 0.03 < np.mean(shares) < 0.12


def test_what_a_group_has_says_nothing_of_its_own_images() -> None:
    """TRAP: with its copy among the others, an image is made of what they are made of."""
    odd = RNG.normal(0, 30, 12) + 7
    known = np.concatenate([KNOWN[:198], [odd, odd]])
    apart = build(known, ALONE, components=4)
    together = build(known, np.append(ALONE[:199], 198), components=4)
    assert together.distances[198:].min() > 3 * apart.distances[198:].max()


def test_too_few_images_promise_nothing() -> None:
    assert choose_limit(np.arange(10.0), 0.05) == UNLIMITED
    assert choose_limit(np.arange(10.0), 0.2) == 8.0


def test_a_silent_channel_makes_no_endless_distance() -> None:
    silent = KNOWN.copy()
    silent[:, 3] = 1.5
    reference = build(silent)
    assert np.isfinite(reference.measure_distance(np.zeros((2, 12)))).all()
    assert np.isfinite(reference.distances).all()


def test_a_stored_reference_measures_the_same(tmp_path: Path) -> None:
    reference = build()
    reference.save(tmp_path / "reference.npz")
    loaded = load_reference(tmp_path / "reference.npz")
    for name in Reference._fields:
        np.testing.assert_array_equal(
            getattr(loaded, name), getattr(reference, name).astype(getattr(loaded, name).dtype)
        )
    np.testing.assert_array_equal(
        loaded.measure_distance(KNOWN[:20]), reference.measure_distance(KNOWN[:20])
    )
    np.testing.assert_array_equal(
        loaded.measure_turned(KNOWN[:20]), reference.measure_turned(KNOWN[:20])
    )


def test_images_are_turned_within_their_square() -> None:
    shown = np.zeros((2, 3, 4, 4, 3), np.uint8)  # two images, three windows
    shown[..., 0, 1, :] = 200
    turns = list(turn_images(shown))
    assert {turn.shape for turn in turns} == {shown.shape}
    places = [tuple(np.argwhere(turn[0, 0, ..., 0] == 200)[0].tolist()) for turn in turns[:4]]
    assert places == [(2, 0), (3, 2), (1, 3), (3, 1)]
    assert turns[4][0, 0, 0, 1, 0] == 55
    assert turns[4][0, 0, 0, 0, 0] == 255
