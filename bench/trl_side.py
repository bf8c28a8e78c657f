"""Runs `bench/trl_peer.py` in its own environment and asks it for steps."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class TrlSide:
    """The peer, in a process of its own: describes itself once, then runs a step whenever it is asked to."""

    def __init__(self, python: str, job: dict[str, Any]):
        threads = str(job["threads"])
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            # Waiting threads sleep. By default they spin, and where another program wants the same CPUs a
            # step of TRL was then seen to take 19 s instead of 0.4.
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("trl_peer.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._send(json.dumps(job))
        self.description = self._receive()

    def step(self) -> dict[str, Any]:
        """Runs a step. In between the peer is idle."""
        self._receive()  # it is ready
        self._send("go")
        return self._receive()

    def close(self) -> None:
        """Ends the process, which removes its temporary files."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"error: the TRL side stopped:\n{self._log.read()[-4000:]}")
        return json.loads(line)
