"""A packed model in an environment that has only what the model asks for."""

import base64
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from busi_pipeline.datasets.package import log_package
from busi_pipeline.models.packaged import load_package
from tests.factories import encode_image
from tests.package_factories import draw_scan, write_tiny_package

VARIABLE = "BUSI_FRESH_ENVIRONMENT"
ASK = """
import importlib.util, json, sys
import mlflow
import pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
image, box = sys.stdin.read().split()
answers = model.predict(pd.DataFrame({"image": [image, image], "box": ["", box]}))
there = [n for n in ("tensorflow", "keras", "kedro") if importlib.util.find_spec(n)]
print(json.dumps({"scores": answers["positive_score"].tolist(), "there": there}))
"""


@pytest.mark.skipif(
    os.environ.get(VARIABLE) != "1",
    reason=f"{VARIABLE}=1 installs what a packed model asks for, in some minutes",
)
def test_a_packed_model_needs_only_its_requirements(
    tracked: mlflow.ActiveRun, tmp_path: Path
) -> None:
    package = write_tiny_package(tmp_path / "package", locates=True)
    model = load_package(package)
    logged = log_package(package, "tiny", model.description)
    folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(tmp_path)))
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-r", folder / "requirements.txt"]
    subprocess.run(install, check=True, cwd=tmp_path)
    content = encode_image(Image.fromarray(draw_scan(2)))
    done = subprocess.run(
        [python, "-I", "-c", ASK, str(folder)],
        check=False,
        input=f"{base64.b64encode(content).decode()} 5,5,40,30",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    expected = [model.predict_bytes(content, box).positive_score for box in (None, (5, 5, 40, 30))]
    assert said["scores"] == pytest.approx(expected, abs=1e-6)
    assert said["there"] == []
