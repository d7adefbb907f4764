"""What it costs to show views again that were computed once, in place of new ones every epoch.

    python benchmarks/fresh_views.py vgg16 resnet50 inceptionv3

Augmentation on the fly shows an image moved anew every epoch. Here each experiment is trained twice
on one split: as its row says, with some views of each image shown in turn, and with as many views
as fine-tuning has epochs, none of which is shown twice. Both networks see the same validation
images, once each. The time is no measure: other jobs may run beside it.
"""

import argparse
import tempfile
from pathlib import Path

from _common import describe_machine, find_raw_images, read_experiment, report_accuracy
from ordinary_way import CLASSES, select, train_this_way


def main() -> None:
    """Train both; `--help` tells the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+")
    arguments = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = find_raw_images(Path(temporary))
        for name in arguments.experiments:
            experiment = read_experiment(name)
            views, epochs = experiment.augmentation.views, experiment.training.fine_tuning.epochs
            print(
                f"{experiment.title}: {views} views of an image, or one for each of {epochs} epochs"
            )
            workspace = Path(temporary) / name
            ours, data = train_this_way(folder, experiment, workspace)
            anew = experiment.augmentation.model_copy(update={"views": epochs})
            fresh, _ = train_this_way(
                folder, experiment.model_copy(update={"augmentation": anew}), workspace
            )
            labels = select(data, "validation")["label"].map(CLASSES.index).to_numpy()
            report_accuracy("new views", fresh.probabilities, ours.probabilities, labels)


if __name__ == "__main__":
    main()
