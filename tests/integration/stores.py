"""A database and object storage for tests: PostgreSQL from Debian, and moto in place of S3."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs

from tests.factories import find_port

BUCKET = "busi"


def _find_postgresql() -> Path | None:
    """Return the folder of its programs, which Debian leaves out of PATH."""
    folders = [Path(own) for own in os.get_exec_path()]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = ("initdb", "postgres", "createdb")
    return next((own for own in folders if all((own / name).exists() for name in programs)), None)


POSTGRESQL = _find_postgresql()
needs_postgresql = pytest.mark.skipif(
    POSTGRESQL is None, reason="no PostgreSQL: apt install postgresql"
)


@contextmanager
def serve_s3(folder: Path) -> Iterator[dict[str, str]]:
    """Start object storage with one empty bucket; give the variables by which it is found."""
    port = find_port()
    address = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ENDPOINT_URL": address,
        "MLFLOW_S3_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "s3.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        storage = open_s3(variables)
        deadline = time.monotonic() + 60
        while True:
            try:
                storage.mkdir(BUCKET)
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "s3.log").read_text()
                time.sleep(0.2)
        yield variables
    finally:
        process.terminate()
        process.wait(timeout=30)


def open_s3(variables: dict[str, str]) -> s3fs.S3FileSystem:
    """Return the file system of object storage that `serve_s3` started."""
    return s3fs.S3FileSystem(
        key=variables["AWS_ACCESS_KEY_ID"],
        secret=variables["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": variables["AWS_DEFAULT_REGION"]},
        use_listings_cache=False,
    )


@contextmanager
def serve_postgresql(folder: Path) -> Iterator[dict[str, str]]:
    """Start a server with an empty database; give the variables by which MLflow finds it.

    It asks for a password, which is in none of the addresses.
    """
    assert POSTGRESQL is not None
    data = folder / "postgresql"
    data.mkdir()
    password = data / "password"
    password.write_text("of the test")
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:  # the server refuses to run as root
        for path in (data, password):
            shutil.chown(path, pwd.getpwnam("postgres").pw_uid)
        for path in folder.parents:
            path.chmod(path.stat().st_mode | 0o011) if path.owner() == "root" else None
        folder.chmod(0o755)
    port = find_port()
    store = data / "store"
    initdb = [f"--pgdata={store}", "--username=mlflow", f"--pwfile={password}"]
    initdb += ["--auth=scram-sha-256", "--no-sync"]
    command = [*user, str(POSTGRESQL / "initdb"), *initdb]
    subprocess.run(command, cwd=data, capture_output=True, check=True)
    options = [
        "-D",
        str(store),
        "-p",
        str(port),
        "-k",
        str(data),
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    with (folder / "postgresql.log").open("ab") as log:
        process = subprocess.Popen(
            [*user, str(POSTGRESQL / "postgres"), *options], cwd=data, stdout=log, stderr=log
        )
    variables = {"PGPASSWORD": "of the test"}
    try:
        command = [str(POSTGRESQL / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
        deadline = time.monotonic() + 60
        while subprocess.run(
            [*command, "mlflow"], env=os.environ | variables, capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, (folder / "postgresql.log").read_text()
            time.sleep(0.2)
        yield variables | {"MLFLOW_TRACKING_URI": f"postgresql://mlflow@127.0.0.1:{port}/mlflow"}
    finally:
        process.terminate()
        process.wait(timeout=30)
