"""Keras: the project's own settings, whatever the machine says."""

import sys
from types import SimpleNamespace

import pytest

from busi_pipeline.config.environment import check_keras
from busi_pipeline.errors import BadInputError


@pytest.fixture
def keras_on(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A stand-in for Keras: `backend` is what it computes with, the rest what was set."""
    state: dict[str, object] = {"backend": "tensorflow"}
    names = ("image_data_format", "floatx", "epsilon", "max_epochs", "max_steps_per_epoch")
    setters = {
        f"set_{name}": (lambda value, name=name: state.__setitem__(name, value)) for name in names
    }
    config = SimpleNamespace(backend=lambda: state["backend"], **setters)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(config=config))
    monkeypatch.delenv("BUSI_ALLOW_BACKEND", raising=False)
    return state


def test_keras_gets_the_projects_settings(keras_on: dict[str, object]) -> None:
    check_keras()
    assert keras_on["image_data_format"] == "channels_last"
    assert keras_on["floatx"] == "float32"
    assert keras_on["epsilon"] == 1e-7
    assert keras_on["max_epochs"] is None


def test_other_backend_is_refused_in_one_line(
    keras_on: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    keras_on["backend"] = "jax"
    with pytest.raises(BadInputError, match="must run on TensorFlow; it was loaded with 'jax'"):
        check_keras()
    monkeypatch.setenv("BUSI_ALLOW_BACKEND", "1")
    check_keras()
