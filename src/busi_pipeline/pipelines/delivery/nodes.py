"""Send what waits for an MLflow server."""

import logging

import pandas as pd

from busi_pipeline.datasets.mlflow_outbox import AddressedOutbox

logger = logging.getLogger(__name__)

_COLUMNS = ["name", "run_id", "address"]


def deliver_waiting(outbox: AddressedOutbox) -> pd.DataFrame:
    """Send the runs that wait for the server of MLFLOW_TRACKING_URI.

    Returns a row a run that the server has now: `name`, `run_id` there, `address` of its page.
    Raises BadInputError, one line, where no server is named or where it fails; what it has not got
    stays.
    """
    sent = pd.DataFrame(outbox.deliver(), columns=_COLUMNS)
    logger.info("%d runs delivered to %s", len(sent), outbox.server)
    return sent
