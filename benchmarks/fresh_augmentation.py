"""What it costs to show augmented images that were computed once, instead of new ones every epoch.

    python benchmarks/fresh_augmentation.py vgg16 resnet50 inceptionv3

Augmentation on the fly transforms an image anew in every epoch. Here each experiment is trained
twice on one split: as its settings say, with some augmented images of each image shown in turn, and
with as many of them as fine-tuning has epochs, so that none is shown twice. Both networks see the
same validation images, once each. Time is not measured: other jobs may run beside it.
"""

import argparse
import tempfile
from pathlib import Path

from _common import describe_machine, find_raw_images, read_experiment, report_accuracy
from ordinary_way import select, train_this_way


def main() -> None:
    """Train both; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+")
    arguments = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = find_raw_images(Path(temporary))
        for name in arguments.experiments:
            experiment = read_experiment(name)
            per_image = experiment.augmentation.per_image
            epochs = experiment.training.fine_tuning.epochs
            print(
                f"{experiment.title}: {per_image} augmented images of an image, or one for each of "
                f"{epochs} epochs"
            )
            workspace = Path(temporary) / name
            ours, data = train_this_way(folder, experiment, workspace)
            anew = experiment.updated({"augmentation": {"per_image": epochs}})
            fresh, _ = train_this_way(folder, anew, workspace)
            labels = data.classes.positions(select(data, "validation")["label"])
            report_accuracy("new augmentation", fresh.probabilities, ours.probabilities, labels)


if __name__ == "__main__":
    main()
