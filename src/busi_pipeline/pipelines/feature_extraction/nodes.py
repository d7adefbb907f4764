"""Compute features and pooled features of one experiment, or take them from the cache."""

import pandas as pd

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.schemas import ExperimentSettings
from busi_pipeline.datasets.pretrained_weights import WeightsSource
from busi_pipeline.learning import features as library
from busi_pipeline.stats.classes import Classes


def extract_features(
    images: StoredArray,
    augmentation_plan: pd.DataFrame,
    settings: ExperimentSettings,
    pretrained_weights: WeightsSource,
    classes: Classes,
    cache: Cache,
) -> StoredArray:
    """Return the features of every augmented image; see learning.features.extract_features."""
    weights = pretrained_weights.choose(settings.backbone, settings.training.weights)
    return library.extract_features(
        images, augmentation_plan, settings, weights, len(classes), cache
    )


def pool_features(
    features: StoredArray,
    settings: ExperimentSettings,
    pretrained_weights: WeightsSource,
    classes: Classes,
    cache: Cache,
) -> StoredArray:
    """Return the pooled features of the frozen base; see learning.features.pool_features."""
    weights = pretrained_weights.choose(settings.backbone, settings.training.weights)
    return library.pool_features(features, settings, weights, len(classes), cache)
