"""Packaged models in object storage: they are found and copied, and get no roles."""

import uuid

import pytest

from busi_pipeline.caching.places import find_place
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.packaged import PACKAGE_FILE


@pytest.fixture
def models() -> str:
    """Where one experiment is packed."""
    place = find_place(f"memory://{uuid.uuid4().hex}/06_models")
    package = place / "vgg16/package"
    package.mkdir(parents=True)
    (package / PACKAGE_FILE).write_text("{}")
    (package / "classifier.onnx").write_bytes(b"network")
    return str(place)


@pytest.mark.parametrize("choice", ["vgg16", None])
def test_a_package_is_copied_to_this_machine(models: str, choice: str | None) -> None:
    folder = ModelStore(models).find(choice)
    assert (folder / "classifier.onnx").read_bytes() == b"network"


def test_one_that_is_not_there_is_named(models: str) -> None:
    with pytest.raises(BadInputError, match=rf"'resnet50'.* of those in {models} \(vgg16\)"):
        ModelStore(models).find("resnet50")


def test_roles_are_refused_where_nothing_can_be_held(models: str) -> None:
    with pytest.raises(BadInputError, match="get no roles") as caught:
        ModelStore(models).lock()
    assert models in caught.value.message
