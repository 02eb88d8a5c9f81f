"""A SLURM cluster of two nodes on this machine, for tests: its own controller, node daemons and munge."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .conftest import free_port

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "squeue", "scancel")
_CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1"


def missing() -> str | None:
    """Return why no cluster can run here; `None` if one can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lost = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if lost:
        return f"SLURM is not installed ({', '.join(lost)}): apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "slurmd needs root"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster.

    Attributes:
        environment: of programs that submit jobs to it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str | Path, **own: str) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment | own,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def states(self) -> list[str]:
        """Return the states of all jobs that have not ended."""
        return self.run("squeue", "--noheader", "--array", "--format=%T").split()

    def wait(self, seconds: float = 240) -> str:
        """Wait until no job is left; return their output."""
        end = time.monotonic() + seconds
        while self.states():
            assert time.monotonic() < end, (self.run("squeue"), self.written())
            time.sleep(0.2)
        return self.written()

    def written(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("slurm-*.out")))


@contextmanager
def cluster(folder: Path, commands: Sequence[tuple[str, str]]) -> Iterator[Cluster]:
    """A cluster that lives as long as the context.

    Args:
        commands: names and texts of shell scripts that jobs find.
    """
    tools, host = folder / "tools", socket.gethostname().split(".")[0]
    names = (host, f"{host}-2")  # only the first one has an address, for which others look
    for name in ("tools", "state", *names):
        (folder / name).mkdir()
    for name, text in commands:
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    config, key = folder / "slurm.conf", folder / "munge.key"
    nodes = [_NODE.format(name=name, host=host, port=free_port()) for name in names]
    values = {
        "host": host,
        "names": ",".join(names),
        "port": free_port(),
        "user": "root",
        "folder": folder,
    }
    config.write_text(_CONFIG.format(nodes="\n".join(nodes), **values))
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    path = f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = os.environ | {"PATH": path, "SLURM_CONF": str(config)}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
    files |= {"log-file": "log", "seed-file": "seed"}
    own = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
    daemons = (
        ["munged", "--foreground", "--force", *own],
        ["slurmctld", "-D", "-c"],
        *(["slurmd", "-D", "-N", name] for name in names),
    )
    running: list[subprocess.Popen[bytes]] = []
    made = Cluster(folder, environment)
    try:
        for words in daemons:
            running.append(
                subprocess.Popen(
                    words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            if words[0] == "munged":
                _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        _wait_for(lambda: _idle(made) == 2, folder)
        yield made
    finally:
        for daemon in reversed(running):
            daemon.terminate()
        for daemon in running:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _idle(one: Cluster) -> int:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%t"],
        env=one.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.split().count("idle")


def _wait_for(ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + 30
    while not ready():
        logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
        assert time.monotonic() < end, logs
        time.sleep(0.1)
