"""What came in and what was said, against what the model was tested on.

prediction.findings_parquet, model, journal -> observe -> monitoring.observations
    -> measure_evidence -> monitoring.evidence -> summarise_drift -> monitoring.drift
observations, labels -> judge_sensitivity -> monitoring.verdict
drift, verdict -> describe -> monitoring.summary;  evidence -> plot_evidence
"""

from kedro.pipeline import Node, Pipeline

from .nodes import describe, judge_sensitivity, measure_evidence, observe, summarise_drift
from .plots import plot_evidence

_STAGE = "monitoring"
_SETTINGS = "params:monitoring"


def create_pipeline() -> Pipeline:
    """findings, model, labels -> drift, verdict, evidence_plot, summary."""
    return Pipeline(
        [
            Node(
                observe,
                inputs=["findings", "model", "journal", "params:prediction", _SETTINGS],
                outputs="observations",
                name="observe",
                tags=_STAGE,
            ),
            Node(
                measure_evidence,
                inputs=["observations", "model", _SETTINGS],
                outputs="evidence",
                name="measure_evidence",
                tags=_STAGE,
            ),
            Node(
                summarise_drift,
                inputs=["evidence", "observations", "model", _SETTINGS],
                outputs="drift",
                name="summarise_drift",
                tags=_STAGE,
            ),
            Node(
                judge_sensitivity,
                inputs=["observations", "labels", "drift", "model", _SETTINGS],
                outputs="verdict",
                name="judge_sensitivity",
                tags=_STAGE,
            ),
            Node(
                plot_evidence,
                inputs=["evidence", _SETTINGS],
                outputs="evidence_plot",
                name="plot_evidence",
                tags=_STAGE,
            ),
            Node(
                describe,
                inputs=["drift", "verdict", "model", _SETTINGS],
                outputs="summary",
                name="describe",
                tags=_STAGE,
            ),
        ],
        namespace="monitoring",
        inputs={"findings": "prediction.findings_parquet", "model": "prediction.model"},
        parameters={name: name for name in (_SETTINGS, "params:prediction")},
    )
