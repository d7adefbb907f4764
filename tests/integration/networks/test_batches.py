"""Batches: every image equally often, every augmentation in turn, the weight of its class."""

import keras
import numpy as np
import pytest

from busi_pipeline.learning.batches import FeatureBatches, as_keras_input


def make_batches(
    images: int = 7, augmentations: int = 3, batch_size: int = 3, seed: int = 5, **options: bool
) -> FeatureBatches:
    """Return batches in which a feature is the number of its row and a label that of its image."""
    rows = np.arange(images * augmentations).reshape(images, augmentations)
    return FeatureBatches(
        np.arange(images * augmentations, dtype=np.float16)[:, None],
        rows,
        np.eye(images, dtype=np.float32),
        np.arange(images, dtype=np.float32) + 0.5,
        batch_size,
        seed,
        **options,
    )


def show(batches: FeatureBatches) -> list[int]:
    """Return the rows of an epoch, in order."""
    values = [batches[number][0] for number in range(len(batches))]
    return np.concatenate(values).ravel().astype(int).tolist()


def test_each_row_comes_with_its_label_and_weight() -> None:
    batches = make_batches()
    assert len(batches) == 3
    for epoch in (0, 1):
        batches.begin_epoch(epoch)
        for number in range(len(batches)):
            values, one_hot, weights = batches[number]
            images = values.ravel().astype(int) // 3
            np.testing.assert_array_equal(one_hot.argmax(axis=1), images)
            np.testing.assert_array_equal(weights, images + 0.5)
            assert values.dtype == np.float16
            assert one_hot.dtype == weights.dtype == np.float32


def test_all_augmentations_are_shown_before_one_again() -> None:
    batches = make_batches()
    seen, orders = [], []
    for epoch in range(6):
        batches.begin_epoch(epoch)
        shown = show(batches)
        assert sorted(row // 3 for row in shown) == list(range(7)), "every image once"
        seen.append(set(shown))
        orders.append([row // 3 for row in shown])
    for turn in (seen[:3], seen[3:]):
        assert set.union(*turn) == set(range(21))
    assert len({tuple(order) for order in orders}) == 6, "shuffled anew"
    starts = [{row % 3 for row in seen[epoch]} for epoch in range(3)]
    assert all(len(numbers) > 1 for numbers in starts), "each image in an order of its own"


def test_the_order_is_that_of_the_seed() -> None:
    one, same, other = (make_batches(seed=seed) for seed in (5, 5, 6))
    assert show(one) == show(same)
    assert show(one) != show(other)
    first = show(one)
    one.begin_epoch(1)
    second = show(one)
    one.begin_epoch(0)
    assert show(one) == first != second, "an epoch does not depend on those before"


@pytest.mark.parametrize("augmented_per_epoch", [3, 8])
def test_an_epoch_can_show_all_augmentations(augmented_per_epoch: int) -> None:
    batches = make_batches(images=4, batch_size=5, augmented_per_epoch=augmented_per_epoch)
    assert len(batches) == 3
    assert sorted(show(batches)) == list(range(12))
    assert [len(batches[number][0]) for number in range(3)] == [5, 5, 2]


def test_an_epoch_can_show_several_augmentations() -> None:
    batches = make_batches(images=4, batch_size=5, augmented_per_epoch=2)
    first = show(batches)
    batches.begin_epoch(1)
    second = show(batches)
    assert len(set(first)) == len(set(second)) == 8
    assert set(first) | set(second) == set(range(12)), "the third ones come first in epoch two"


def test_several_augmentations_follow_the_order_of_one() -> None:
    """Each image has one order; an epoch goes on in it where the one before stopped."""
    alone, pairs = (make_batches(images=4, augmented_per_epoch=times) for times in (1, 2))
    order: dict[int, list[int]] = {image: [] for image in range(4)}
    for epoch in range(3):
        alone.begin_epoch(epoch)
        for row in show(alone):
            order[row // 3].append(row)
    for epoch, (first, second) in enumerate([(0, 1), (2, 0), (1, 2)]):
        pairs.begin_epoch(epoch)
        shown = set(show(pairs))
        assert shown == {rows[turn] for rows in order.values() for turn in (first, second)}


def test_validation_images_come_in_their_order() -> None:
    batches = FeatureBatches(
        np.arange(12.0)[:, None],
        np.arange(12).reshape(4, 3)[:, :1],
        np.eye(4, dtype=np.float32),
        np.ones(4, dtype=np.float32),
        batch_size=3,
        seed=5,
        shuffle=False,
    )
    assert show(batches) == [0, 3, 6, 9]
    batches.begin_epoch(1)
    assert show(batches) == [0, 3, 6, 9]


@pytest.mark.parametrize("wrong", ["rows", "labels", "weights"])
def test_parts_of_other_lengths_are_refused(wrong: str) -> None:
    given = {"rows": np.zeros((4, 1), int), "labels": np.eye(4), "weights": np.ones(4)}
    given[wrong] = given[wrong][:, 0] if wrong == "rows" else given[wrong][:3]
    with pytest.raises(ValueError, match="one label and weight an image; got"):
        FeatureBatches(np.zeros((4, 2)), **given, batch_size=2, seed=0)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_what_keras_is_given_are_these_batches(batch_size: int) -> None:
    batches = make_batches(batch_size=batch_size)
    given = as_keras_input(batches)
    assert [tuple(spec.shape) for spec in given.element_spec] == [(None, 1), (None, 7), (None,)]
    assert given.cardinality() == len(batches)
    assert not given.options().autotune.enabled
    assert given.options().threading.private_threadpool_size == 1
    for ours, theirs in zip(range(len(batches)), given, strict=True):
        for one, other in zip(batches[ours], theirs, strict=True):
            np.testing.assert_array_equal(one, other)
            assert np.asarray(other).dtype == one.dtype, "the network casts features itself"


def test_a_gpu_or_another_backend_gets_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    batches = make_batches()
    with monkeypatch.context() as patched:
        patched.setattr(
            tf.config, "list_physical_devices", lambda kind: ["GPU:0"] * (kind == "GPU")
        )
        assert as_keras_input(batches) is batches
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert as_keras_input(batches) is batches
