"""The settings objects: one class for each group of parameters.

They are frozen, and refuse unknown keys and impossible values. The text under an attribute is its
description, which pydantic keeps (`model_fields[name].description`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from busi_pipeline.imaging.network_input import is_plain, list_windows
from busi_pipeline.models.backbones import Backbone, get_backbone

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]  # YAML gives a list
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy and Keras take
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
GateLine = Literal[
    "card",
    "export",
    "duplicates",
    "sensitivity",
    "specificity",
    "external_auc",
    "calibration",
    "champion",
]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
AnyShare = Annotated[float, Field(ge=0, le=1)]

_FRAMES = re.compile(r"first|middle|all|every [1-9][0-9]*|[1-9][0-9]*")


class Settings(BaseModel):
    """Base of all settings: frozen, nothing unknown, no silent conversion between types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Return a checked copy with `changes` laid over it, mapping by mapping.

        Raises pydantic's ValidationError.
        """
        return self.model_validate(merge_settings(self.model_dump(), changes))


def merge_settings(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers laid over each other, mapping by mapping; later ones win."""
    merged = OmegaConf.unsafe_merge(*(OmegaConf.create(dict(layer)) for layer in layers))
    return OmegaConf.to_container(merged)  # type: ignore[return-value]


class DatasetSettings(Settings):
    """What is known of the images and of nothing else; it stands in the report as it is."""

    name: Text
    """Name of the data set."""
    citation: str = ""
    """Publication to cite."""
    synthetic: bool = False
    """Images of no patient: every page then says that its figures are no result."""
    facts: Texts = ()
    """Sentences about patients, scanners and place."""
    limitations: Texts = ()
    """Sentences about what these images cannot show."""
    images: dict[str, CountOrNone] | None = None
    """Images by class, by which the data set is recognised; null where every set is meant."""

    def describes(self, counts: Mapping[str, int]) -> bool:
        """Whether what is known holds for images of these counts by class.

        Args:
            counts: images by class; other keys, such as `all`, do not count.
        """
        expected = {name: n for name, n in (self.images or {}).items() if n is not None}
        return all(counts.get(name) == n for name, n in expected.items())


class SiteSettings(Settings):
    """One site: a hospital, a scanner room, a public data set."""

    folder: Text
    """Where its images lie."""
    layout: Text | None = None
    """How the folder is laid out; null takes `ingestion.layout`."""


class DicomSettings(Settings):
    """How DICOM files are read."""

    frames: Text | Count
    """Of a file with several frames: `first`, `middle`, `all`, `every 10`, or the number of one."""
    crop_to_region: bool
    """Cut out the ultrasound region that the header names: names and scales around it go."""

    @field_validator("frames")
    @classmethod
    def _check_frames(cls, frames: str | int) -> str | int:
        if isinstance(frames, int) or _FRAMES.fullmatch(frames):
            return frames
        raise ValueError(
            f"must be first, middle, all, 'every <number>' or the number of a frame; got {frames!r}"
        )


class IngestionSettings(Settings):
    """Which files are images to work with."""

    sites: Texts
    """Entries of `sites` that are read. Of several, a manifest names the site of each image."""
    layout: Text
    """How the folders are laid out; `auto` recognises it."""
    class_names: dict[str, str]
    """{name that a site uses: class}, as in `{malign: malignant}`; upper and lower case are one."""
    extended_names: Literal["stop", "image"]
    """What `a_left.png` beside `a.png` is, if it does not look like a mask: it stops the run, since
    it may be a drawing on `a.png`, or it is an image of its own."""
    min_side: Count
    """Shortest side in pixels; smaller images go to quarantine."""
    max_pixels: Count
    """Pixels of an image (height times width); larger files go to quarantine unread."""
    min_images_per_class: Count
    """Fewer stop the run."""
    dicom: DicomSettings


class ExternalSettings(Settings):
    """A site that the models have not seen."""

    site: Text | None
    """An entry of `sites`; with `folder`, the name that the folder gets."""
    folder: Text | None
    """Where its images lie, if it is no entry of `sites`."""
    layout: Text | None
    """How the folder is laid out; null takes that of the site, or recognises it."""
    min_images: Count
    """Images, and patients, of either kind below which the metrics of a subgroup are left out."""
    min_auc: ProperShare
    """A model travels if the lower bound of its AUC is at least this, and the next three hold."""
    min_sensitivity: ProperShare
    """The lower bound of the flag's sensitivity is at least this."""
    min_specificity: ProperShare
    """The specificity of the flag is at least this."""
    max_miscalibration: Annotated[float, Field(ge=1)]
    """Slope, and observed over expected positives, lie between one over this and this."""


