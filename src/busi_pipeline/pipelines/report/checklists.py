"""The items of TRIPOD+AI and CLAIM that apply, and where the report answers them.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378. CLAIM: Mongan, Moy and Kahn 2020, Radiology:
Artificial Intelligence 2(2):e200029, updated by Tejani et al. 2024. Topics are in this project's
own words. What the public data set does not tell cannot be answered, and is said to be missing.
"""

from typing import NamedTuple


class Item(NamedTuple):
    """`place` is the id of a section of the report; empty where the item is answered here alone."""

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
        _TRIPOD, "3c, 14", "inequalities, fairness", "not known: no age, ethnicity, site", "limits"
    ),
    Item(_TRIPOD, "4", "objectives", "three classes, and a flag for cancer", "summary"),
    Item(
        _TRIPOD,
        "5, 6",
        "data, setting, eligibility",
        "one public set, as its authors chose",
        "data",
    ),
    Item(_TRIPOD, "7", "preparation", "resized, normalised as ImageNet; the same in use", "models"),
    Item(_TRIPOD, "8", "outcome", "label of the data set; who set it is not recorded", "data"),
    Item(_TRIPOD, "9", "predictors", "the pixels of one image", "models"),
    Item(_TRIPOD, "10", "sample size", "what was public; intervals show what it allows", "scores"),
    Item(_TRIPOD, "11", "missing data", "files that cannot be read are listed", "data"),
    Item(_TRIPOD, "12", "analysis", "folds, choices, metrics, comparison", "division"),
    Item(_TRIPOD, "13", "class imbalance", "class weights; calibrated afterwards", "models"),
    Item(_TRIPOD, "15", "output, threshold", "probabilities, flag, referral", "decision"),
    Item(
        _TRIPOD, "16", "training and evaluation differ?", "same source: no external data", "limits"
    ),
    Item(
        _TRIPOD, "17, 19", "ethics, patients", "of the data set; none were involved here", "limits"
    ),
    Item(
        _TRIPOD,
        "18",
        "open science",
        "code and settings are public, images from their authors",
        "use",
    ),
    Item(_TRIPOD, "20", "participants", "counts by class; no demographics", "data"),
    Item(
        _TRIPOD,
        "21, 22",
        "development, specification",
        "networks, recipes, the model file",
        "models",
    ),
    Item(_TRIPOD, "23a", "performance with intervals", "out of fold, over groups", "scores"),
    Item(_TRIPOD, "23b", "heterogeneity", "with and without marks of the examiner", "shortcuts"),
    Item(_TRIPOD, "25, 26", "interpretation, limits", "what the figures do not say", "limits"),
    Item(_TRIPOD, "27", "use in care", "what input it takes, who looks", "use"),
    Item(_CLAIM, "1-4", "title, summary, aims", "deep learning, transfer from ImageNet", "summary"),
    Item(_CLAIM, "5, 6", "design, goal", "retrospective; development", "data"),
    Item(_CLAIM, "7, 8", "sources, eligibility", "one public set", "data"),
    Item(_CLAIM, "9-12", "preprocessing, subsets, missing", "nothing is chosen by hand", "data"),
    Item(_CLAIM, "13", "acquisition", "one vendor's scanner writes on most images", "data"),
    Item(_CLAIM, "14-18", "reference standard", "as given; disagreement is seen in copies", "data"),
    Item(_CLAIM, "19", "sample size", "what was public", "scores"),
    Item(
        _CLAIM, "20, 21", "partitions, level", "groups of copies; patients are unknown", "division"
    ),
    Item(_CLAIM, "22-24", "network, software, weights", "Keras; ImageNet weights", "models"),
    Item(_CLAIM, "25-27", "training, selection, ensemble", "on validation images", "models"),
    Item(_CLAIM, "28, 29", "metrics, uncertainty", "bootstrap over groups, Holm", "scores"),
    Item(_CLAIM, "30", "robustness", "copies, marks, hidden lesions", "shortcuts"),
    Item(_CLAIM, "31", "explanation", "Grad-CAM beside the masks", "lesion"),
    Item(_CLAIM, "32", "internal evaluation", "grouped cross-validation", "scores"),
    Item(_CLAIM, "33", "external evaluation", "none", "limits"),
    Item(_CLAIM, "35, 36", "flow, demographics", "counts; demographics are not known", "data"),
    Item(_CLAIM, "37, 38", "performance, precision", "each figure with its interval", "scores"),
    Item(_CLAIM, "39", "failures", "missed cancers are shown first", "lesion"),
    Item(_CLAIM, "40, 41", "limits, meaning", "no clinical claim", "limits"),
    Item(_CLAIM, "43", "availability", "code, settings, model file", "use"),
]
