"""A real Slurm of one node, from Debian's packages, whose files lie in one folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.factories import find_port

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

needs_slurm = pytest.mark.skipif(
    not all(shutil.which(program, path=_PATH) for program in _PROGRAMS) or os.geteuid() != 0,
    reason="no Slurm, or not root: apt install slurmctld slurmd slurm-client munge",
)

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=32000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def serve_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start munge and Slurm; give the variables by which its commands find it."""
    folder.mkdir()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(host=host, folder=folder, ports=(find_port(), find_port())))
    munge = [
        f"--{n}={folder}/munge.{n.partition('-')[0]}" for n in ("socket", "pid-file", "key-file")
    ]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed", "--force"]
    commands = (
        ["munged", "--foreground", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    )
    variables = {"SLURM_CONF": str(conf), "PATH": _PATH}
    processes = []
    try:
        with (folder / "log").open("ab") as log:
            for command in commands:
                processes.append(
                    subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
                )
                time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in ask_slurm(variables, "sinfo"):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield variables
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def ask_slurm(variables: dict[str, str], *command: str) -> str:
    """Return what one of Slurm's commands prints."""
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    return done.stdout
