"""Servers that share a store, killed at random moments: every accepted job must end once, with its transcript.

    python benchmarks/servers.py [KILLS]

Half of the kills (SIGKILL) are among a front and two workers, half among three full servers; over a PostgreSQL
and an S3 server (moto) that are started for it. Recordings of 3, 9 and 30 s come in all the time, the engine plays
turns of 50 ms, leases last 3 s. Ends with an error at the first job that is lost, told twice, or has another
transcript than one process makes. Writes docs/results/servers.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from common import provenance, store

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import s3_server
from tests.cloud import FRONT_AND_WORKERS, LEASE_S, Cloud, kill_one_after_the_other
from tests.postgres import temporary

SEED = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=60)
    kills = parser.parse_args().kills
    made, runs = provenance(), []
    with (
        tempfile.TemporaryDirectory() as name,
        temporary() as postgres,
        s3_server.running(Path(name)) as environment,
        httpx2.Client(timeout=60) as http,
    ):
        code = "import s3fs; s3fs.S3FileSystem().mkdir('audio')"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)
        for number, kinds in enumerate((FRONT_AND_WORKERS, [()] * 3)):
            database = postgres.create(f"run{number}")
            cloud = Cloud(database, f"s3://audio/run{number}", Path(name), environment)
            try:
                happened = kill_one_after_the_other(cloud, http, kinds, kills // 2, SEED + number)
            finally:
                cloud.stop()
            print(happened, flush=True)
            runs.append(happened)
    store("servers", {**made, "lease_s": LEASE_S, "runs": runs})


if __name__ == "__main__":
    main()
