"""How many workers a pipeline can use: measured one after the other, scheduled on more.

    python benchmarks/workers.py --pipeline cross_validation --times times.json
    python benchmarks/workers.py --pipeline cross_validation --times times.json --workers 2 4 8

The first command runs the pipeline in the project's folder and keeps the seconds of each step in
the file; the second one reads them. Steps are then given to so many workers as the Dask runner does
it: a step when those before it are done, what has most steps after it first. The times are those of
one step at a time; what workers on one machine take from each other is not in them.
"""

import argparse
import heapq
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _common import describe_machine
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines, settings
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from busi_pipeline.runners.dask_runner import measure_depths


class StepTimes:
    """Hooks that take the time of each step, its loading and saving included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = 0.0

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Begin with the first step."""
        self._begun = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Book what passed since the step before."""
        self._book(node)

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Add the saving to its step."""
        self._book(node)

    def _book(self, node: Node) -> None:
        now = time.perf_counter()
        self.seconds[node.name] = self.seconds.get(node.name, 0.0) + now - self._begun
        self._begun = now


def measure(pipeline: str, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Run a pipeline in this folder and return the seconds of each step."""
    times = StepTimes()
    with settings.SESSION_CLASS.create(
        project_path=Path.cwd(), runtime_params=dict(parameters)
    ) as session:
        session._hook_manager.register(times)
        session.run(pipeline_names=[pipeline])
    return times.seconds


def schedule(pipeline: Pipeline, seconds: Mapping[str, float], workers: int) -> float:
    """Return the seconds that the steps take on so many workers."""
    before = {node: set(own) for node, own in pipeline.node_dependencies.items()}
    depths = measure_depths(pipeline)
    ready: list[tuple[int, str, Node]] = []
    running: list[tuple[float, str, Node]] = []
    now = 0.0
    while before or ready or running:
        for node in [node for node, own in before.items() if not own]:
            del before[node]
            heapq.heappush(ready, (-depths[node], node.name, node))
        while ready and len(running) < workers:
            _, name, node = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], name, node))
        now, _, done = heapq.heappop(running)
        for own in before.values():
            own.discard(done)
    return now


def main() -> None:
    """Measure and schedule; `--help` lists the arguments."""
    parser = argparse.ArgumentParser(description="The time of a pipeline on more workers.")
    parser.add_argument("--pipeline", default="cross_validation")
    parser.add_argument("--times", type=Path, required=True, help="file of the steps' seconds")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    arguments = parser.parse_args()
    bootstrap_project(Path.cwd())
    if not arguments.times.is_file():
        arguments.times.write_text(json.dumps(measure(arguments.pipeline, {}), indent=2))
    print(describe_machine())
    pipeline, seconds = pipelines[arguments.pipeline], json.loads(arguments.times.read_text())
    alone = sum(seconds[node.name] for node in pipeline.nodes)
    print(f"{len(pipeline.nodes)} steps, {alone:.0f} s one after the other")
    print("workers    seconds   times as fast   of the workers' time used")
    for workers in arguments.workers:
        taken = schedule(pipeline, seconds, workers)
        share = alone / taken / workers
        print(f"{workers:7d} {taken:10.0f} {alone / taken:15.1f} {share:27.0%}")


if __name__ == "__main__":
    main()
