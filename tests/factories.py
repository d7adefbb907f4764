"""What tests are made of: settings, images, manifests, cached arrays, a whole small project.

Predictions and metrics of models are in `tests.evaluation_factories`.
"""

import hashlib
import io
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.config import OmegaConfigLoader
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.caching.fingerprints import Fingerprint
from busi_pipeline.config.checking import Parameters, check_parameters
from busi_pipeline.config.experiments import SHARED_GROUPS, resolve_experiment
from busi_pipeline.config.loader import LOADER_ARGUMENTS, ProjectConfigLoader
from busi_pipeline.config.schemas import ExperimentSettings, merge_settings
from busi_pipeline.stats.classes import Classes

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = Classes(("benign", "malignant", "normal"), ("malignant",))
BUSI_COUNTS = {"benign": 437, "malignant": 210, "normal": 133}

# What a machine may have set, and no run of a test may see.
MACHINE_VARIABLES = (
    "BUSI_RAW_DIR",
    "BUS_BRA_RAW_DIR",
    "BUSI_WEIGHTS_DIR",
    "BUSI_PSEUDONYM_KEY",
    "MLFLOW_TRACKING_URI",
    "KEDRO_ENV",
)

RawFiles = dict[str, Callable[[], bytes]]

TINY = """
augmentation: {per_image: 2}
evaluation: {n_resamples: 30}
deduplication: {longest_side: 128, keypoints: 60}
cross_validation: {folds: 2, repeats: 1, validation: 0.2}
training:
  weights: none
  precision: float32
  fine_tuning: {epochs: 2}
"""

TINY_EXPERIMENTS = """
experiments:
  inceptionv3: {image_size: 75, freeze_until: mixed0, truncate_at: mixed1}
  inceptionv3_adamw: {image_size: 75, freeze_until: mixed0, truncate_at: mixed1}
  resnet50: {image_size: 32, freeze_until: conv2_block1_out, truncate_at: conv2_block2_out}
  vgg16: {image_size: 32, freeze_until: block1_pool, truncate_at: block2_pool}
"""


# Settings


def find_port() -> int:
    """Return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_base_configuration() -> ProjectConfigLoader:
    """Return the loader of conf/base alone, whatever the machine has in conf/local."""
    return ProjectConfigLoader(PROJECT / "conf", env="base", **LOADER_ARGUMENTS)


@cache
def _read_base_parameters() -> dict[str, Any]:
    loader = open_base_configuration()
    loader["globals"]  # binds the resolvers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="register_new_resolver")
        # As the files have it: the project's own loader gives checked objects.
        return OmegaConfigLoader.__getitem__(loader, "parameters")


def load_parameters(*changes: Mapping[str, Any]) -> Parameters:
    """Return the checked parameters of conf/base, without weights, with `changes` laid over it."""
    no_weights = {"training": {"weights": "none"}}
    return check_parameters(merge_settings(_read_base_parameters(), no_weights, *changes))


@cache
def _load_shared_settings() -> Parameters:
    return load_parameters({"training": {"precision": "float32"}})


def make_settings(title: str = "ResNet50", **changes: Any) -> ExperimentSettings:
    """Return the checked settings of an experiment: ResNet50 with random weights in float32.

    Args:
        title: of the experiment.
        changes: settings that differ, nested as in YAML.
    """
    shared = _load_shared_settings()
    return resolve_experiment(
        {"backbone": "resnet50", "title": title} | changes,
        {group: shared[group].model_dump() for group in SHARED_GROUPS},  # type: ignore[literal-required]
    )


# Images and manifests


def encode_image(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_png(seed: int, side: int = 40) -> bytes:
    """Return a PNG of grey noise, `side` pixels high and five wider; another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side + 5), dtype=np.uint8)
    return encode_image(Image.fromarray(noise))


def make_mask(rows: slice = np.s_[10:20], colour: int | tuple[int, ...] = 255) -> bytes:
    """Return a PNG of the size of `make_png`: black, but for some rows.

    Args:
        rows: that are set.
        colour: their grey, or their red, green and blue.
    """
    shape = (40, 45) if isinstance(colour, int) else (40, 45, 3)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[rows] = colour
    return encode_image(Image.fromarray(mask))


def as_raw_images(files: Mapping[str, bytes]) -> RawFiles:
    """Turn {path: bytes} into what the raw-image dataset loads."""
    return {path: partial(bytes, content) for path, content in files.items()}


def make_manifest(counts: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Return a manifest of these counts, BUSI's by default, with what later stages read of it."""
    counts = BUSI_COUNTS if counts is None else counts
    ids = [f"{label}/{label} ({n})" for label, k in counts.items() for n in range(1, k + 1)]
    hashes = [hashlib.sha256(image_id.encode()).hexdigest() for image_id in ids]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{image_id}.png" for image_id in ids],
            "label": [label for label, k in counts.items() for _ in range(k)],
            "byte_sha256": hashes,
            "pixel_sha256": hashes,
            "site": "main",
            "patient": "",
            "mask_paths": "[]",
        }
    )


def group_alone(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return image groups in which every image stands alone."""
    return manifest[["image_id"]].assign(group=manifest["image_id"], mixed_labels=False)


# Arrays and the cache


def store_array(image_ids: Iterable[str], values: np.ndarray, **columns: Any) -> StoredArray:
    """Return an array as a node gets it, one row an image; `columns` stand beside `image_id`."""
    index = pd.DataFrame({"image_id": list(image_ids), **columns})
    keys = [str(number) for number in range(len(index))]
    return StoredArray(index, values, keys, Fingerprint("made_up", {}))


class Squares:
    """A computation whose every row can be checked: [n, n * n] under the key `n`.

    Attributes:
        computed: the numbers that were computed so far, in order.
        breaks_after: so many rows are computed before the power fails; None for all.
    """

    def __init__(self, cache: Cache, chunk: int = 2):
        self.cache, self._chunk = cache, chunk
        self.computed: list[int] = []
        self.breaks_after: int | None = None

    def compute(self, numbers: Sequence[int], made_by: str = "squares") -> StoredArray:
        """Return the array of these numbers, through the cache."""

        def compute(positions: np.ndarray) -> Iterator[np.ndarray]:
            for start in range(0, len(positions), self._chunk):
                part = [numbers[position] for position in positions[start : start + self._chunk]]
                if self.breaks_after is not None and len(self.computed) >= self.breaks_after:
                    raise RuntimeError("power cut")
                self.computed += part
                yield np.array([[n, n * n] for n in part], dtype=np.float16)

        return self.cache.compute_array(
            Fingerprint("squares", {"made_by": made_by}),
            pd.DataFrame({"image_id": [f"{n:03d}" for n in numbers]}),
            [str(n) for n in numbers],
            "float16",
            compute,
            {"note": "kept"},
        )


# Projects


def write_tiny_environment(project: Path, extra: str = "") -> None:
    """Write `conf/local`: seconds instead of minutes, no weights.

    Args:
        project: its folder.
        extra: more entries under `experiments`, indented by two.
    """
    (project / "conf/local/parameters_tiny.yml").write_text(TINY)
    (project / "conf/local/parameters_tiny_experiments.yml").write_text(TINY_EXPERIMENTS + extra)


def run_project(project: Path, pipeline: str, **parameters: object) -> None:
    """Run `kedro run --pipeline=<pipeline>` in this process."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project)
    session: Any
    with KedroSession.create(project_path=project, runtime_params=parameters or None) as session:
        session.run(pipeline_names=[pipeline])


def close_mlflow() -> None:
    """End open runs and forget the tracking server, so that the next test finds neither."""
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]
