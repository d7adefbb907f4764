"""Fetch BUSI through kagglehub: `python -m busi_pipeline.download` (needs the extra `download`).

Citation: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data in
Brief 28:104863 (2020).
"""

import argparse
import shutil
from pathlib import Path

from busi_pipeline.config.loader import find_project_root

KAGGLE_NAME = "aryashah2k/breast-ultrasound-images-dataset"
FOLDER = "Dataset_BUSI_with_GT"


def download_busi(target: Path) -> Path:
    """Copy the data set to `<target>/Dataset_BUSI_with_GT` and return that folder.

    Raises FileExistsError where it is there already, FileNotFoundError where what Kaggle sent does
    not hold it, ImportError with the remedy where kagglehub is not installed.
    """
    folder = target / FOLDER
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; nothing was downloaded.")
    try:
        import kagglehub
    except ImportError:
        raise ImportError("kagglehub is missing: pip install -e '.[download]'") from None
    received = Path(kagglehub.dataset_download(KAGGLE_NAME))
    found = next(received.rglob(FOLDER), None)
    if found is None:
        raise FileNotFoundError(f"no folder {FOLDER} in what Kaggle sent ({received}).")
    shutil.copytree(found, folder)
    return folder


def main() -> None:
    """Download to the project's data/01_raw, or to the folder given."""
    parser = argparse.ArgumentParser(description="Fetch BUSI through kagglehub.")
    parser.add_argument(
        "target", type=Path, nargs="?", default=find_project_root() / "data" / "01_raw"
    )
    try:
        print(download_busi(parser.parse_args().target))
    except (OSError, ImportError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
