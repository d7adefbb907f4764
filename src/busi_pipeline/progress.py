"""Progress a person can follow, on a terminal and in a log file."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds between two lines of a log file.
_EVERY = 30.0


def track(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show how many are done and the time left.

    A terminal has a bar on one line, which goes when it is done. A log file has a line every half a
    minute. Both have a line at the end.
    """
    start = told = time.monotonic()
    count = 0
    with tqdm(items, desc=what, unit=unit, total=total, disable=None, leave=False) as bar:
        for item in bar:
            yield item
            count += 1
            now = time.monotonic()
            if bar.disable and now - told >= _EVERY:
                told = now
                logger.info("%s: %s", what, _tell(count, bar.total, now - start))
    if count:
        logger.info("%s: %d in %.1f s", what, count, time.monotonic() - start)


def _tell(count: int, total: float | None, elapsed: float) -> str:
    if not total:
        return str(count)
    left = tqdm.format_interval(elapsed / count * (total - count))
    return f"{count} of {int(total)}, {left} left"
