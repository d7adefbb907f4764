"""Images wait in a line of limited length; who does not fit is told when to come again."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")
# Of the mean time of an image: how much the last one counts; and what is assumed at first.
_NEWEST, _AT_FIRST = 0.1, 1.0


class BusyError(Exception):
    """There is no room; attribute `seconds`: after which there should be."""

    def __init__(self, seconds: int):
        """Take the seconds."""
        super().__init__(f"too many images are waiting: try again in {seconds} s")
        self.seconds = seconds


class Work:
    """Computes images in threads, which share the models.

    Attributes:
        pending: images that wait or are computed.
    """

    def __init__(self, waiting: int, threads: int, seconds: float):
        """Start the threads.

        Args:
            waiting: images that may wait.
            threads: images that are computed at once.
            seconds: in which an image must be done, waiting included.
        """
        self._room, self._threads, self._seconds = waiting + threads, threads, seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self._mean = _AT_FIRST
        self.pending = 0

    def take(self, count: int) -> None:
        """Take room for so many images.

        A request is never split, so one that finds nobody waiting is always taken.

        Raises BusyError where there is none.
        """
        if self.pending and self.pending + count > self._room:
            raise BusyError(max(1, math.ceil(self.pending * self._mean / self._threads)))
        self.pending += count

    def leave(self, count: int) -> None:
        """Give the room back."""
        self.pending -= count

    async def compute(self, function: Callable[[], _Result]) -> _Result:
        """Return what the function returns, computed in a thread.

        Raises TimeoutError where that takes too long. One that has begun goes on to its end, since
        a thread cannot be stopped.
        """

        def measure() -> _Result:
            begun = time.monotonic()
            result = function()
            self._mean += _NEWEST * (time.monotonic() - begun - self._mean)
            return result

        future = asyncio.get_running_loop().run_in_executor(self._pool, measure)
        return await asyncio.wait_for(future, self._seconds)

    def close(self) -> None:
        """Finish what has begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
