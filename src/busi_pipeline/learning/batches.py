"""The one place that decides in which order augmented images reach the network."""

import math
from typing import Any, Protocol

import keras
import numpy as np


class Rows(Protocol):
    """Rows that are read one by one: an array, a memory map, or `arrays.StoredRows`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: int, /) -> np.ndarray: ...


class FeatureBatches(keras.utils.PyDataset):
    """Batches of features: each epoch shows every image equally often, in other augmentations.

    All augmentations of an image are shown once, in an order of its own, before one comes again. A
    PyDataset feeds every Keras backend alike and reads each batch from the rows as it goes,
    so memory does not grow with the number of images.

    Args:
        values: (rows, ...), any float dtype.
        rows: int (images, augmentations), the row of each.
        labels: float32 (images, classes), one-hot.
        weights: float32 (images,), sample weights.
        batch_size: images a batch; the last one of an epoch may be smaller.
        seed: of the order of images and augmentations.
        augmented_per_epoch: how often an epoch shows an image; at most all of its augmentations.
        shuffle: False shows the images in their order.
    """

    def __init__(
        self,
        values: Rows,
        rows: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        seed: int,
        augmented_per_epoch: int = 1,
        shuffle: bool = True,
    ):
        super().__init__()
        if rows.ndim != 2 or not len(rows) == len(labels) == len(weights):
            raise ValueError(
                "rows must be (images, augmentations) with one label and weight an image; "
                f"got {rows.shape}, {labels.shape}, {weights.shape}."
            )
        self._values, self._rows, self._labels, self._weights = values, rows, labels, weights
        self._batch_size = batch_size
        self._times = min(augmented_per_epoch, rows.shape[1])
        self._shuffle = shuffle
        self._order_of_image = np.random.default_rng(seed).permuted(
            np.tile(np.arange(rows.shape[1]), (len(rows), 1)), axis=1
        )
        self._seed = seed
        self.begin_epoch(0)

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def begin_epoch(self, epoch: int) -> None:
        """Turn to the augmentations of this epoch, counted from 0, and shuffle them.

        Whoever trains says so. Keras' own `on_epoch_end` comes at the end of every pass, and some
        passes are trials.
        """
        self._epoch = epoch
        self._order = np.arange(len(self._rows) * self._times)
        if self._shuffle:
            np.random.default_rng([self._seed, epoch]).shuffle(self._order)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features in their stored dtype, one-hot labels and sample weights."""
        start = batch * self._batch_size
        turns, images = np.divmod(self._order[start : start + self._batch_size], len(self._rows))
        turns = (self._epoch * self._times + turns) % self._rows.shape[1]
        augmentation = self._order_of_image[images, turns]
        # As they are stored: the network casts them faster than NumPy would.
        values = np.stack([self._values[row] for row in self._rows[images, augmentation]])
        return values, self._labels[images], self._weights[images]


def as_keras_input(batches: FeatureBatches) -> Any:
    """Return what `model.fit` takes for these batches; the one place that knows the backend.

    Keras puts a `PyDataset` behind tf.data with its tuning on. The thread that tunes sleeps for
    10, 20, 40, ... ms, and the end of every pass waits until it wakes: a pass of 2.6 s takes 5.1 s
    (docs/explanation/performance.md). On a CPU there is nothing to tune, and TensorFlow reads each
    batch when it is wanted.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return batches
    signature = tuple(
        tf.TensorSpec((None, *part.shape[1:]), tf.as_dtype(part.dtype)) for part in batches[0]
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: (batches[batch] for batch in range(len(batches))), output_signature=signature
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).with_options(
        options
    )
