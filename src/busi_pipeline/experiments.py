"""An experiment is a row of parameters: what it may say, what it inherits, how it is checked.

Shared values stand under `augmentation` and `training`; a row under `experiments` holds only what
differs. `resolve_experiment` lays the row over the shared values and checks the result, so that a
misspelt key or an impossible value stops the run with one line before anything is computed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from busi_pipeline.backbones import get_backbone
from busi_pipeline.errors import BadInputError

Share = Annotated[float, Field(ge=0, lt=1)]

ENSEMBLE = "ensemble"
_SEPARATOR = "__"
TAKEN_NAMES = frozenset({ENSEMBLE, "judging"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentationSettings(_Strict):
    """How far a training image may be moved; every range is symmetric and drawn uniformly.

    Attributes:
        seed: of what is drawn. It is not that of the training, so that trainings under different
            seeds share the features of the same views.
        views: augmented versions drawn of each training image, shown in turn.
        rotation_degrees: up to this angle either way.
        zoom: magnification between 1 - zoom and 1 + zoom.
        horizontal_flip, vertical_flip: mirror one image in two.
        shift: up to this share of the image side, each axis.
        shear_degrees: up to this angle either way.
        brightness: pixel values times 1 - brightness to 1 + brightness.
    """

    seed: Annotated[int, Field(ge=0)]
    views: Annotated[int, Field(ge=1)]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    zoom: Share
    horizontal_flip: bool
    vertical_flip: bool
    shift: Share
    shear_degrees: Annotated[float, Field(ge=0, le=60)]
    brightness: Share


class HeadSettings(_Strict):
    """Classifier on the pooled features: [Dense ReLU], [BatchNormalization], Dropout, softmax.

    `pool_cut`: beside the mean of the last features, the head sees mean and standard deviation of
    those at `tail_after`. `batch_normalization_momentum`: Keras' 0.99 needs some hundred batches to
    know the mean; take less where there are fewer.
    """

    pool_cut: bool
    dense_units: Annotated[int, Field(ge=0)]
    batch_normalization: bool
    batch_normalization_momentum: Share
    dropout: Share


class OptimizerSettings(_Strict):
    """Optimiser and its learning-rate schedule.

    `constant` keeps the rate; `cosine` warms up over the first tenth of the steps and falls to a
    hundredth; `plateau` multiplies it by `plateau_factor` after `plateau_patience` epochs without
    a lower cross-entropy on validation images. `ema_momentum` 0 switches weight averaging off.
    """

    name: Literal["adamw", "adam", "rmsprop", "sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Share
    ema_momentum: Share
    schedule: Literal["constant", "cosine", "plateau"]
    plateau_patience: Annotated[int, Field(ge=1)]
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]


class PhaseSettings(_Strict):
    """One of the two training phases; `epochs` 0 leaves it out.

    Training stops after `patience` epochs without a lower cross-entropy on validation images, and
    the weights of the epoch with the lowest are kept. An epoch shows each image by
    `views_per_epoch` of its views.
    """

    epochs: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)]
    views_per_epoch: Annotated[int, Field(ge=1)]
    optimizer: OptimizerSettings


class TrainingSettings(_Strict):
    """The recipe of one experiment.

    Attributes:
        seed: of weights and order.
        weights: `imagenet` (Keras' download), `directory` (a file in BUSI_WEIGHTS_DIR) or `none`.
        precision: `auto` takes mixed precision where the device is faster with it.
        devices: `all` spreads the fitting over every GPU of the machine, `one` does not.
        class_weights: `balanced` (inverse frequency in the training split) or `none`.
        label_smoothing: share of the label spread over all classes, in training only.
        average_mirror: the delivered model averages over the image and its mirror image.
        average_start: the delivered model averages over the network before and after fine-tuning,
            unless that raises the cross-entropy on validation images: then it is as before.
        extraction_batch_size: images a batch wherever nothing is trained; `auto` asks the memory.
        move_views_on: `device` moves the views of a batch where the network computes, `cpu` one by
            one with OpenCV, `auto` on the device where that is a GPU.
        head_solver: how the head is fitted on the frozen base: `logistic_regression`, to the
            optimum and with the penalty that validation images choose, or `gradient`, by the epochs
            of `head_phase`.
        head_phase: the head on the frozen base, where it is fitted by gradient.
        fine_tuning: head and tail together.
    """

    seed: Annotated[int, Field(ge=0)]
    weights: Literal["imagenet", "directory", "none"]
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    devices: Literal["all", "one"]
    class_weights: Literal["balanced", "none"]
    label_smoothing: Share
    average_mirror: bool
    average_start: bool
    extraction_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"]
    move_views_on: Literal["auto", "device", "cpu"]
    head: HeadSettings
    head_solver: Literal["logistic_regression", "gradient"]
    head_phase: PhaseSettings
    fine_tuning: PhaseSettings

    @model_validator(mode="after")
    def _check_phases(self) -> "TrainingSettings":
        if self.head_solver == "logistic_regression":
            if self.head.dense_units or self.head.batch_normalization:
                raise ValueError(
                    "head_solver logistic_regression fits a head without dense_units and "
                    "batch_normalization; take head_solver gradient for such a head"
                )
        elif self.head_phase.epochs == 0 and self.fine_tuning.epochs == 0:
            raise ValueError("head_phase.epochs and fine_tuning.epochs are both 0: nothing to do")
        elif self.head_phase.epochs == 0 and self.average_start:
            raise ValueError(
                "average_start averages over the head as it is before fine-tuning, but "
                "head_phase.epochs is 0; set average_start to false"
            )
        return self


class PublishedResult(_Strict):
    """The row of the published work beside which this experiment is shown; shares, seconds."""

    source: str
    accuracy: float
    loss: float
    malignant_sensitivity: float
    seconds: float


class ExperimentSettings(_Strict):
    """One experiment, complete.

    Attributes:
        title: as it stands in plots and tables.
        backbone: a row of `backbones.py`.
        image_size: height and width in pixels; the backbone's own where the row names none.
        tail_after: layer from whose output on the network is fine-tuned; likewise.
        base_end: layer whose output is pooled, where the layers above it are left off; else none.
        in_default: part of `__default__`.
        baseline_of: the experiment this one replicates the published recipe for, if it does.
    """

    title: str
    backbone: str
    image_size: Annotated[int, Field(ge=1)]
    tail_after: str
    base_end: str | None = None
    in_default: bool = True
    baseline_of: str | None = None
    published: PublishedResult | None = None
    augmentation: AugmentationSettings
    training: TrainingSettings

    @property
    def fine_tunes(self) -> bool:
        """Whether part of the base is trained; else the whole base is frozen."""
        return self.training.fine_tuning.epochs > 0


def merge_settings(shared: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `shared` with `row` laid over it, mapping by mapping; neither is changed."""
    merged = dict(shared)
    for key, value in row.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge_settings(below, value) if both else value  # type: ignore[arg-type]
    return merged


def resolve_experiment(
    row: Mapping[str, Any], augmentation: Mapping[str, Any], training: Mapping[str, Any]
) -> ExperimentSettings:
    """Lay a row over the shared settings, fill in the backbone's own, and check all of it.

    Raises BadInputError in one line: the setting, what it may be, what came.
    """
    title = row.get("title", "?")
    if "backbone" not in row:
        raise BadInputError(
            f"experiment {title!r} names no backbone: add `backbone: <row of backbones.py>` to it "
            "in conf/base/parameters_experiments.yml."
        )
    backbone = get_backbone(row["backbone"])
    shared = {
        "title": row["backbone"],
        "image_size": backbone.image_size,
        "tail_after": backbone.tail_after,
        "augmentation": augmentation,
        "training": training,
    }
    try:
        settings = ExperimentSettings.model_validate(merge_settings(shared, row))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "training"
        allowed = _allowed_keys(first["loc"]) if first["type"] == "extra_forbidden" else ""
        raise BadInputError(
            f"experiment {title!r}: {where}: {first['msg']}; got {first['input']!r}.{allowed} "
            "Set it in conf/base/parameters_experiments.yml or the file the shared value stands in."
        ) from None
    if settings.image_size < backbone.minimum_size:
        raise BadInputError(
            f"experiment {title!r}: image_size must be at least {backbone.minimum_size} for "
            f"{settings.backbone}; got {settings.image_size}."
        )
    return settings


def _allowed_keys(location: tuple[int | str, ...]) -> str:
    """Name the keys allowed where an unknown one stood."""
    model: Any = ExperimentSettings
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return f" Allowed: {sorted(model.model_fields)}."


def name_item(row: str, item: str) -> str:
    """Return the name of a node's argument that is an item of one of many rows."""
    return f"{row}{_SEPARATOR}{item}"


def gather_rows(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {row: {item: value}} of all arguments that `name_item` named."""
    rows: dict[str, dict[str, Any]] = {}
    for name, value in arguments.items():
        row, separator, item = name.rpartition(_SEPARATOR)
        if separator:
            rows.setdefault(row, {})[item] = value
    return rows


def load_experiments(parameters: Mapping[str, Any]) -> dict[str, ExperimentSettings]:
    """Resolve every row of `experiments`; raises BadInputError where a row or its name is wrong."""
    experiments = {}
    for name, row in parameters["experiments"].items():
        if name in TAKEN_NAMES:
            raise BadInputError(
                f"experiment names must differ from {sorted(TAKEN_NAMES)}, which the project uses "
                f"itself; rename {name!r} in conf/base/parameters_experiments.yml."
            )
        if not name.isidentifier():
            raise BadInputError(
                f"experiment names may hold letters, digits and underscores; got {name!r}. "
                "The name becomes the pipeline train_<name> and a Kedro namespace."
            )
        experiments[name] = resolve_experiment(
            row, parameters["augmentation"], parameters["training"]
        )
    return experiments
