"""Who reads, and which images: kept until the reader leaves or stays away, and never in a file."""

import asyncio
import secrets
import threading
import time
from dataclasses import dataclass, field

from busi_pipeline.models.packaged import Answer, PackagedModel
from busi_pipeline.serving.problems import RequestError
from busi_pipeline.serving.uploads import Upload

# Sessions at once, and answers that a case keeps: one a box.
_MOST_SESSIONS, _MOST_ANSWERS = 500, 16
# Of the room for all images, what one reader may fill.
_SHARE_OF_ONE = 0.25

Box = tuple[str, ...]


@dataclass
class Case:
    """An image that a reader reads.

    Attributes:
        key: of the case, in addresses.
        name: of the file, for the reader alone.
        item: of the worklist; "" for none.
        content: of the file.
        byte_sha256, pixel_sha256: of the content, and of what it shows.
        picture: PNG, as it is.
        width, height: in pixels.
        frame, frames: which of a DICOM file's is shown, and how many there are; 1 of 1 otherwise.
        is_blinded: whether the reader had not seen an answer on this image before.
        opened: when the reader saw it first, by time.monotonic; None where nobody has.
        first, final: categories of the reader, before and after the answer; "" for none yet.
        box: the reader's before the answer, four texts, or None.
        model: that answers; from the first answer on the same one.
        answers: {box: answer}; the key () is the model's own box.
        turn: whoever computes or records something of it waits for this.
    """

    key: str
    name: str
    item: str
    content: bytes
    byte_sha256: str
    pixel_sha256: str
    picture: bytes
    width: int
    height: int
    frame: int = 1
    frames: int = 1
    is_blinded: bool = True
    opened: float | None = None
    first: str = ""
    final: str = ""
    box: Box | None = None
    model: PackagedModel | None = None
    answers: dict[Box, Answer] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.content) + len(self.picture)

    @property
    def is_open(self) -> bool:
        """Whether it was read and waits for a decision."""
        return bool(self.first) and not self.final

    def as_upload(self, box: Box = ()) -> Upload:
        """Return the file with a reader's box; () for none."""
        return Upload(self.name, self.content, box or None)

    def keep(self, box: Box, answer: Answer) -> None:
        """Keep an answer, and of those on readers' boxes the latest."""
        self.answers[box] = answer
        others = [own for own in self.answers if own]
        if len(others) > _MOST_ANSWERS:
            del self.answers[others[0]]


@dataclass
class Session:
    """A reader at a browser.

    Attributes:
        reader: name, as it was typed.
        prevalence: share of positive images where the reader works.
        seen: when the last request came, by time.monotonic.
        cases: {key: case}.
        problems: lines to show once.
        turn: whoever opens an image waits for this.
    """

    reader: str
    prevalence: float
    seen: float
    cases: dict[str, Case] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        """Bytes of all its images."""
        return sum(case.size for case in self.cases.values())


class Sessions:
    """All readers at once."""

    def __init__(self, seconds: float, most_bytes: int):
        """Take how long a reader may stay away, and how much all images may have together."""
        self._seconds, self._most_bytes = seconds, most_bytes
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, reader: str, prevalence: float) -> str:
        """Return the key of a new session; raises RequestError where there are too many."""
        with self._lock:
            self._forget()
            if len(self._sessions) >= _MOST_SESSIONS:
                raise RequestError(
                    503, "too many readers are here: try again in a minute", {"retry-after": "60"}
                )
            key = secrets.token_urlsafe(32)
            self._sessions[key] = Session(reader, prevalence, time.monotonic())
        return key

    def find(self, key: str) -> Session | None:
        """Return a session, or None where there is none, or no longer."""
        with self._lock:
            self._forget()
            session = self._sessions.get(key)
            if session is not None:
                session.seen = time.monotonic()
        return session

    def end(self, key: str) -> None:
        """Forget a session with its images."""
        with self._lock:
            self._sessions.pop(key, None)

    def add(self, session: Session, case: Case) -> None:
        """Give a session one more case.

        Images that were decided leave first, the oldest before others. Raises RequestError where
        there is no room even so.
        """
        with self._lock:
            free = min(
                self._most_bytes - sum(own.size for own in self._sessions.values()),
                int(_SHARE_OF_ONE * self._most_bytes) - session.size,
            )
            for old in [own for own in session.cases.values() if own.final]:
                if case.size <= free:
                    break
                free += old.size
                del session.cases[old.key]
            if case.size > free:
                raise RequestError(
                    503,
                    "there is no room for one more image: decide on those that are open, or close "
                    "them",
                    {"retry-after": "60"},
                )
            session.cases[case.key] = case

    def _forget(self) -> None:
        oldest = time.monotonic() - self._seconds
        for key in [key for key, own in self._sessions.items() if own.seen < oldest]:
            del self._sessions[key]
