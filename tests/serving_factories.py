"""A folder of models with roles, and a client of a service over it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from busi_pipeline.models.ledger import CHALLENGER, CHAMPION, PREVIOUS, PROMOTE, append_entry
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.packaged import load_package
from busi_pipeline.serving.app import create_app
from busi_pipeline.serving.service import Service
from busi_pipeline.serving.settings import make_settings
from tests.factories import encode_image
from tests.package_factories import (
    THRESHOLD,
    draw_scan,
    make_classifier,
    make_parts,
    write_tiny_package,
)

SCAN = encode_image(Image.fromarray(draw_scan(1)))
BRIGHT = encode_image(Image.fromarray(draw_scan(2, level=200)))
# With another threshold each is another model.
THRESHOLDS = {CHAMPION: THRESHOLD, PREVIOUS: 0.4, CHALLENGER: 0.999}


def write_model(models: Path, threshold: float) -> str:
    """Keep a model, and return its version."""
    folder = models / f"tiny_{threshold:g}" / "package"
    parts = make_parts()
    write_tiny_package(
        folder,
        classifier=make_classifier(threshold),
        description={**parts.description, "threshold": threshold},
    )
    version = load_package(folder).version
    ModelStore(models).keep(folder, version)
    return version


def give_roles(models: Path, **roles: str) -> None:
    """Write the versions of roles into the ledger."""
    store = ModelStore(models)
    first = next(iter(roles.values()))
    append_entry(store.read_ledger(), PROMOTE, first, "tiny", roles, "someone", "a test", {})


@contextmanager
def serve(models: Path, **settings: Any) -> Iterator[tuple[TestClient, Service]]:
    """Run a service in this process."""
    service = Service(make_settings(models=models, **settings))
    with TestClient(
        create_app(service), "http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        yield client, service
