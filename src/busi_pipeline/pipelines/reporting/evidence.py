"""Which figures of an experiment count: the best evidence that there is."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from busi_pipeline.config.experiments import ENSEMBLE

CROSS_VALIDATION = "cross-validation"
OUT_OF_FOLD = "the folds of the delivered model"
TEST = "the test images of the hold-out split"
VALIDATION = "the validation images of the hold-out split"
# From the most to the least that it says.
KINDS = (CROSS_VALIDATION, OUT_OF_FOLD, TEST, VALIDATION)
PLOTS = ("confusion_matrix", "roc_pr_curves", "calibration", "decision_curve")
# Before the names of plots of the hold-out split, or of the delivered model's folds.
DELIVERED = "delivered_"


class Evidence(NamedTuple):
    """What an experiment's figures on the page rest on.

    Attributes:
        kind: one of KINDS.
        record: `test` holds the scores, `depends_on` what they depend on, `folds`, `repeats`.
        plots: {one of PLOTS: PNG, why there is none, or None where it was not made}.
        operating_point: of the flag, or None where it is not at hand.
        probe: scores of the linear probe on the same images, or None.
    """

    kind: str
    record: Mapping[str, Any]
    plots: Mapping[str, Any]
    operating_point: Mapping[str, Any] | None
    probe: Mapping[str, Any] | None

    @property
    def test(self) -> Mapping[str, Any]:
        """The scores."""
        return self.record["test"]

    @property
    def common_threshold(self) -> Mapping[str, Any] | None:
        """The operating point of all images; None where each fold has its own."""
        return self.operating_point if self.kind in (TEST, VALIDATION) else None

    def name_maker(self, experiment: str) -> str:
        """Return the pipeline that makes this evidence of an experiment or the ensemble."""
        if experiment == ENSEMBLE:
            return "cross_validation"
        return f"{'cross_validate' if self.kind == CROSS_VALIDATION else 'train'}_{experiment}"

    def is_of_other_data(self, data_sha256: str | None) -> bool:
        """Return whether it is known to be of other images than those with this SHA-256."""
        own = self.record.get("depends_on", {}).get("data_sha256")
        return None not in (own, data_sha256) and own != data_sha256

    @property
    def auc(self) -> float:
        """Of the positive classes; -1 where there is none, so that it is nobody's best."""
        auc = self.test["positive"]["auc"]
        return -1.0 if math.isnan(auc) else auc


def find_evidence(items: Mapping[str, Any]) -> Evidence | None:
    """Return the best evidence of an experiment: cross-validation, else test, else validation.

    Args:
        items: of the experiment, see `reporting.pipeline.OF_EXPERIMENT`.
    """
    record = items.get("cross_validation_metrics")
    if record:
        plots = {name: items.get(f"{name}_plot") for name in PLOTS}
        point = items.get("operating_point") or {}
        probe = (items.get("linear_probe_metrics") or {}).get("linear_probe")
        return Evidence(CROSS_VALIDATION, record, plots, point.get("operating_point"), probe)
    record = items.get("metrics")
    if not record:
        return None
    card = items.get("training_card") or {}
    plots = {name: items.get(f"{DELIVERED}{name}_plot") for name in PLOTS}
    kind = OUT_OF_FOLD if record.get("folds", 1) > 1 else TEST
    if "test" not in record:
        # The threshold was chosen on these images, and the plots are of test images.
        record, kind = {**record, "test": record["validation"]}, VALIDATION
        plots = dict.fromkeys(PLOTS)
    return Evidence(kind, record, plots, card.get("operating_point"), None)


def gather_evidence(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Evidence]:
    """Return the best evidence of each experiment that has some."""
    found = {name: find_evidence(items) for name, items in results.items()}
    return {name: evidence for name, evidence in found.items() if evidence is not None}


def select_leading(evidence: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Return the experiments with the best kind of evidence, which can be set side by side."""
    kinds = {own.kind for own in evidence.values()}
    leading = next((kind for kind in KINDS if kind in kinds), None)
    return {name: own for name, own in evidence.items() if own.kind == leading}
