"""What the decoders do with damaged files: decode, refuse, or crash; in which time and memory.

    python benchmarks/decoder_fuzz.py --count 100000 --jobs 2

Files of every kind that is read are made, and each mutant is one of them with bytes flipped, cut
off, moved, overwritten, with false lengths, or put together of two. It is decoded in a process of
its own kind, so that a decoder that takes the process with it is seen. A mutant is named by its
number: `--first <number> --count 1` repeats it, `--write <folder>` keeps those that crash.

The exit code is 1 where a decoder crashed: raised anything but UnusableImageError, or died. Memory
is what decoding takes beyond what the process had before; it is measured on Linux alone.
"""

import argparse
import io
import itertools
import multiprocessing
import os
import re
import resource
import struct
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset, uid
from pydicom.encaps import encapsulate
from tqdm import tqdm

from busi_pipeline.imaging.decoding import UnusableImageError, decode_image
from busi_pipeline.imaging.dicom import decode_frame, is_dicom, read_header

SECONDS = 5.0
MEGABYTES = 512
# Beyond it an allocation fails in the worker, so that the machine is safe.
ADDRESS_SPACE = 8 << 30


class Seed(NamedTuple):
    """A sound file: `kind` is its row in the table."""

    kind: str
    content: bytes


@dataclass
class Tally:
    """What became of the mutants of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    large: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0


# Sound files


def make_seeds() -> list[Seed]:
    """Return small files of every kind that is read."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 6, (61, 90))
    grey = np.clip(np.cumsum(steps, axis=1) + 120, 0, 255).astype(np.uint8)
    rgb = np.stack([grey, np.roll(grey, 9, axis=1), 255 - grey], axis=2)
    return [*_make_pictures(grey, rgb), *_make_dicom_files(grey, rgb)]


def _make_pictures(grey: np.ndarray, rgb: np.ndarray) -> Iterator[Seed]:
    deep = Image.fromarray(grey.astype(np.uint16) * 16)
    real = Image.fromarray(grey.astype(np.float32) / 255)
    one, colour = Image.fromarray(grey), Image.fromarray(rgb)
    clear = colour.copy()
    clear.putalpha(one)
    turned = Image.Exif()
    turned[0x0112] = 6
    for image in (one, colour, clear, deep, colour.convert("P"), one.convert("1")):
        yield Seed("PNG", _encode(image, "PNG"))
    yield Seed("PNG", _encode(colour, "PNG", exif=turned))
    for options in ({}, {"progressive": True}, {"exif": turned}, {"restart_marker_blocks": 4}):
        yield Seed("JPEG", _encode(colour, "JPEG", **options))
    yield Seed("JPEG", _encode(one, "JPEG"))
    yield Seed("JPEG", _encode(colour.convert("CMYK"), "JPEG"))
    yield Seed("JPEG", imagecodecs.jpeg8_encode(grey, lossless=True))
    for image in (one, colour, colour.convert("P"), one.convert("1")):
        yield Seed("BMP", _encode(image, "BMP"))
    yield Seed("BMP", _encode_bmp_rle(grey))
    for image in (one, colour, clear, deep, real, one.convert("1"), colour.convert("CMYK")):
        yield Seed("TIFF", _encode(image, "TIFF"))
        yield Seed("TIFF", _encode(image, "TIFF", compression="tiff_lzw"))
    for compression in ("jpeg", "tiff_adobe_deflate", "packbits"):
        yield Seed("TIFF", _encode(colour, "TIFF", compression=compression))
    yield Seed("TIFF", _encode(one.convert("1"), "TIFF", compression="group4"))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _encode_bmp_rle(grey: np.ndarray) -> bytes:
    """Return a BMP with run lengths, which Pillow reads but does not write."""
    rows = [bytes(itertools.chain(*((1, value) for value in row))) + b"\0\0" for row in grey[::-1]]
    data = b"".join(rows) + b"\0\1"
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    height, width = grey.shape
    start = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return head + info + palette + data


