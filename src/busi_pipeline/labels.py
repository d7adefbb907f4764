"""Names of classes and their positions in a model's probabilities."""

import numpy as np
import pandas as pd


def find_positions(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """Return int64 (n,), the position of each label among the classes."""
    return labels.map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
