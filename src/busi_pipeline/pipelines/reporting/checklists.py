"""The items of reporting guidelines that apply, and where the report answers them.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378. CLAIM: Mongan, Moy and Kahn 2020, Radiology:
Artificial Intelligence 2(2):e200029, updated by Tejani et al. 2024. STARD: Bossuyt et al. 2015, BMJ
351:h5527, whose items STARD-AI (Sounderajah et al. 2021, BMJ Open 11:e047709) extends. FUTURE-AI:
Lekadir et al. 2025, BMJ 388:e081554; by principle. Topics are in this project's
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
_STARD = "STARD, STARD-AI"
_FUTURE = "FUTURE-AI"

ITEMS = [
    Item(
        _TRIPOD,
        "1, 2",
        "title and summary",
        "development, internal and external validation",
        "summary",
    ),
    Item(_TRIPOD, "3a, 3b", "context, users", "second look at breast ultrasound", "use"),
    Item(
        _TRIPOD,
        "3c, 14",
        "inequalities, fairness",
        "subgroups by age, density and device where a site records them; ethnicity is not read",
        "external",
    ),
    Item(_TRIPOD, "4", "objectives", "the class of an image, and a flag for review", "summary"),
    Item(_TRIPOD, "5, 6", "data, setting, eligibility", "all usable images of one set", "data"),
    Item(_TRIPOD, "7", "preparation", "size and normalisation, the same in use", "models"),
    Item(_TRIPOD, "8", "outcome", "the label that comes with the image", "data"),
    Item(_TRIPOD, "9", "predictors", "the pixels of one image", "models"),
    Item(_TRIPOD, "10", "sample size", "planned for the external test, by sensitivity", "external"),
    Item(_TRIPOD, "11", "missing data", "files that cannot be read are counted", "data"),
    Item(_TRIPOD, "12", "analysis", "folds, choices, metrics, comparison", "division"),
    Item(_TRIPOD, "13", "class imbalance", "class weights; calibrated afterwards", "models"),
    Item(_TRIPOD, "15", "output, threshold", "probabilities, flag, referral", "threshold"),
    Item(
        _TRIPOD,
        "16",
        "training and evaluation differ?",
        "inside one source, outside two",
        "external",
    ),
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
    Item(_TRIPOD, "23b", "heterogeneity", "sites and subgroups, annotations", "external"),
    Item(_TRIPOD, "24", "updating", "calibration and threshold, by images of a site", "external"),
    Item(_TRIPOD, "25, 26", "interpretation, limits", "what the figures do not say", "limits"),
    Item(_TRIPOD, "27", "use in care", "what input it takes, who looks", "use"),
    Item(_CLAIM, "1-4", "title, summary, aims", "deep learning on single images", "summary"),
    Item(_CLAIM, "5, 6", "design, goal", "retrospective; development", "data"),
    Item(_CLAIM, "7, 8", "sources, eligibility", "all usable images of one set", "data"),
    Item(_CLAIM, "9-12", "preprocessing, subsets, missing", "nothing is chosen by hand", "data"),
    Item(_CLAIM, "13", "acquisition", "what is configured for the data set", "data"),
    Item(_CLAIM, "14-18", "reference standard", "the label; contradictions are counted", "data"),
    Item(_CLAIM, "19", "sample size", "planned for the external test, by sensitivity", "external"),
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
    Item(_CLAIM, "33", "external evaluation", "unchanged, on sites not seen", "external"),
    Item(_CLAIM, "35, 36", "flow, demographics", "counts by class", "data"),
    Item(_CLAIM, "37, 38", "performance, precision", "each figure with its interval", "scores"),
    Item(_CLAIM, "39", "failures", "misclassified positive images are shown first", "lesion"),
    Item(_CLAIM, "40, 41", "limits, meaning", "no clinical claim", "limits"),
    Item(_CLAIM, "43", "availability", "code, settings, model file", "use"),
    Item(
        _STARD, "4, 5", "objectives, design", "the flag at its threshold; retrospective", "external"
    ),
    Item(_STARD, "6-9", "participants, series", "all usable images of the site", "external"),
    Item(
        _STARD, "10a, 12a", "index test, cut-off", "the flag; chosen before, elsewhere", "threshold"
    ),
    Item(_STARD, "10b, 11", "reference standard", "the label of the site", "data"),
    Item(_STARD, "13", "blinding", "the model sees pixels alone", "models"),
    Item(_STARD, "14-16", "analysis, missing data", "bootstrap over patients; counts", "external"),
    Item(_STARD, "17", "variability", "device, BI-RADS, lesion size, age", "external"),
    Item(_STARD, "18", "sample size", "five points at a sensitivity of 95 %", "external"),
    Item(_STARD, "23, 24", "cross table, estimates", "missed, false alarms, intervals", "external"),
    Item(_STARD, "26, 27", "limits, implications", "what the figures do not say", "limits"),
    Item(_STARD, "29", "protocol", "dated page of the documentation", "external"),
    Item(_FUTURE, "fairness", "sources of bias, attributes", "subgroups; annotations", "external"),
    Item(
        _FUTURE,
        "universality",
        "external and local validity",
        "sites not seen; adaptation",
        "external",
    ),
    Item(_FUTURE, "traceability", "documentation, logging", "hashes, MLflow, change plan", "use"),
    Item(_FUTURE, "usability", "purpose, users", "a flag beside a reader", "use"),
    Item(_FUTURE, "robustness", "variation of the input", "scanners; occluded lesions", "bias"),
    Item(_FUTURE, "explainability", "need and test of it", "Grad-CAM beside masks", "lesion"),
]
