"""`python -m busi_pipeline ...` is `kedro run ...` on the installed package.

`python -m busi_pipeline predict ...` is `command_line.predict`, `... serve ...` is
`serving.command_line.serve`, and `... dicom-node ...` is `pacs.command_line.dicom_node`: they start
without Kedro.
"""

import os
import sys
from pathlib import Path
from typing import Any


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project's `kedro run` command with the given click arguments."""
    check_logging()
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    package_name = Path(__file__).parent.name
    configure_project(package_name)
    kwargs.setdefault("standalone_mode", not hasattr(sys, "ps1"))
    return find_run_command(package_name)(*args, **kwargs)


def check_logging() -> None:
    """End the process with one line where conf/logging.yml cannot be read.

    Kedro reads it when it is imported, and would end with a traceback that does not name the file.
    """
    from busi_pipeline.config.places import find_fault

    named = os.environ.get("KEDRO_LOGGING_CONFIG")
    for path in [Path(named)] if named else [Path("conf/logging.yml"), Path("conf/logging.yaml")]:
        fault = find_fault(path.read_bytes()) if path.is_file() else None
        if fault:
            sys.exit(f"Error: {path}{fault}")


def _start() -> None:
    if sys.argv[1:2] == ["predict"]:
        from busi_pipeline.command_line import predict

        predict(sys.argv[2:], prog_name="python -m busi_pipeline predict")
    if sys.argv[1:2] == ["serve"]:
        from busi_pipeline.serving.command_line import serve

        serve(sys.argv[2:], prog_name="python -m busi_pipeline serve")
    if sys.argv[1:2] == ["dicom-node"]:
        from busi_pipeline.pacs.command_line import dicom_node

        dicom_node(sys.argv[2:], prog_name="python -m busi_pipeline dicom-node")
    main()


if __name__ == "__main__":
    _start()
