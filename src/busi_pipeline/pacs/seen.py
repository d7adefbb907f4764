"""Ask the model about an image, and keep what it takes to say where in the file it looked."""

from typing import NamedTuple

from busi_pipeline.imaging.crops import Window
from busi_pipeline.imaging.decoding import UInt8Array
from busi_pipeline.imaging.dicom import Region, read_header, select_frames
from busi_pipeline.models.packaged import SHOWN_FRAME, Answer, PackagedModel, decode_any


class Seen(NamedTuple):
    """What a model saw, and said.

    Attributes:
        answer: of the model; its box is in pixels of `pixels`.
        pixels: uint8 (h, w, 3), RGB: the ultrasound region of the frame.
        frame: that was looked at, counted from 1.
        frames: number of frames in the file.
        region: that was looked at, in pixels of the frame; None for the whole frame.
        regions: number of ultrasound regions that the header names.
        spacing: height and width of a pixel in mm; None where the header does not say.
        laterality: `left`, `right`, `both` or "".
    """

    answer: Answer
    pixels: UInt8Array
    frame: int
    frames: int
    region: Region | None
    regions: int
    spacing: tuple[float, float] | None
    laterality: str

    @property
    def box(self) -> Window | None:
        """Of the lesion in pixels of the whole frame; None where the whole image was looked at.

        The localizer's box may go beyond the picture: what lies in it is meant. None, too, where
        nothing does.
        """
        box = self.answer.box
        if box is None:
            return None
        left, top = max(0.0, box.left), max(0.0, box.top)
        right, bottom = min(self.answer.width, box.right), min(self.answer.height, box.bottom)
        if left >= right or top >= bottom:
            return None
        x, y = (0, 0) if self.region is None else self.region[:2]
        return Window(left + x, top + y, right + x, bottom + y)

    def describe_scope(self) -> str:
        """Return which part of the file alone was looked at; "" where it was all of it."""
        parts = []
        if self.frames > 1:
            parts.append(f"Only frame {self.frame} of {self.frames} was looked at.")
        if self.region is not None and self.regions > 1:
            left, top, right, bottom = self.region
            parts.append(
                f"Only the largest of {self.regions} ultrasound regions was looked at: pixels "
                f"{left} to {right - 1} from the left, {top} to {bottom - 1} from the top."
            )
        return " ".join(parts)


def look_at(model: PackagedModel, content: bytes) -> Seen:
    """Return what a model says of a DICOM file; of several frames the middle one is looked at.

    Raises UnusableImageError, one line, where it cannot be used.
    """
    header = read_header(content)
    frame = select_frames(SHOWN_FRAME, header.frames)[0]
    pixels = decode_any(content, frame)
    return Seen(
        model.predict_pixels(pixels),
        pixels,
        frame,
        header.frames,
        header.region,
        header.regions,
        header.spacing,
        header.laterality,
    )