class AdaptationSettings(Settings):
    """How a model is fitted to a new site by labelled images of it."""

    sizes: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
    """Numbers of labelled images that are tried."""
    n_draws: Annotated[int, Field(ge=2)]
    """How often so many images are drawn, patient by patient."""
    images: Count
    """Labelled images by which the delivered version is fitted."""
    seed: Seed
    """Of the drawing."""


class PrivacySettings(Settings):
    """What may leave with a run."""

    cover_text: bool
    """Smooth burned-in text away in every picture that a run writes."""
    to_server: Literal["automatic", "everything", "without_patients"] = "automatic"
    """What an MLflow server gets: everything, or no picture of a patient and names as pseudonyms;
    automatic is everything where the server is this machine."""


class JobQueueSettings(Settings):
    """Workers that a cluster's queue starts, each as a job."""

    system: Literal["slurm", "pbs", "sge", "lsf", "oar", "htcondor", "moab"]
    """The queue."""
    jobs: Count
    """How many; each is one worker."""
    options: dict[str, Any] = {}
    """For dask-jobqueue, such as `queue`, `account`, `walltime`, `job_script_prologue`."""


class DaskSettings(Settings):
    """Where nodes run with `--runner=busi_pipeline.runners.DaskRunner`."""

    address: Text | None
    """Of a scheduler that is there, such as `tcp://head:8786`; null starts workers."""
    jobqueue: JobQueueSettings | None
    """A cluster's queue that starts them; null starts them on this machine."""
    workers: Count | None
    """Processes on this machine; null takes one for every `threads` cores, if memory allows."""
    threads: Count
    """Cores that each worker computes on."""
    memory: Annotated[float, Field(gt=0)]
    """GB that each worker may take; one that takes more is started anew."""
    attempts: Count
    """How often a node is begun whose worker is lost before the run ends."""
    dashboard: Annotated[int, Field(ge=0, le=65535)] | None
    """Port of Dask's dashboard; 0 takes a free one, null starts none."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether nodes may run on other machines."""
        return self.address is not None or self.jobqueue is not None

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.address is not None and self.jobqueue is not None:
            raise ValueError("address and jobqueue are two places: set one of them to null")
        return self


class DeduplicationSettings(Settings):
    """How images of one scan are found."""

    longest_side: Count
    """Pixels; larger images are reduced before they are matched."""
    keypoints: Count
    """Features of an image."""
    exact_up_to: Count
    """Images; the likely partners of more are found by an index that may miss some."""
    candidates: Count
    """Likely partners of each image that are compared with it in detail."""
    flipped_candidates: CountOrNone
    """The same for its horizontally flipped version."""
    min_inliers: Annotated[int, Field(ge=3)]
    """Features that must agree on how one image lies on the other; three fix an affine map."""
    min_shared: AnyShare
    """Share of the smaller of two images that both must show."""
    same_frame: AnyShare
    """Correlation of fine detail from which two images show one frame."""
    neighbouring_frame: AnyShare
    """Correlation from which they show neighbouring frames of one scan."""
    patient_groups: Literal["join", "only", "ignore"]
    """What patients do, where they are known: `join` the duplicates that are found, replace them,
    nothing."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.neighbouring_frame > self.same_frame:
            raise ValueError(
                f"neighbouring_frame must not be above same_frame; got {self.neighbouring_frame} "
                f"and {self.same_frame}"
            )
        if self.min_inliers > self.keypoints:
            raise ValueError(
                f"min_inliers must not be above keypoints; got {self.min_inliers} "
                f"and {self.keypoints}"
            )
        return self


class SplitSettings(Settings):
    """The hold-out split."""

    method: Literal["grouped", "random"]
    """`grouped` keeps duplicates in one part; `random` does not, as published work split."""
    seed: Seed
    """Of the division."""
    validation: ProperShare
    """Share of all images that stops the training and sets the threshold."""
    test: ProperShare
    """Share of all images on which the model is evaluated."""
    mixed_labels: Literal["exclude", "keep"]
    """What happens to groups whose images carry different labels."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test must leave images for training, so be below 1 together; "
                f"got {self.validation} and {self.test}"
            )
        return self


