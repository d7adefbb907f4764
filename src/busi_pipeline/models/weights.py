"""The pretrained weights that were chosen, as a network takes them and as a run names them."""

from typing import NamedTuple


class PretrainedWeights(NamedTuple):
    """Weights a base is initialised from.

    Attributes:
        argument: for `weights=` of `keras.applications`: a path, or None for random weights.
        tags: `weights` (imagenet, directory or none), `weights_file`, `weights_sha256`.
    """

    argument: str | None
    tags: dict[str, str]
