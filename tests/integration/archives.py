"""Orthanc with its DICOMweb plug-in, as a process of its own."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from tests.factories import find_port

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
IS_MISSING = not (Path(ORTHANC).is_file() and PLUGIN.is_file() and shutil.which("dciodvfy"))
WHY_MISSING = (
    "Orthanc or dciodvfy is not installed: apt install orthanc orthanc-dicomweb dicom3tools"
)
TITLE = "ARCHIVE"


class StartedArchive(NamedTuple):
    """Attributes: `address` over HTTP, `port` of DICOM, `process`."""

    address: str
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def store_address(self) -> str:
        """Of C-STORE."""
        return f"{TITLE}@127.0.0.1:{self.port}"

    @property
    def web_address(self) -> str:
        """Of DICOMweb."""
        return f"{self.address}/dicom-web"

    @property
    def client(self) -> DICOMwebClient:
        """Of DICOMweb."""
        return DICOMwebClient(self.web_address)

    def find(self, modality: str) -> list[dict[str, Any]]:
        """Return what QIDO-RS says of all instances of a modality."""
        return self.client.search_for_instances(search_filters={"Modality": modality})

    def read(self, found: dict[str, Any]) -> Dataset:
        """Return what WADO-RS gives for an answer of QIDO-RS."""
        tags = ("0020000D", "0020000E", "00080018")
        return self.client.retrieve_instance(*(found[tag]["Value"][0] for tag in tags))

    def wait_for(self, modality: str, count: int, seconds: float = 150) -> list[dict[str, Any]]:
        """Return what QIDO-RS says once there are so many; the test fails where there are not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if len(found := self.find(modality)) >= count:
                return found
            time.sleep(0.2)
        return pytest.fail(f"{len(found)} of {count} {modality}")

    def clear(self) -> None:
        """Take all away."""
        for own in httpx.get(f"{self.address}/patients").json():
            httpx.delete(f"{self.address}/patients/{own}")

    def send_all_to(self, modality: str) -> int:
        """Let it send all instances to one of its modalities; return the status over HTTP."""
        instances = httpx.get(f"{self.address}/instances").json()
        address = f"{self.address}/modalities/{modality}/store"
        return httpx.post(address, json=instances, timeout=60).status_code


@contextmanager
def start_archive(**settings: Any) -> Iterator[StartedArchive]:
    """Start Orthanc with a folder of its own, and kill it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        port = settings.get("DicomPort") or find_port()
        web_port = settings.get("HttpPort") or find_port()
        config: dict[str, Any] = {
            "StorageDirectory": f"{folder}/storage",
            "IndexDirectory": f"{folder}/index",
            "Plugins": [str(PLUGIN)],
            "HttpPort": web_port,
            "DicomPort": port,
            "DicomAet": TITLE,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        path = Path(folder) / "orthanc.json"
        path.write_text(json.dumps(config | settings))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([ORTHANC, str(path)], stdout=log, stderr=log)
            try:
                started = StartedArchive(f"http://127.0.0.1:{web_port}", port, process)
                _wait_for(started, Path(log.name))
                yield started
            finally:
                process.kill()
                process.wait()


def _wait_for(started: StartedArchive, log: Path) -> None:
    end = time.monotonic() + 150
    while started.process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{started.address}/dicom-web/studies").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text()}")
