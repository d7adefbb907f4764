"""MLflow's active run, for functions of MLflow that know no other."""

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow


@contextmanager
def use_run(run_id: str) -> Iterator[None]:
    """Make a run the active one of this thread, and leave the thread as it was."""
    run = mlflow.active_run()
    if run is not None and run.info.run_id == run_id:
        yield
        return
    # Ending a resumed run would mark it as finished: it is taken off the thread's stack instead.
    client = mlflow.MlflowClient()
    status = client.get_run(run_id).info.status
    with mlflow.start_run(run_id=run_id, nested=run is not None):
        yield
    client.update_run(run_id, status=status)
