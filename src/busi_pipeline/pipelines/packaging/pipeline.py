"""A delivered model becomes a package: networks in ONNX, limits, model card, in one folder.

<e>.model, images -> export_networks -> <e>.exported_networks (several precisions)
    -> compare_networks -> <e>.export_comparison (refused where the export differs)
    -> build_package -> <e>.package
"""

from kedro.pipeline import Node, Pipeline

from .nodes import build_package, compare_networks, export_networks

_STAGE = "packaging"


def create_pipeline(experiment: str, images: str, division: str) -> Pipeline:
    """model, images -> exported_networks, export_comparison, package.

    Args:
        experiment: its name.
        images: the dataset of what its network sees.
        division: the split or the folds that it learned from.
    """
    of_images = ["images", "division", "params:packaging"]
    return Pipeline(
        [
            Node(
                export_networks,
                inputs=["model", *of_images],
                outputs="exported_networks",
                name="export_networks",
                tags=_STAGE,
            ),
            Node(
                compare_networks,
                inputs=["model", "exported_networks", *of_images, "params:classes"],
                outputs="export_comparison",
                name="compare_networks",
                tags=_STAGE,
            ),
            Node(
                build_package,
                inputs={
                    name: name
                    for name in (
                        "model",
                        "exported_networks",
                        "export_comparison",
                        "images",
                        "division",
                        "raw_images",
                        "manifest",
                        "predictions",
                        "model_card",
                    )
                }
                | {
                    "settings": "params:settings",
                    "packaging": "params:packaging",
                    "localization": "params:localization",
                    "classes": "params:classes",
                },
                outputs="package",
                name="build_package",
                tags=_STAGE,
            ),
        ],
        namespace=experiment,
        inputs={
            "images": images,
            "division": division,
            "raw_images": "raw_images",
            "manifest": "manifest",
        },
        parameters={
            "params:settings": f"params:experiments.{experiment}",
            **{
                f"params:{name}": f"params:{name}"
                for name in ("packaging", "localization", "classes")
            },
        },
    )
