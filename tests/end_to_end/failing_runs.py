"""Runs of mpirun in which a rank goes wrong, and what must be true of how they end."""
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest
import uuid

HANG_S = 60  # far above what a busy machine needs; a hang is a failure, being slow is not


def is_mpich(mpiexec):
    """MPICH's mpirun kills the other ranks before they can speak when one has died."""
    return "HYDRA" in subprocess.run([mpiexec, "--version"], capture_output=True, text=True,
                                     check=True).stdout


class Run:
    """A run of mpirun; its ranks carry a mark in their environment, by which they are found."""

    def __init__(self, *command, cwd=None):
        self.mark = str(uuid.uuid4())
        self.process = subprocess.Popen(
            command, env={**os.environ, "C2R_FAILURES_TEST": self.mark}, text=True, cwd=cwd,
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = ""

    def read_until(self, line):
        for read in self.process.stdout:
            self.output += read
            if read == line + "\n":
                break

    def finish(self):
        self.output += self.process.communicate(timeout=HANG_S)[0]
        return self.process.returncode

    def lines_of_ranks(self):
        """What our program said, without its name: "rank 2: ..."."""
        return re.findall(r"^\w+: (rank \d+: .*)$", self.output, re.M)

    def ranks_left(self):
        left = []
        for environment in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environment.read_bytes():
                    left.append(environment.parent.name)
            except OSError:  # ended meanwhile
                pass
        return left

    def stop(self):
        for pid in self.ranks_left():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


class FailureTest(unittest.TestCase):
    def start(self, *command, cwd=None):
        run = Run(*command, cwd=cwd)
        self.addCleanup(run.stop)
        return run

    def check_end(self, run):
        """It fails, and leaves no process behind."""
        self.assertNotEqual(run.finish(), 0, run.output)
        deadline = time.monotonic() + HANG_S
        while run.ranks_left() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(run.ranks_left(), [], run.output)

    def check_waited(self, run, failing_rank, label, why):
        """A rank other than the failing one said that it waited for that one in this phase."""
        line = rf"rank (?!{failing_rank}:)\d+: {label}: {why} while waiting for .*rank {failing_rank} \("
        self.assertTrue(any(re.match(line, said) for said in run.lines_of_ranks()), run.output)
