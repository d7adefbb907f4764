"""Progress a person can follow on a terminal, and quiet where nobody watches."""

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
T = TypeVar("T")


def track(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a one-line progress bar with the time left.

    The bar shows on a terminal only and goes when it is done; a log file gets one line at the end.
    """
    with tqdm(items, desc=what, unit=unit, total=total, disable=None, leave=False) as bar:
        yield from bar
        elapsed, count = bar.format_dict["elapsed"], bar.n
    if count:
        logger.info("%s: %d in %.1f s", what, count, elapsed)