class CrossValidationSettings(Settings):
    """The folds."""

    folds: Annotated[int, Field(ge=2)]
    """Parts; each is the test part once."""
    repeats: Count
    """How often the images are divided anew."""
    seed: Seed
    """Of the division."""
    validation: ProperShare
    """Share of all images that stops each training and sets its threshold."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + 1 / self.folds >= 1:
            raise ValueError(
                "validation must leave images for training beside the test fold, so be below "
                f"{1 - 1 / self.folds:.2f} with {self.folds} folds; got {self.validation}"
            )
        return self


_Margin = Annotated[float, Field(ge=0)]


class InputSettings(Settings):
    """What of an image a network sees, and how."""

    view: Literal["whole", "lesion", "both"]
    """The whole image, the lesion with its surroundings, or both, as one window more."""
    keep_aspect: bool
    """Show a square window, black beyond the image, so that shapes stay what they are; else the
    image is stretched to a square."""
    margin: _Margin | Annotated[tuple[_Margin, ...], Field(strict=False, min_length=1)]
    """Around the box of the lesion, on each side, as a share of its longer side. Several make as
    many windows: the network sees each, and its probabilities are averaged."""
    grey: bool
    """Take the colour out: overlays and tinted scales."""
    stretch_intensity: bool
    """Stretch the grey values of what is shown from 0 to 255, without the outermost hundredths."""
    remove_text: bool
    """Smooth burned-in text away before anything is cut out."""
    remove_borders: bool
    """Cut off rows and columns at the edges that show nothing."""

    @property
    def windows(self) -> tuple[float | None, ...]:
        """The margin of each window, None for the whole image; the first is shown to people."""
        return list_windows(self)

    @property
    def needs_lesion(self) -> bool:
        """Whether somebody has to say where the lesion is."""
        return self.view != "whole"

    @property
    def is_plain(self) -> bool:
        """Whether it is the whole image, stretched, and nothing else."""
        return is_plain(self)


class AugmentationSettings(Settings):
    """How far a training image may be moved; every range is symmetric and drawn uniformly."""

    seed: Seed
    """Of what is drawn. It is not that of the training, so that trainings under different seeds
    share the features of the same augmented images."""
    per_image: Count
    """Augmented images drawn of each training image, shown in turn."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    """Up to this angle either way."""
    zoom: Share
    """Magnification between 1 - zoom and 1 + zoom."""
    horizontal_flip: bool
    """Flip one image in two."""
    vertical_flip: bool
    """Flip one image in two."""
    shift: Share
    """Up to this share of the image side, along each axis."""
    shear_degrees: Annotated[float, Field(ge=0, le=60)]
    """Up to this angle either way."""
    brightness: Share
    """Pixel values times 1 - brightness to 1 + brightness."""
    scanner_variation: bool
    """Show each augmented image as another scanner might have made it: speckle, blur, gamma, gain.
    Of grey inputs alone."""


class HeadSettings(Settings):
    """Classifier on the pooled features: [Dense ReLU], [BatchNormalization], Dropout, softmax."""

    pool_intermediate: bool
    """Beside the mean of the last features, the head sees mean and standard deviation of those at
    `freeze_until`."""
    dense_units: CountOrNone
    """Width of a dense layer before the last one; 0 leaves it out."""
    batch_normalization: bool
    """Normalise the inputs of the last layer."""
    batch_normalization_momentum: Share
    """Keras' 0.99 needs some hundred batches to know the mean; take less where there are fewer."""
    dropout: Share
    """Share of the head's inputs that is dropped out in training."""


class OptimizerSettings(Settings):
    """Optimiser and its learning-rate schedule."""

    name: Literal["adamw", "adam", "rmsprop", "sgd"]
    """Optimiser."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay, for every optimiser."""
    momentum: Share
    """Momentum of sgd and rmsprop; the others have none."""
    ema_momentum: Share
    """Momentum of the average over the weights; 0 switches averaging off."""
    schedule: Literal["constant", "cosine", "plateau"]
    """`constant` keeps the rate; `cosine` warms up over the first tenth of the steps and falls to a
    hundredth; `plateau` lowers it where validation stands still."""
    plateau_patience: Count
    """Epochs without a lower cross-entropy on validation images before the rate falls."""
    plateau_factor: ProperShare
    """What the rate is multiplied by then."""


class PhaseSettings(Settings):
    """One of the two training phases.

    Training stops after `patience` epochs without a lower cross-entropy on validation images. The
    weights of the epoch with the lowest are kept.
    """

    epochs: CountOrNone
    """0 leaves the phase out."""
    batch_size: Count
    """Images a batch."""
    patience: Count
    """Epochs without a lower cross-entropy on validation images before training stops."""
    augmented_per_epoch: Count
    """Augmented images of each training image in one epoch."""
    optimizer: OptimizerSettings


