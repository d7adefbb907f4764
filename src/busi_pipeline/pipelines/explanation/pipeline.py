"""Does it look at the lesion? Heat of the test images, beside the masks."""

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from busi_pipeline.pipelines.augmentation.pipeline import create_size_pipeline

from .nodes import draw_heat_gallery, prepare_masks, score_heat, trace_predictions


def create_pipeline(image_sizes: Iterable[int]) -> Pipeline:
    """raw_images, manifest -> prepare_masks_<size> -> masks_<size>, once for each size."""
    return create_size_pipeline(prepare_masks, "masks", image_sizes, "explanation")


def create_experiment_pipeline(experiment: str, image_size: int) -> Pipeline:
    """network, images, predictions -> heat -> heat_gallery; with masks -> explanation."""
    images, masks = f"images_{image_size}", f"masks_{image_size}"
    return Pipeline(
        [
            Node(
                trace_predictions,
                inputs=["network", images, "predictions", "settings", "params:classes"],
                outputs="heat",
                name="trace_predictions",
                tags="explanation",
            ),
            Node(
                score_heat,
                inputs=["heat", masks, "predictions", "settings", "params:judging"],
                outputs=["explanation_table", "explanation"],
                name="score_heat",
                tags="explanation",
            ),
            Node(
                draw_heat_gallery,
                inputs=["heat", images, masks, "predictions", "settings"],
                outputs="heat_gallery",
                name="draw_heat_gallery",
                tags="explanation",
            ),
        ],
        namespace=experiment,
        inputs={images, masks},
        parameters={"params:classes", "params:judging"},
    )
