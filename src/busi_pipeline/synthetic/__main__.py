"""`python -m busi_pipeline.synthetic <folder>` writes the images of the demo."""

import argparse
from pathlib import Path

from .demo import write_demo


def main() -> None:
    """Write the demo's images; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m busi_pipeline.synthetic",
        description="Write synthetic ultrasound of two sites: in BUSI's layout into the folder, "
        "and with a table into the folder beside it whose name ends in _second_site.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    for folder, count in write_demo(arguments.folder, arguments.seed).items():
        print(f"{count} synthetic images (not patients) in {folder}")


if __name__ == "__main__":
    main()