_Strength = Annotated[float, Field(gt=0)]


class TrainingSettings(Settings):
    """How an experiment is trained."""

    seed: Seed
    """Of the initial weights of the head and of the order of images."""
    weights: Literal["imagenet", "directory", "none"]
    """`imagenet` is Keras' download, `directory` a file in BUSI_WEIGHTS_DIR, `none` random."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    """`auto` takes mixed precision where the device is faster with it."""
    devices: Literal["all", "one"]
    """`all` spreads the fitting over every GPU of the machine."""
    class_weights: Literal["balanced", "none"]
    """`balanced` is the inverse frequency in the training images."""
    site_weights: Literal["balanced", "none"]
    """`balanced` lets every site count the same in each class, however many images it has."""
    choose_by: Literal["all_images", "worst_site"]
    """Which cross-entropy on validation images chooses penalty and epoch, and decides what is
    rolled back: that of all, or that of the site where it is highest."""
    label_smoothing: Share
    """Share of the label spread over all classes, in training only."""
    tta_horizontal_flip: bool
    """The delivered model averages over the image and its horizontally flipped version."""
    average_with_pretuned: bool
    """The delivered model averages over the network before and after fine-tuning, unless that
    raises the cross-entropy on validation images: then it is as before fine-tuning."""
    extraction_batch_size: Count | Literal["auto"]
    """Images a batch wherever nothing is trained; `auto` goes by the memory."""
    augment_on: Literal["auto", "device", "cpu"]
    """`device` augments a batch where the network computes, `cpu` image by image with OpenCV,
    `auto` on the device where that is a GPU."""
    head: HeadSettings
    head_solver: Literal["logistic_regression", "gradient"]
    """How the head is fitted on the frozen base: `logistic_regression` to the optimum, with the
    penalty that validation images choose, or `gradient` by the epochs of `head_phase`."""
    head_learns_from: Literal["originals", "all"]
    """What logistic regression sees of the training images: as they are, or augmented as well."""
    head_strengths: Annotated[tuple[_Strength, ...], Field(strict=False, min_length=1)]
    """Inverses of the penalty of logistic regression (`C` of scikit-learn), of which validation
    images choose."""
    head_phase: PhaseSettings
    """The head on the frozen base, where it is fitted by gradient."""
    fine_tuning: PhaseSettings
    """Head and the last layers of the base together."""

    @model_validator(mode="after")
    def _check_phases(self) -> Self:
        if self.head_solver == "logistic_regression":
            if self.head.dense_units or self.head.batch_normalization:
                raise ValueError(
                    "head_solver logistic_regression fits a head without dense_units and "
                    "batch_normalization; take head_solver gradient for such a head"
                )
        elif self.head_phase.epochs == 0 and self.fine_tuning.epochs == 0:
            raise ValueError("head_phase.epochs and fine_tuning.epochs are both 0: nothing to do")
        elif self.head_phase.epochs == 0 and self.average_with_pretuned:
            raise ValueError(
                "average_with_pretuned averages over the head as it is before fine-tuning, but "
                "head_phase.epochs is 0; set average_with_pretuned to false"
            )
        return self


class EvaluationSettings(Settings):
    """How models are scored and how an image is flagged for review."""

    target_sensitivity: Annotated[float, Field(gt=0, le=1)]
    """Share of positive images that are to be flagged; the threshold is set for it on validation
    images."""
    threshold_rule: Literal["conformal", "empirical"]
    """`conformal` reaches the target on new images like those, `empirical` on those themselves."""
    prevalence: ProperShare
    """Share of positive cases where a model is to be used, for the predictive values there."""
    n_resamples: Annotated[int, Field(ge=10)]
    """Bootstrap samples of groups for every interval."""
    seed: Seed
    """Of the bootstrap."""


class LocalizationSettings(Settings):
    """The localizer: what finds the lesion in an image."""

    backbones: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    """Entries of models/backbones.py with a pyramid; they stay frozen. Each has decoders of its
    own, whose maps are averaged."""
    weights: Literal["imagenet", "directory", "none"]
    """As `training.weights`."""
    image_size: Count
    """Height and width in pixels of what it sees, a multiple of 32."""
    channels: Count
    """Directions on which the backbone's features are projected, at each depth."""
    per_image: Count
    """Views of each image that other scanners might have made, shown in turn."""
    folds: Annotated[int, Field(ge=2)]
    """Parts of the images that are learned from. A decoder is fitted without each; together they
    are the localizer."""
    width: Annotated[int, Field(ge=16, multiple_of=16)]
    """Channels of the decoder."""
    dropout: Share
    """Share of the features' channels that is left out in training."""
    epochs: Count
    """Each shows every image once."""
    batch_size: Count
    """Images a batch."""
    optimizer: OptimizerSettings
    min_confidence: ProperShare
    """Below it, no lesion was found."""
    seed: Seed
    """Of views, folds and first weights."""

    @model_validator(mode="after")
    def _check_backbones(self) -> Self:
        for name in self.backbones:
            if get_backbone(name).pyramid is None:
                raise ValueError(f"backbones must be some with a pyramid; got {name!r}")
        if len(set(self.backbones)) < len(self.backbones):
            raise ValueError(f"backbones must name each once; got {', '.join(self.backbones)}")
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32; got {self.image_size}")
        return self


