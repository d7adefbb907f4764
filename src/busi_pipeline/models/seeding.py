"""A seed that holds for one thread.

Keras draws the seeds of layers that are given none from Python's own generator, which all threads
of a process share: of two networks that are built at once, or beside a library that draws there as
well, neither comes out the same twice. Keras has no setting for this.
"""

import random
import threading
from typing import Any

_own = threading.local()


class _OfThread:
    """The generator of the thread, for Keras in place of the module `random`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(_own, "generator", random), name)

    def seed(self, value: int) -> None:
        """Seed Python's generator, as Keras does, and that of the thread where it has one."""
        random.seed(value)
        if hasattr(_own, "generator"):
            _own.generator.seed(value)


def seed_thread(seed: int) -> None:
    """Let what this thread builds with Keras from now on depend on the seed alone.

    It comes out as after `keras.utils.set_random_seed`, which is called, too, where no other thread
    draws. That function works as before, and from now on for the thread that calls it.
    """
    from keras.src.random import seed_generator
    from keras.src.utils import rng_utils

    _own.generator = random.Random()  # noqa: S311 - no secret
    seed_generator.python_random = rng_utils.random = _OfThread()
    rng_utils.set_random_seed(seed)
