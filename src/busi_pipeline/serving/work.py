"""Room for images that wait or are computed; who finds none gets a time to come again."""

import asyncio
import math
import threading
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
    """Computes images in threads, which share the models."""

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
        self._lock = threading.Lock()
        self._pending = 0

    @property
    def pending(self) -> int:
        """Images that wait or are computed."""
        return self._pending

    def take(self, count: int) -> list["Place"]:
        """Take room for so many images, one place each.

        A request is never split, so one that finds nobody waiting is always taken.

        Raises BusyError where there is none.
        """
        with self._lock:
            if self._pending and self._pending + count > self._room:
                raise BusyError(max(1, math.ceil(self._pending * self._mean / self._threads)))
            self._pending += count
        return [Place(self._give_back) for _ in range(count)]

    def _give_back(self) -> None:
        with self._lock:
            self._pending -= 1

    async def compute(self, function: Callable[[], _Result], place: "Place") -> _Result:
        """Return what the function returns, computed in a thread.

        Raises TimeoutError where that takes too long. One that has begun goes on to its end, since
        a thread cannot be stopped, and keeps its place until then.
        """

        # In a list, so that what was given up holds no image while it waits for its turn.
        held = [function]

        def measure() -> _Result:
            begun = time.monotonic()
            result = held[0]()
            self._mean += _NEWEST * (time.monotonic() - begun - self._mean)
            return result

        def finish(_: object) -> None:
            held.clear()
            place.leave()

        place.is_used = True
        future = self._pool.submit(measure)
        future.add_done_callback(finish)
        return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)

    def close(self) -> None:
        """Finish what has begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Place:
    """Room for one image; attribute `is_used`: whether its image was handed to a thread."""

    def __init__(self, give_back: Callable[[], None]):
        """Take what gives it back."""
        self._give_back: Callable[[], None] | None = give_back
        self.is_used = False

    def leave(self) -> None:
        """Give the room back, once."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
