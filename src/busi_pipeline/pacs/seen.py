"""Ask the model about an image, and keep what it takes to say where in the file it looked."""

from typing import NamedTuple

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.imaging.dicom import read_header, select_frames
from busi_pipeline.models.packaged import Answer, PackagedModel, decode_any


class Seen(NamedTuple):
    """What a model saw, and said.

    Attributes:
        answer: of the model; its box is in pixels of `pixels`.
        pixels: uint8 (h, w, 3), RGB: the ultrasound region of the frame.
        frame: that was looked at, counted from 1.
        left, top: of the region in the frame, in pixels.
        spacing: height and width of a pixel in mm; None where the header does not say.
        laterality: `left`, `right`, `both` or "".
    """

    answer: Answer
    pixels: UInt8Array
    frame: int
    left: int
    top: int
    spacing: tuple[float, float] | None
    laterality: str

    @property
    def box(self) -> Window | None:
        """Of the lesion in pixels of the whole frame; None where the whole image was looked at."""
        box = self.answer.box
        if box is None:
            return None
        left, top = (max(0.0, edge) for edge in (box.left, box.top))
        right, bottom = min(self.answer.width, box.right), min(self.answer.height, box.bottom)
        return Window(left + self.left, top + self.top, right + self.left, bottom + self.top)


def look_at(model: PackagedModel, content: bytes) -> Seen:
    """Return what a model says of a DICOM file; of several frames the middle one is looked at.

    Raises UnusableImageError, one line, where it cannot be used.
    """
    header = read_header(content)
    frame = select_frames("middle", header.frames)[0]
    pixels = decode_any(content, frame)
    answer = model.predict_pixels(pixels)
    region = header.region
    return Seen(
        answer,
        pixels,
        frame,
        0 if region is None else region.left,
        0 if region is None else region.top,
        _read_spacing(header.pixel_spacing_mm),
        next(iter(header.view.split()), "") if header.view else "",
    )


def _read_spacing(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    height, _, width = text.partition(" x ")
    return float(height), float(width or height)