def _make_dicom_files(grey: np.ndarray, rgb: np.ndarray) -> Iterator[Seed]:
    deep = grey.astype(np.uint16) * 16
    yield _make_dicom("DICOM", [grey, 255 - grey])
    yield _make_dicom("DICOM", [rgb], "RGB")
    yield _make_dicom("DICOM", [deep], BitsStored=12, WindowCenter=900, WindowWidth=800)
    yield _make_dicom("DICOM", [rgb], "YBR_FULL")
    yield _make_dicom("DICOM", [grey], "PALETTE COLOR", **_make_palette())
    rle = _make_dataset([rgb, 255 - rgb], "RGB")
    rle.compress(uid.RLELossless)
    yield Seed("DICOM RLE", _write(rle))
    encoders: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
        "JPEG": (uid.JPEGBaseline8Bit, lambda a: _encode(Image.fromarray(a), "JPEG")),
        "JPEG lossless": (
            uid.JPEGLosslessSV1,
            lambda a: imagecodecs.jpeg8_encode(a, lossless=True),
        ),
        "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
        "JPEG 2000": (
            uid.JPEG2000Lossless,
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
        ),
    }
    for kind, (syntax, encode) in encoders.items():
        for values in (grey, rgb) if kind == "JPEG" else (grey, rgb, deep):
            interpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
            streams = [encode(values)] * 2
            yield _make_dicom(f"DICOM {kind}", [values] * 2, interpretation, syntax, streams)


def _make_palette() -> dict[str, object]:
    ramp = np.arange(256, dtype=np.uint8).tobytes()
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    descriptors = {f"{name}Descriptor": [256, 0, 8] for name in names}
    return descriptors | {f"{name}Data": ramp for name in names}


def _make_dicom(
    kind: str,
    frames: list[np.ndarray],
    interpretation: str = "MONOCHROME2",
    syntax: str = uid.ExplicitVRLittleEndian,
    streams: list[bytes] | None = None,
    **elements: object,
) -> Seed:
    dataset = _make_dataset(frames, interpretation)
    if streams:
        dataset.PixelData = encapsulate(streams)
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    return Seed(kind, _write(dataset))


def _make_dataset(frames: list[np.ndarray], interpretation: str) -> Dataset:
    dataset, region = Dataset(), Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 3
    region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = 50
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    dataset.PatientName, dataset.PatientID, dataset.PatientAge = "DOE^JANE", "1", "047Y"
    dataset.SequenceOfUltrasoundRegions = [region]
    dataset.Rows, dataset.Columns = frames[0].shape[:2]
    dataset.SamplesPerPixel = frames[0].ndim * 2 - 3
    dataset.PhotometricInterpretation = interpretation
    dataset.PlanarConfiguration = dataset.PixelRepresentation = 0
    dataset.NumberOfFrames = len(frames)
    dataset.BitsAllocated = dataset.BitsStored = 8 * frames[0].itemsize
    dataset.HighBit = dataset.BitsStored - 1
    content = b"".join(frame.tobytes() for frame in frames)
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if frames[0].itemsize == 1 else "OW"
    return dataset


