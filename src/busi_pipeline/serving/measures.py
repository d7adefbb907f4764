"""What the service counts, for Prometheus. Nothing here says which patient."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from busi_pipeline.models.packaged import REASONS, Answer

_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)


class Measures:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Start at 0."""
        self.registry = CollectorRegistry()
        count = partial(Counter, namespace="busi", registry=self.registry)
        gauge = partial(Gauge, namespace="busi", registry=self.registry)
        self._requests = count("requests", "Requests answered.", ["route", "status"])
        self._seconds = Histogram(
            "request_seconds",
            "Seconds of a request.",
            ["route"],
            namespace="busi",
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._images = count("images", "Images, by what became of them.", ["outcome"])
        self._referred = count("referred", "Images referred to a reader.", ["reason"])
        for outcome in ("flagged", "not_flagged", "unusable"):
            self._images.labels(outcome)
        for reason in REASONS:
            self._referred.labels(reason)
        self._pending = gauge("images_pending", "Images that wait or are computed.")
        self._turned_away = count("turned_away", "Requests that found no room.")
        self._model = gauge("model", "1 for the model that answers.", ["name", "version"])
        self._shadow = count("shadow", "Images that the challenger saw, too.", ["outcome"])
        self._shown: tuple[str, str] | None = None

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_answer(self, answer: Answer | None) -> None:
        """Count an image; None for one that cannot be used."""
        if answer is None:
            self._images.labels("unusable").inc()
            return
        self._images.labels("flagged" if answer.flagged else "not_flagged").inc()
        for reason in answer.reasons:
            self._referred.labels(reason).inc()

    def count_turned_away(self) -> None:
        """Count a request that found no room."""
        self._turned_away.inc()

    def count_shadow(self, outcome: str) -> None:
        """Count an image for the challenger: `same` or `other` flag, `left_out` or `failed`."""
        self._shadow.labels(outcome).inc()

    def write(self, pending: int, name: str, version: str) -> bytes:
        """Return all of it as Prometheus reads it."""
        self._pending.set(pending)
        if self._shown not in (None, (name, version)):
            self._model.clear()
        self._shown = (name, version)
        self._model.labels(name, version).set(1)
        return generate_latest(self.registry)
