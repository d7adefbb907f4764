"""From a package to the model in use.

<e>.package, <e>.external.metrics, registry -> check_gate -> <e>.promotion_gate
    -> give_role -> <e>.promotion_record, and a line in the ledger
registry -> roll_back -> promotion.rollback_record
registry -> list_champions, check_registry -> promotion.champions, promotion.problems
"""

from kedro.pipeline import Node, Pipeline

from .nodes import check_gate, check_registry, give_role, list_champions, report, roll_back

_STAGE = "promotion"
_SETTINGS = "params:promotion"


def create_pipeline(experiment: str) -> Pipeline:
    """package, export_comparison, external metrics -> promotion_gate, promotion_record."""
    shared = ("promotion", "packaging", "evaluation", "classes")
    return Pipeline(
        [
            Node(
                check_gate,
                inputs={
                    "package": "package",
                    "export_comparison": "export_comparison",
                    "external_metrics": "external.metrics",
                    "registry": "registry",
                    **{name: f"params:{name}" for name in shared},
                },
                outputs="promotion_gate",
                name="check_gate",
                tags=_STAGE,
            ),
            Node(
                give_role,
                inputs=["package", "promotion_gate", "registry", _SETTINGS],
                outputs="promotion_record",
                name="give_role",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={"registry": "promotion.registry"},
        parameters={f"params:{name}": f"params:{name}" for name in shared},
    )


def create_rollback_pipeline() -> Pipeline:
    """registry -> rollback_record: the previous model is the champion again."""
    return Pipeline(
        [
            Node(
                roll_back,
                inputs=["registry", _SETTINGS],
                outputs="rollback_record",
                name="roll_back",
                tags=_STAGE,
            )
        ],
        namespace="promotion",
        parameters={_SETTINGS: _SETTINGS},
    )


def create_ledger_pipeline() -> Pipeline:
    """registry -> champions (a row a time in use), problems."""
    return Pipeline(
        [
            Node(
                list_champions,
                inputs=["registry", _SETTINGS],
                outputs="champions",
                name="list_champions",
                tags=_STAGE,
            ),
            Node(
                check_registry,
                inputs="registry",
                outputs="problems",
                name="check_registry",
                tags=_STAGE,
            ),
            Node(report, inputs="problems", outputs=None, name="report", tags=_STAGE),
        ],
        namespace="promotion",
        parameters={_SETTINGS: _SETTINGS},
    )