def _write(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# Mutants


def mutate(seeds: list[Seed], seed: int, number: int) -> Seed:
    """Return mutant `number`: always the same for one `seed`."""
    rng = np.random.default_rng([seed, number])
    kind, content = seeds[number % len(seeds)]
    mutant = bytearray(content)
    # What decides most stands at the beginning; of DICOM after 132 bytes that decide nothing.
    start = 132 if is_dicom(content) else 0
    head = min(len(mutant), start + int(rng.choice([40, 200, 1000])))
    for _ in range(rng.integers(1, 4)):
        if len(mutant) < 16:
            break
        end = head if rng.random() < 0.5 else len(mutant)
        low = min(start, len(mutant) - 1)
        place = int(rng.integers(low, max(low + 1, min(end, len(mutant)))))
        length = int(2 ** rng.uniform(0, np.log2(len(mutant))))
        match rng.integers(7):
            case 0:
                for _ in range(rng.integers(1, 9)):
                    mutant[int(rng.integers(place, len(mutant)))] ^= 1 << int(rng.integers(8))
            case 1:
                mutant[place] = int(rng.integers(256))
            case 2:
                mutant = mutant[:place]
            case 3:  # another value where a length, a size or an offset may stand
                width = int(rng.choice([1, 2, 4]))
                value = int(rng.choice([0, 1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1]))
                order = "little" if rng.random() < 0.5 else "big"
                false = (value % 256**width).to_bytes(width, order)
                mutant[place : place + width] = false
            case 4:
                block = mutant[place : place + length]
                del mutant[place : place + length]
                there = int(rng.integers(len(mutant) + 1))
                mutant[there:there] = block
            case 5:
                filler = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
                mutant[place : place + length] = filler
            case 6:
                other = seeds[int(rng.integers(len(seeds)))].content
                mutant[place:] = other[place:]
    changed = bytes(mutant)
    if kind == "PNG" and rng.random() < 0.7:
        changed = _correct_checksums(changed)
    return Seed(kind, changed)


def _correct_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks, without which nothing else is looked at."""
    parts, position = [content[:8]], 8
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + length
        checksum = zlib.crc32(content[position + 4 : end]).to_bytes(4, "big")
        parts += [content[position:end], checksum]
        position = end + 4
    return b"".join([*parts, content[position:]])


# Decoding, in a process that may die


def decode(content: bytes) -> None:
    """Decode as ingestion does: DICOM files frame by frame, others as pictures."""
    if is_dicom(content):
        decode_frame(content, read_header(content).frames, crop_to_region=True)
    else:
        decode_image(content)


def work(connection: Connection) -> None:
    """Decode what comes through the connection; answer with (outcome, seconds, megabytes)."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff says on it what it finds
    while True:
        content = connection.recv_bytes()
        before, begun = _restart_memory(), time.perf_counter()
        try:
            decode(content)
            outcome = "decoded"
        except UnusableImageError as error:
            outcome = "refused" if str(error) else "refused without a reason"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - begun
        connection.send((outcome, seconds, _read_memory("VmHWM") - before))


def _restart_memory() -> float:
    """Let the peak be what is used now; return it in MB."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return _read_memory("VmRSS")


def _read_memory(what: str) -> float:
    if sys.platform != "linux":
        return 0.0
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Worker:
    """A process that decodes; a new one takes its place when it dies or takes too long."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def decode(self, content: bytes) -> tuple[str, float, float]:
        """Return outcome, seconds and megabytes."""
        begun = time.perf_counter()
        try:
            self._connection.send_bytes(content)
            if self._connection.poll(SECONDS + 1):
                return self._connection.recv()
            self._process.kill()
            outcome = "slow"
        except (EOFError, OSError):
            self._process.join()
            outcome = f"the process died ({self._process.exitcode})"
        self._process.join()
        self._start()
        return outcome, time.perf_counter() - begun, 0.0

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


# Counting


class Results:
    """Tallies by kind, and the mutants that crashed."""

    def __init__(self) -> None:
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.crashes: list[tuple[int, str, str]] = []

    def add(self, number: int, mutant: Seed, found: tuple[str, float, float]) -> bool:
        """Count one; return whether it crashed."""
        outcome, seconds, megabytes = found
        tally = self.tallies[mutant.kind]
        is_crash = outcome not in ("decoded", "refused", "slow")
        tally.outcomes["crashed" if is_crash else outcome] += 1
        tally.slow += seconds > SECONDS
        tally.large += megabytes > MEGABYTES
        tally.seconds = max(tally.seconds, seconds)
        tally.megabytes = max(tally.megabytes, megabytes)
        if is_crash:
            self.crashes.append((number, mutant.kind, outcome))
        return is_crash

    def print_table(self) -> None:
        """Print one line a kind, and the first crashes."""
        print(
            "format                mutants  decoded  refused  crashed  slow  >512 MB      s     MB"
        )
        for kind, tally in self.tallies.items():
            n = tally.outcomes
            print(
                f"{kind:20} {n.total():8d} {n['decoded']:8d} {n['refused']:8d} {n['crashed']:8d} "
                f"{tally.slow:5d} {tally.large:8d} {tally.seconds:6.2f} {tally.megabytes:6.0f}"
            )
        for number, kind, outcome in sorted(self.crashes)[:20]:
            print(f"crashed: mutant {number} ({kind}): {outcome[:200]}")


def run(numbers: range, seed: int, results: Results, bar: tqdm, folder: Path | None) -> None:
    """Decode mutants one after the other in a worker."""
    seeds, worker = make_seeds(), Worker()
    for number in numbers:
        mutant = mutate(seeds, seed, number)
        if results.add(number, mutant, worker.decode(mutant.content)) and folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}").write_bytes(mutant.content)
        bar.update()
    worker.stop()


def main() -> None:
    """Decode the mutants and print what became of them; `--help` lists the arguments."""
    from _common import describe_machine  # here, since each worker imports this file

    parser = argparse.ArgumentParser(description="Damaged files against the decoders.")
    parser.add_argument("--count", type=int, default=100_000, help="mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--jobs", type=int, default=1, help="workers at once")
    parser.add_argument("--write", type=Path, help="folder for the mutants that crash")
    arguments = parser.parse_args()
    print(describe_machine())
    results, end = Results(), arguments.first + arguments.count
    with (
        tqdm(total=arguments.count, unit="file", disable=None) as bar,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        parts = [range(arguments.first + job, end, arguments.jobs) for job in range(arguments.jobs)]
        waiting = [
            pool.submit(run, part, arguments.seed, results, bar, arguments.write) for part in parts
        ]
        for future in waiting:
            future.result()
    results.print_table()
    sys.exit(bool(results.crashes))


if __name__ == "__main__":
    main()
