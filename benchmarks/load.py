"""The HTTP service under more clients than it can serve, some of them hostile.

    python benchmarks/load.py data/06_models/resnet50/package --seconds 300

Of 200 clients, most send an image, wait for the answer, and send the next one; who is turned away
comes again after the seconds that the service names. Others send headers byte by byte, bodies byte
by byte, too large bodies, damaged ones, and images that would take gigabytes. A request of an
honest client is lost if it gets neither its answer nor 503.
"""

import argparse
import asyncio
import random
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx2 as httpx
from _common import describe_machine
from service import answers, find_port, make_scan, start

from busi_pipeline.models.packaged import load_package

_SAMPLE_SECONDS = 5
_HOSTILE_SHARE = 0.05  # of each kind, among all clients


def make_bomb() -> bytes:
    """Return a PNG of a few kilobytes that would be 10 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes(10_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


class Load:
    """Clients of one service, and what became of their requests."""

    def __init__(self, address: str, scan: bytes, score: float, seconds: float):
        self.address, self.scan, self.score = address, scan, score
        self.host, self.port = address.removeprefix("http://").split(":")
        self.end = time.monotonic() + seconds
        self.answered: list[float] = []
        self.outcomes: Counter[str] = Counter()

    def is_over(self) -> bool:
        """Whether no further request is to begin."""
        return time.monotonic() >= self.end

    async def be_honest(self, number: int) -> None:
        """Send images until the end."""
        rng = random.Random(number)
        async with httpx.AsyncClient(timeout=180) as client:
            await asyncio.sleep(5 * rng.random())
            while not self.is_over():
                begun = time.monotonic()
                try:
                    sent = await client.post(
                        f"{self.address}/v1/predictions", files={"files": ("a.png", self.scan)}
                    )
                except httpx.HTTPError as error:
                    self.outcomes[f"LOST: {type(error).__name__}"] += 1
                    continue
                if sent.status_code == 503:
                    self.outcomes["turned away (503)"] += 1
                    await asyncio.sleep(int(sent.headers["retry-after"]) * (0.5 + rng.random()))
                elif sent.status_code == 200:
                    score = sent.json()["predictions"][0]["positive_score"]
                    wrong = abs(score - self.score) > 1e-4
                    self.outcomes["WRONG ANSWER" if wrong else "answered"] += 1
                    self.answered.append(time.monotonic() - begun)
                else:
                    self.outcomes[f"LOST: {sent.status_code}"] += 1

    async def send(self, kind: str, first: bytes, then: bytes = b"", pause: float = 0.0) -> None:
        """Send raw bytes, the second ones one by one, and read what comes, again and again."""
        while not self.is_over():
            try:
                reader, writer = await asyncio.open_connection(self.host, int(self.port))
            except OSError:
                self.outcomes[f"{kind}: no connection"] += 1
                await asyncio.sleep(1)
                continue
            status = b""
            try:
                writer.write(first)
                await writer.drain()
                for position in range(len(then)):
                    writer.write(then[position : position + 1])
                    await writer.drain()
                    await asyncio.sleep(pause)
                    if self.is_over():
                        break
                status = (await asyncio.wait_for(reader.read(4096), 60))[9:12]
            except (OSError, TimeoutError):
                pass
            writer.close()
            self.outcomes[f"{kind}: {status.decode() or 'connection closed'}"] += 1
            await asyncio.sleep(0.5)

    def list_hostile(self) -> list[tuple[str, bytes, bytes, float]]:
        """Return the kinds of hostile clients: name, bytes at once, bytes one by one, pause."""
        post = f"POST /v1/predictions HTTP/1.1\r\nHost: {self.host}\r\n".encode()
        form = b"Content-Type: multipart/form-data; boundary=x\r\n"
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        bomb = part + make_bomb() + b"\r\n--x--\r\n"
        damaged = part + random.Random(0).randbytes(20_000)
        return [
            ("slow headers", post + b"X-Slow: ", b"a" * 600, 0.5),
            ("slow body", post + form + b"Content-Length: 5000\r\n\r\n", b"a" * 600, 0.5),
            ("too large", post + form + b"Content-Length: 999999999999\r\n\r\n", b"", 0),
            (
                "damaged",
                post + form + f"Content-Length: {len(damaged)}\r\n\r\n".encode() + damaged,
                b"",
                0,
            ),
            ("bomb", post + form + f"Content-Length: {len(bomb)}\r\n\r\n".encode() + bomb, b"", 0),
        ]

    async def run(self, clients: int, process: int) -> list[tuple[float, float]]:
        """Let all clients run; return (seconds, megabytes of memory) of the service."""
        kinds = self.list_hostile()
        hostile = round(_HOSTILE_SHARE * clients)
        jobs = [self.be_honest(number) for number in range(clients - hostile * len(kinds))]
        jobs += [self.send(*kind) for kind in kinds for _ in range(hostile)]
        memory: list[tuple[float, float]] = []

        async def sample() -> None:
            begun = time.monotonic()
            while not self.is_over():
                memory.append((time.monotonic() - begun, read_memory(process)))
                await asyncio.sleep(_SAMPLE_SECONDS)

        await asyncio.gather(sample(), *jobs)
        return memory


def read_memory(process: int) -> float:
    """Return the megabytes that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


def main() -> None:
    """Print what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    given = parser.parse_args()
    model, scan, port = load_package(given.package), make_scan()[1], find_port()
    score = model.predict_bytes(scan).positive_score
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "busi_pipeline",
            "serve",
            "--model",
            str(given.package.resolve()),
        ]
        command += ["--models", folder, "--no-page", "--port", str(port)]
        with start(command, lambda: answers(f"{address}/readyz"), "the service") as process:
            load = Load(address, scan, score, given.seconds)
            memory = asyncio.run(load.run(given.clients, process.pid))
            is_alive = answers(f"{address}/readyz")
    print(describe_machine())
    for outcome, count in sorted(load.outcomes.items()):
        print(f"{count:7d}  {outcome}")
    cuts = statistics.quantiles(load.answered, n=100)
    print("seconds to an answer: " + ", ".join(f"p{n} {cuts[n - 1]:.1f}" for n in (50, 95, 99)))
    settled = [size for seconds, size in memory if seconds > 60]
    if settled:
        first, last, most = settled[0], settled[-1], max(settled)
        print(f"megabytes after 60 s: {first:.0f}, at the end {last:.0f}, at most {most:.0f}")
    print(f"it still answers: {is_alive}")


if __name__ == "__main__":
    main()
