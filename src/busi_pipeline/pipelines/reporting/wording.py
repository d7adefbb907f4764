"""What a model is and how it was trained, in words that follow from the record of its training."""

from collections.abc import Iterable, Mapping
from typing import Any

from busi_pipeline.config.schemas import ExperimentSettings, ModelSettings
from busi_pipeline.imaging.network_input import InputDescription, is_plain, list_windows

_WEIGHTS = {
    "imagenet": "weights pretrained on everyday photographs (ImageNet)",
    "directory": "pretrained weights from a folder (BUSI_WEIGHTS_DIR)",
    "none": "random weights",
}
_FROZEN = "a classifier on the features of the frozen network"


def list_words(names: Iterable[str], word: str = "and") -> str:
    """Return `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def describe_weights(weights: Iterable[str]) -> str:
    """Return what training starts from, in words: `imagenet`, `directory`, `none`."""
    return " or ".join(_WEIGHTS.get(name, name) for name in dict.fromkeys(weights))


def describe_input(settings: Mapping[str, Any]) -> str:
    """Return what a model takes, in words.

    Args:
        settings: `image_size` and `input` of an experiment, as plain values.
    """
    size, shape = settings["image_size"], InputDescription(**settings["input"])
    windows = list_windows(shape)
    many = f"{len(windows)}, " if len(windows) > 1 else ""
    array = f"uint8 RGB, (n, {many}{size}, {size}, 3)"
    if is_plain(shape):
        return f"{array}, stretched to this size (bilinear)"
    margins = [f"{100 * margin:g}" for margin in windows if margin is not None]
    seen = ["the whole image"] if None in windows else []
    if margins:
        seen.insert(0, f"the lesion with {list_words(margins)} % of its longer side around it")
    changes = {
        "at its true shape": shape.keep_aspect,
        "stretched": not shape.keep_aspect,
        "without colour": shape.grey,
        "grey values stretched": shape.stretch_intensity,
        "burned-in text smoothed away": shape.remove_text,
        "empty borders cut off": shape.remove_borders,
    }
    how = ", ".join(change for change, is_made in changes.items() if is_made)
    found = "; the localizer beside the model finds the lesion" if margins else ""
    return f"{array}: {list_words(seen)}, {how}{found}"


def describe_fitting(card: Mapping[str, Any]) -> str:
    """Return how a delivered model was trained, by the record of its training.

    Args:
        card: `settings` and `training` of `describe_training`.
    """
    settings, training = card["settings"], card["training"]
    if settings.get("of_folds"):
        return (
            f"each member on {training['folds']} folds of a cross-validation; the card of a "
            "member, where there is one, is of another training"
        )
    if "members" in settings:
        return "none of its own: each member has a card that says how it was trained"
    best = training["best_epoch"]
    if best.get("fine_tuning"):
        how = f"fine-tuned for {best['fine_tuning']} epochs"
        if settings["training"]["average_with_pretuned"]:
            how += ", averaged with the network before fine-tuning"
    elif "fine_tuning" in best:
        how = f"{_FROZEN}; fine-tuning was no better on validation images and was rolled back"
    else:
        how = f"{_FROZEN}; no fine-tuning"
    if settings["training"]["tta_horizontal_flip"]:
        how += "; averaged over the image and its horizontal flip"
    return how


def describe_augmentation(card: Mapping[str, Any]) -> str:
    """Return which augmented images the delivered weights have learned from; "" where not known.

    Args:
        card: as of `describe_fitting`.
    """
    settings = card["settings"]
    if "members" in settings:
        return "as each member's"
    if "augmentation" not in settings:  # a card of an earlier version
        return ""
    training, own = settings["training"], settings["augmentation"]
    learned = (
        bool(card["training"]["best_epoch"].get("fine_tuning"))
        or training["head_solver"] == "gradient"
        or training["head_learns_from"] == "all"
    )
    if not learned:
        return "none: what is delivered has learned from the images as they are"
    changes = {
        "rotated": own["rotation_degrees"],
        "sheared": own["shear_degrees"],
        "enlarged or reduced": own["zoom"],
        "shifted": own["shift"],
        "flipped": own["horizontal_flip"] or own["vertical_flip"],
        "brighter or darker": own["brightness"],
        "as other scanners might show them": own["scanner_variation"],
    }
    made = [change for change, is_made in changes.items() if is_made]
    times = f"{own['per_image']} of each training image"
    return f"{times}: {list_words(made)}" if made else f"{times}, not changed"


def describe_plan(settings: ModelSettings) -> str:
    """Return how an experiment is set to be trained, where no training of it is on record."""
    if not isinstance(settings, ExperimentSettings):
        members = ", ".join(getattr(settings, "members", ()))
        return f"the mean of {members}"
    if not settings.fine_tunes:
        return f"{_FROZEN}; no fine-tuning"
    return (
        f"up to {settings.training.fine_tuning.epochs} epochs of fine-tuning, rolled back where it "
        "is no better on validation images"
    )
