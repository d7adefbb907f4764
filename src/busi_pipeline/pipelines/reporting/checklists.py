"""The items of TRIPOD+AI and CLAIM that apply, and where the report answers them.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378. CLAIM: Mongan, Moy and Kahn 2020, Radiology:
Artificial Intelligence 2(2):e200029, updated by Tejani et al. 2024. Topics are in this project's
own words. Answers hold for any data set: what is known of one stands in its configuration.
"""

from typing import NamedTuple


class Item(NamedTuple):
    """`place` is the id of the section of the report that answers the item."""

    guideline: str
    number: str
    topic: str
    answer: str
    place: str


_TRIPOD = "TRIPOD+AI"
_CLAIM = "CLAIM"

ITEMS = [
    Item(_TRIPOD, "1, 2", "title and summary", "development and internal validation", "summary"),
    Item(_TRIPOD, "3a, 3b", "context, users", "second look at breast ultrasound", "use"),
    Item(
        _TRIPOD,
        "3c, 14",
        "inequalities, fairness",
        "not analysed: age, ethnicity and site are not read",
        "limits",
    ),
    Item(_TRIPOD, "4", "objectives", "the class of an image, and a flag for review", "summary"),
    Item(_TRIPOD, "5, 6", "data, setting, eligibility", "all usable images of one set", "data"),
    Item(_TRIPOD, "7", "preparation", "size and normalisation, the same in use", "models"),
    Item(_TRIPOD, "8", "outcome", "the label that comes with the image", "data"),
    Item(_TRIPOD, "9", "predictors", "the pixels of one image", "models"),
    Item(_TRIPOD, "10", "sample size", "not planned; intervals show what it allows", "scores"),
    Item(_TRIPOD, "11", "missing data", "files that cannot be read are counted", "data"),
    Item(_TRIPOD, "12", "analysis", "folds, choices, metrics, comparison", "division"),
    Item(_TRIPOD, "13", "class imbalance", "class weights; calibrated afterwards", "models"),
    Item(_TRIPOD, "15", "output, threshold", "probabilities, flag, referral", "threshold"),
    Item(_TRIPOD, "16", "training and evaluation differ?", "no: one source", "limits"),
    Item(
        _TRIPOD,
        "17, 19",
        "ethics, patients",
        "to be stated by whoever collected the images",
        "limits",
    ),
    Item(_TRIPOD, "18", "open science", "code and settings are open", "use"),
    Item(_TRIPOD, "20", "participants", "counts by class", "data"),
    Item(
        _TRIPOD, "21, 22", "development, specification", "networks, settings, model file", "models"
    ),
    Item(_TRIPOD, "23a", "performance with intervals", "out of fold, over groups", "scores"),
    Item(_TRIPOD, "23b", "heterogeneity", "with and without burned-in annotations", "bias"),
    Item(_TRIPOD, "25, 26", "interpretation, limits", "what the figures do not say", "limits"),
    Item(_TRIPOD, "27", "use in care", "what input it takes, who looks", "use"),
    Item(_CLAIM, "1-4", "title, summary, aims", "deep learning on single images", "summary"),
    Item(_CLAIM, "5, 6", "design, goal", "retrospective; development", "data"),
    Item(_CLAIM, "7, 8", "sources, eligibility", "all usable images of one set", "data"),
    Item(_CLAIM, "9-12", "preprocessing, subsets, missing", "nothing is chosen by hand", "data"),
    Item(_CLAIM, "13", "acquisition", "what is configured for the data set", "data"),
    Item(_CLAIM, "14-18", "reference standard", "the label; contradictions are counted", "data"),
    Item(_CLAIM, "19", "sample size", "not planned; intervals show what it allows", "scores"),
    Item(
        _CLAIM,
        "20, 21",
        "partitions, level",
        "groups of duplicates, and patients where named",
        "division",
    ),
    Item(_CLAIM, "22-24", "network, software, weights", "Keras; initial weights", "models"),
    Item(_CLAIM, "25-27", "training, selection, ensemble", "on validation images", "models"),
    Item(_CLAIM, "28, 29", "metrics, uncertainty", "bootstrap over groups, Holm", "scores"),
    Item(_CLAIM, "30", "robustness", "duplicates, annotations, occluded lesions", "bias"),
    Item(_CLAIM, "31", "explanation", "Grad-CAM beside the lesion masks", "lesion"),
    Item(_CLAIM, "32", "internal evaluation", "cross-validation", "scores"),
    Item(_CLAIM, "33", "external evaluation", "none", "limits"),
    Item(_CLAIM, "35, 36", "flow, demographics", "counts by class", "data"),
    Item(_CLAIM, "37, 38", "performance, precision", "each figure with its interval", "scores"),
    Item(_CLAIM, "39", "failures", "misclassified positive images are shown first", "lesion"),
    Item(_CLAIM, "40, 41", "limits, meaning", "no clinical claim", "limits"),
    Item(_CLAIM, "43", "availability", "code, settings, model file", "use"),
]
