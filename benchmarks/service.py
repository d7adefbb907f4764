"""The HTTP service against the bare forward pass, and against `mlflow models serve`.

    python benchmarks/service.py data/06_models/resnet50/package [--trained models:/m-...]

One image at a time, the same one, warm: the service and MLflow get the file, the bare side what the
networks take, in memory. The sides take turns. The time from the start of each server to its first
answer comes before. `--trained` names the Keras model that the training logged, which MLflow serves
as well; it gets what the network takes, as JSON that was written before.
"""

import argparse
import base64
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import mlflow
import numpy as np
from _common import describe_machine
from PIL import Image

from busi_pipeline.datasets.package import log_package
from busi_pipeline.imaging.network_input import InputDescription, show_windows
from busi_pipeline.models.localizer import locate_lesion
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.synthetic import simulate_scan

WAIT = 300


def find_port() -> int:
    """Return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start(
    command: list[str], is_ready: Callable[[], bool], name: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a server; print the seconds until it is ready."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            while not is_ready():
                if process.poll() is not None or time.perf_counter() - begun > WAIT:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            print(f"{name}: ready after {time.perf_counter() - begun:.1f} s", flush=True)
            yield process
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def start_mlflow(
    model: str, address: str, name: str
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Run MLflow's server of a model at an address; see `start`."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", model, "--port", address.rsplit(":", 1)[1]]
    return start(command, lambda: answers(f"{address}/ping"), name)


def answers(address: str) -> bool:
    """Return whether a server answers at an address."""
    try:
        return httpx.get(address, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def make_scan() -> tuple[np.ndarray, bytes]:
    """Return uint8 (450, 560), and the same as PNG."""
    pixels = simulate_scan("malignant", 450, 560, np.random.default_rng(0)).image
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return pixels, file.getvalue()


def show(model: PackagedModel, pixels: np.ndarray) -> np.ndarray:
    """Return what the classifier takes of uint8 (h, w, 3): uint8 (1, size, size, 3)."""
    networks, shape = model.networks, InputDescription(**model.description.get("input", {}))
    size = networks.localizer_size
    box = None if size is None else locate_lesion(networks.draw_maps, size, pixels)[0]
    return show_windows(pixels, box, shape, model.description["image_size"])[None]


def make_bare(model: PackagedModel, pixels: np.ndarray) -> Callable[[], None]:
    """Return what computes the networks alone."""
    networks, shown = model.networks, show(model, pixels)
    size = networks.localizer_size

    def compute() -> None:
        if size is not None:
            networks.draw_maps(np.zeros((1, size, size), np.uint8))
        networks.classify(shown)

    return compute


def main() -> None:
    """Print what an answer costs on each side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--trained", help="model URI or folder of the Keras model, for MLflow")
    arguments = parser.parse_args()
    model = load_package(arguments.package)
    print(f"{model.name} {model.version}; {arguments.count} answers; {describe_machine()}\n")
    pixels, content = make_scan()
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment("benchmark")
        with mlflow.start_run():
            logged = log_package(arguments.package, model.name, model.description)
        own, other, third = (f"http://127.0.0.1:{find_port()}" for _ in range(3))
        colour = np.repeat(pixels[..., None], 3, axis=2)
        row = {"columns": ["image"], "data": [[base64.b64encode(content).decode()]]}
        serve = ["serve", "--model", str(arguments.package), "--port", own.rsplit(":", 1)[1]]
        with ExitStack() as started:
            if arguments.trained:  # in the tracking store where it was logged
                name = "mlflow models serve, Keras"
                started.enter_context(start_mlflow(arguments.trained, third, name))
            os.environ["MLFLOW_TRACKING_URI"] = mlflow.get_tracking_uri()
            started.enter_context(
                start(
                    [sys.executable, "-m", "busi_pipeline", *serve],
                    lambda: answers(f"{own}/readyz"),
                    "service",
                )
            )
            started.enter_context(start_mlflow(logged.model_uri, other, "mlflow models serve"))
            client = started.enter_context(httpx.Client(timeout=WAIT))

            def ask_service() -> None:
                files = {"files": ("scan.png", content)}
                client.post(f"{own}/v1/predictions", files=files).raise_for_status()

            def ask_mlflow() -> None:
                asked = {"dataframe_split": row}
                client.post(f"{other}/invocations", json=asked).raise_for_status()

            tensor = json.dumps({"inputs": show(model, colour).tolist()}).encode()
            as_json = {"content-type": "application/json"}

            def ask_trained() -> None:
                sent = client.post(f"{third}/invocations", content=tensor, headers=as_json)
                sent.raise_for_status()

            sides = {
                "bare forward pass": make_bare(model, colour),
                "service": ask_service,
                "mlflow models serve": ask_mlflow,
            }
            if arguments.trained:
                sides["mlflow models serve, Keras"] = ask_trained
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(arguments.count + 2):
                for name, ask in sides.items():
                    begun = time.perf_counter()
                    ask()
                    if number >= 2:  # the first ones warm up
                        seconds[name].append(time.perf_counter() - begun)
    bare = statistics.median(seconds["bare forward pass"])
    for name, own_seconds in seconds.items():
        median, late = statistics.median(own_seconds), np.quantile(own_seconds, 0.95)
        print(f"{name}: p50 {1000 * median:.0f} ms, p95 {1000 * late:.0f} ms, {median / bare:.2f}")


if __name__ == "__main__":
    main()