class PackagingSettings(Settings):
    """What a package holds beside the networks, and what it must keep to."""

    precision: Literal["single", "half", "int8"]
    """Of the classifier in the package. `half` and `int8` are smaller; int8 is quicker on some
    processors."""
    phone: Literal["half", "int8"] | None
    """Weights of LiteRT files for a phone, written beside the ONNX files; null for none."""
    phone_megabytes: Annotated[float, Field(gt=0)]
    """That the files for a phone may have, together."""
    largest_difference: Annotated[float, Field(gt=0, lt=1)]
    """Between the probabilities of the exported network and of Keras, in single precision."""
    max_auc_lost: Share
    """By a network of less precision, against single precision."""
    max_changed_flags: Share
    """Share of the images whose flag a network of less precision turns."""
    compared_images: Count
    """Images at most on which networks are compared: validation images."""
    calibration_images: Count
    """Training images at most from which int8 takes the range of values."""
    components: Count
    """Dimensions in which the images learned from differ. What lies outside is the distance."""
    refused_share: ProperShare
    """Share of images like those learned from that are taken for something else, and referred."""
    turned_images: Count
    """Images learned from, at most, that show how turned and inverted ones look."""
    turned_share: ProperShare
    """Share of images like those learned from that are taken for turned ones, at most."""
    copy_share: ProperShare
    """Share of images like those learned from that are taken for copies of one, at most."""
    shows_cases: bool
    """Whether the package names the images learned from, with their labels, so that an answer has
    the five most similar ones. Not where they may not be shown."""
    near_threshold_share: Share
    """Share of the images that the threshold was chosen on, nearest to it, that are referred."""
    quality_share: Share
    """Share of the images learned from whose quality is not gone by, at each end."""
    quality_slack: Share
    """By how much, as a share, the quality may be beyond that: scanners differ."""
    seed: Seed
    """Of the choice of images."""


class PredictionSettings(Settings):
    """What a packaged model is asked about."""

    folder: Text | None
    """Where the images lie; or a table (CSV, XLSX) with `image`, its path from the table's
    folder, and where known the reader's box: `left`, `top`, `right`, `bottom`, in pixels."""
    model: Text | None
    """An experiment whose model is packed; `champion`, `challenger` or `previous`; the version of a
    model that had a role; the folder of a package; or a model in MLflow, as
    `models:/breast_ultrasound/3`. null takes the champion, or the only one there is."""


class PromotionSettings(Settings):
    """What a packaged model must have before it gets a role, and who gives it."""

    registered_name: Text
    """Of the model in MLflow's registry, whose aliases are the roles."""
    role: Literal["champion", "challenger"]
    """The champion answers by default. A challenger is kept beside it."""
    who: Text | None
    """Who gives the role; null takes the name that this machine knows."""
    why: Text | None
    """The reason, for the ledger. Must be given."""
    when: Text | None
    """A day, as 2026-11-30, or a moment, as 2026-11-30T12:00+01:00, whose champion is asked for by
    `--pipeline=ledger`."""
    min_sensitivity: Share | None
    """Of the flag on test images, the lower end of its interval; null asks for none, as below."""
    min_specificity: Share | None
    """Of the flag on test images, the lower end of its interval."""
    min_external_auc: Share | None
    """Of the positive classes at `external.site`."""
    max_calibration_error: ProperShare | None
    """On test images: how far probabilities are from the shares that came true."""
    not_worse_than_champion: bool
    """Whether AUC and sensitivity of the flag may not be significantly below the champion's, on the
    same test images."""
    challenger_needs: tuple[GateLine, ...] = Field(strict=False)
    """What is asked of a challenger; of a champion all is."""


