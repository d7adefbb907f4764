"""The nearest of many vectors: of all of them, or by an index that may miss some."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from busi_pipeline.errors import BadInputError

# Links of each vector, and how many are kept in view while it is linked, and while one is looked
# for: see docs/explanation/duplicates.md for what each costs and misses.
_LINKS, _IN_VIEW_BUILDING, _IN_VIEW_SEARCHING = 32, 80, 256
_LEARNED_FROM = 2000
_AT_ONCE = 10_000


class Neighbours:
    """Finds the nearest of some vectors.

    The approximate index is a navigable small world graph (HNSW; Malkov and Yashunin 2018) of
    vectors in 8 bits a number. It is built on one thread, so it is the same each time.

    Args:
        vectors: float32 (n, dimensions) of length 1; a memory map is read block by block.
        approximate: whether some may be missed, so that time grows little faster than n.

    Raises BadInputError, one line, where the library of the index is missing.
    """

    def __init__(self, vectors: np.ndarray, approximate: bool):
        self._count = len(vectors)
        if not approximate:
            self._exact = NearestNeighbors().fit(vectors)
            return
        if find_spec("faiss") is None:
            raise BadInputError(
                f"{len(vectors)} images are more than deduplication.exact_up_to, so likely "
                "duplicates are looked for in an index, which needs faiss: `pip install "
                "'busi_pipeline[scale]'`, or raise the parameter."
            )
        import faiss

        self._exact = None
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            bits: Any = faiss.ScalarQuantizer.QT_8bit
            self._index = faiss.IndexHNSWSQ(vectors.shape[1], bits, _LINKS)
            self._index.hnsw.efConstruction = _IN_VIEW_BUILDING
            some = np.random.default_rng(0).permutation(len(vectors))[:_LEARNED_FROM]
            self._index.train(np.asarray(vectors[np.sort(some)]))
            for start in range(0, len(vectors), _AT_ONCE):
                self._index.add(np.asarray(vectors[start : start + _AT_ONCE]))
        finally:
            faiss.omp_set_num_threads(threads)

    def find(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return int (n, at most `count`): positions of the nearest vectors, the nearest first.

        Args:
            queries: float32 (n, dimensions) of length 1.
            count: how many of each. The approximate index gives -1 where it knows no more.
        """
        count = min(count, self._count)
        if self._exact is not None:
            return self._exact.kneighbors(queries, count, return_distance=False)
        self._index.hnsw.efSearch = max(_IN_VIEW_SEARCHING, 2 * count)
        found = [
            self._index.search(np.asarray(queries[start : start + _AT_ONCE]), count)[1]
            for start in range(0, len(queries), _AT_ONCE)
        ]
        return np.concatenate(found)
