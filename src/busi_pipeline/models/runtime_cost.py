"""What one image costs a network on one core: time and memory, measured in a process of its own."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

_RUNS = 5
_STATUS = Path("/proc/self/status")


class Cost(NamedTuple):
    """Attributes: `milliseconds` an image, the median of five; `peak_mb`, of the whole process."""

    milliseconds: float
    peak_mb: float


def measure_cost(content: bytes) -> Cost:
    """Return what an image costs the network of an ONNX file.

    Args:
        content: of the file; its input is uint8, the images of a batch first.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "measured.onnx"
        path.write_bytes(content)
        command = [sys.executable, "-m", __name__, str(path)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - itself
    return Cost(*json.loads(finished.stdout.splitlines()[-1]))


def _measure(path: str) -> Cost:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    image = np.random.default_rng(0).integers(0, 256, (1, *taken.shape[1:]), dtype=np.uint8)
    seconds = []
    for _ in range(_RUNS + 1):
        begun = time.perf_counter()
        session.run(None, {taken.name: image})
        seconds.append(time.perf_counter() - begun)
    return Cost(1000 * float(np.median(seconds[1:])), _read_peak())


def _read_peak() -> float:
    """Return the most memory this process had, in MB."""
    if _STATUS.is_file():  # Linux, where getrusage counts the parent's memory, too
        line = next(row for row in _STATUS.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