class MonitoringSettings(Settings):
    """When a model in use is no longer used on what it was tested on."""

    labels: Text | None
    """A table (CSV) with `image`, as in the findings, and `label`, a class; and `batch`, the name
    of the folder, where several folders have images of one name. null where none came yet."""
    alpha: ProperShare
    """Chance of an alarm, ever, where nothing differs."""
    min_images: Count
    """Below so many images no difference could be seen."""
    tolerance: Share
    """By how much the sensitivity may be below its target and still be supported."""
    seed: Seed
    """Of the order of the images in a batch, and of ties."""


class PublishedResult(Settings):
    """What published work reports for the same network on one data set; shares, seconds."""

    source: Text
    """Where the figures come from."""
    dataset: Text
    """Data set that the figures are of."""
    images: Annotated[dict[str, CountOrNone], Field(min_length=1)]
    """Its images by class. The figures are shown beside results on exactly so many alone."""
    split_method: Literal["grouped", "random"]
    """How the published work split them: `random` ignores duplicates."""
    accuracy: Annotated[float, Field(ge=0, le=1)]
    """Share of test images classified correctly."""
    loss: Annotated[float, Field(ge=0)]
    """Test loss, with label smoothing 0.1."""
    positive_sensitivity: Annotated[float, Field(ge=0, le=1)]
    """Share of positive images whose likeliest class is positive."""
    seconds: Annotated[float, Field(ge=0)]
    """Training time."""

    def __hash__(self) -> int:
        """Of all values: frozen settings have one, but a dictionary has none."""
        values = self.model_dump(exclude={"images"}).values()
        return hash((*values, *sorted(self.images.items())))


class ModelSettings(Settings):
    """What holds of every model, of one network or of several."""

    title: Text
    """As it stands in plots and tables; the name of the backbone by default."""
    image_size: Count
    """Height and width in pixels; the backbone's own by default."""
    in_default: bool = True
    """Part of a plain `kedro run` and of the ensemble."""
    baseline_of: Text | None = None
    """The experiment for which this one replicates the published settings, if it does."""
    published: PublishedResult | None = None
    input: InputSettings

    @property
    def extraction_batch_size(self) -> int | Literal["auto"]:
        """Images a batch wherever nothing is trained."""
        raise NotImplementedError


class ExperimentSettings(ModelSettings):
    """One experiment, complete."""

    backbone: Text
    """An entry of models/backbones.py."""
    freeze_until: Text
    """Layer from whose output on the network is fine-tuned; the backbone's own by default."""
    truncate_at: Text | None = None
    """Layer whose output is pooled, where the layers above it are left off."""
    augmentation: AugmentationSettings
    training: TrainingSettings

    @property
    def extraction_batch_size(self) -> int | Literal["auto"]:
        """Images a batch wherever nothing is trained."""
        return self.training.extraction_batch_size

    @property
    def fine_tunes(self) -> bool:
        """Whether part of the base is trained; else the whole base is frozen."""
        return self.training.fine_tuning.epochs > 0

    @property
    def preset(self) -> Backbone:
        """The entry of models/backbones.py."""
        return get_backbone(self.backbone)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        smallest = self.preset.minimum_size
        if self.image_size < smallest:
            raise ValueError(
                f"image_size must be at least {smallest} for {self.backbone}; got {self.image_size}"
            )
        return self

    @model_validator(mode="after")
    def _check_grey(self) -> Self:
        if self.augmentation.scanner_variation and not self.input.grey:
            raise ValueError(
                "augmentation.scanner_variation is of grey images alone: set input.grey to true, "
                "or scanner_variation to false"
            )
        return self


class JoinedSettings(ModelSettings):
    """An experiment that joins others: the mean of their probabilities, one model."""

    members: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    """Experiments of one network each, which see the same input."""
    of_folds: bool = False
    """Join the networks of the folds of a cross-validation, so that all images are learned from,
    and the flag is set on all of them, out of fold. Else those of the hold-out split."""
    batch_size: Count | Literal["auto"]
    """The first member's `training.extraction_batch_size`."""
    in_default: Literal[False] = False
    """Never part of a plain `kedro run`."""

    @property
    def extraction_batch_size(self) -> int | Literal["auto"]:
        """Images a batch."""
        return self.batch_size


class EnsembleSettings(Settings):
    """The mean of the experiments' cross-validated probabilities."""

    title: Text
    """As it stands in plots and tables."""
