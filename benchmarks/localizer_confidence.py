"""What `localization.min_confidence` trades: lesions missed against lesions found where none is.

    python benchmarks/localizer_confidence.py data/04_feature/cross_validation_lesion_boxes.csv \
        data/02_intermediate/manifest.csv

Each image counts once, by decoders that did not learn from it. An image shows a lesion unless its
label is among `lesion_free_classes`. Images whose box is not out of fold are left out.
"""

import argparse

import pandas as pd
from _common import read_parameters

LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def main() -> None:
    """Print a table with a row a limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("boxes", help="lesion_boxes.csv of a cross-validation")
    parser.add_argument("manifest", help="manifest.csv, for the labels")
    given = parser.parse_args()
    classes = read_parameters()["classes"]
    boxes = pd.read_csv(given.boxes, dtype={"image_id": str})
    boxes = boxes[boxes["source"] == "out of fold"]
    labels = pd.read_csv(given.manifest, dtype=str, keep_default_na=False).set_index("image_id")
    label = boxes["image_id"].map(labels["label"])
    if label.isna().any():
        raise SystemExit(f"{given.manifest} does not have {label.isna().sum()} of the images.")
    shows, positive = classes.has_lesion(label), classes.is_positive(label)
    print(f"{shows.sum()} lesions, {positive.sum()} of them positive; {(~shows).sum()} without")
    print("| limit | lesions missed | positive ones missed | found where there is none |")
    print("| --- | --- | --- | --- |")
    for limit in LIMITS:
        found = (boxes["confidence"] >= limit).to_numpy()
        shares = ((~found)[shows], (~found)[positive], found[~shows])
        cells = [f"{100 * own.mean():.1f} % ({own.sum()})" for own in shares]
        print(f"| {limit} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
