"""Optimisers and schedules: the rate of each step, and what each optimiser is given."""

from typing import Any

import keras
import numpy as np
import pytest

from busi_pipeline.config.schemas import OptimizerSettings
from busi_pipeline.learning.fitting import make_optimizer
from tests.learning_factories import make_phase


def make_settings(**changes: Any) -> OptimizerSettings:
    return make_phase(learning_rate=0.5, **changes).optimizer


def test_a_constant_rate_stays() -> None:
    assert float(make_optimizer(make_settings(), 100).learning_rate) == 0.5
    plateau = make_settings(schedule="plateau")
    assert float(make_optimizer(plateau, 100).learning_rate) == 0.5, "a callback lowers it"


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (57, 5), (4, 1), (1, 1)])
def test_a_cosine_warms_up_and_falls_to_a_hundredth(steps: int, warmup: int) -> None:
    optimizer = make_optimizer(make_settings(schedule="cosine"), steps)
    rate = optimizer._learning_rate
    rates = np.array([float(rate(step)) for step in range(steps + 1)])
    np.testing.assert_allclose(rates[: warmup + 1], 0.5 * np.arange(warmup + 1) / warmup, rtol=1e-5)
    left = steps - warmup
    if left:
        share = np.arange(left + 1) / left
        expected = 0.5 * (0.99 * (1 + np.cos(np.pi * share)) / 2 + 0.01)
        np.testing.assert_allclose(rates[warmup:], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", keras.optimizers.AdamW),
        ("adam", keras.optimizers.Adam),
        ("rmsprop", keras.optimizers.RMSprop),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_every_optimiser_is_given_its_settings(name: str, kind: type) -> None:
    optimizer = make_optimizer(
        make_settings(name=name, weight_decay=0.25, momentum=0.75, ema_momentum=0.9), 10
    )
    assert type(optimizer) is kind
    assert optimizer.weight_decay == 0.25
    assert optimizer.use_ema
    assert optimizer.ema_momentum == 0.9
    assert float(optimizer.learning_rate) == 0.5
    if name in ("rmsprop", "sgd"):
        assert optimizer.momentum == 0.75
    if name == "sgd":
        assert optimizer.nesterov


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop", "sgd"])
def test_nothing_is_added_where_nothing_is_asked_for(name: str) -> None:
    optimizer = make_optimizer(make_settings(name=name), 10)
    assert not optimizer.weight_decay
    assert not optimizer.use_ema
    assert not getattr(optimizer, "momentum", 0)
    assert not getattr(optimizer, "nesterov", False)


def test_an_unknown_optimiser_is_refused_with_those_there_are() -> None:
    unknown = make_settings().model_copy(update={"name": "lion"})
    with pytest.raises(ValueError, match=r"one of .*'adam', 'adamw', 'rmsprop', 'sgd'.*'lion'"):
        make_optimizer(unknown, 10)
