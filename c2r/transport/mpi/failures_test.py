#!/usr/bin/env python3
"""Runs in which a rank throws, dies, stops or leaves, in each phase: all ranks end, and say why.

  failures_test.py MPIEXEC FAILING_RANK    FAILING_RANK: the program built from failing_rank.cc
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest
import uuid

MPIEXEC, PROGRAM = sys.argv[1:3]
# MPICH's mpirun kills the other ranks before they can speak when one has died.
IS_MPICH = "HYDRA" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True,
                                     check=True).stdout
NUM_RANKS, FAILING_RANK = 4, 2
TIMEOUT_MS = 1500
PHASES = ["layer 0 counts", "layer 1 dispatch", "layer 2 combine", "end"]
HANG_S = 60  # far above what a busy machine needs; a hang is a failure, being slow is not


class Run:
    """A run of mpirun; its ranks carry a mark in their environment, by which they are found."""

    def __init__(self, how, phase, timeout_ms=TIMEOUT_MS):
        self.mark = str(uuid.uuid4())
        self.process = subprocess.Popen(
            [MPIEXEC, "-n", str(NUM_RANKS), PROGRAM, how, phase, str(FAILING_RANK),
             str(timeout_ms)],
            env={**os.environ, "C2R_FAILURES_TEST": self.mark}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self):
        self.output = self.process.communicate(timeout=HANG_S)[0]
        return self.process.returncode

    def lines_of_ranks(self):
        return re.findall(r"^failing_rank: (rank \d+: .*)$", self.output, re.M)

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


class Failures(unittest.TestCase):
    def start(self, *arguments):
        run = Run(*arguments)
        self.addCleanup(run.stop)
        return run

    def check_end(self, run):
        self.assertNotEqual(run.finish(), 0, run.output)
        deadline = time.monotonic() + HANG_S
        while run.ranks_left() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(run.ranks_left(), [], run.output)

    def check_waited(self, run, phase, why):
        """A rank other than the failing one said that it waited for that one in this phase."""
        label = "end of the run" if phase == "end" else phase
        self.assertTrue(
            any(re.match(rf"rank [013]: {label}: {why} while waiting for .*rank {FAILING_RANK} \(",
                         line) for line in run.lines_of_ranks()), run.output)

    def test_nothing_is_said_when_nothing_fails(self):
        run = self.start("none", "")
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(run.output, "all layers done\n")

    def test_a_rank_throws(self):
        for phase in PHASES:
            with self.subTest(phase=phase):
                run = self.start("throw", phase)
                self.check_end(run)
                self.assertIn(f"rank {FAILING_RANK}: the shard is lost", run.lines_of_ranks())

    def test_a_rank_stops(self):
        for phase in PHASES:
            with self.subTest(phase=phase):
                run = self.start("stop", phase)
                self.check_end(run)
                self.check_waited(run, phase, f"nothing moved for {TIMEOUT_MS} ms")

    def test_a_rank_is_killed(self):
        for phase in PHASES:
            with self.subTest(phase=phase):
                run = self.start("kill", phase)
                self.check_end(run)
                if IS_MPICH:
                    self.assertIn("EXIT CODE: 9", run.output)
                else:
                    self.check_waited(run, phase, "interrupted")

    def test_a_rank_leaves(self):
        run = self.start("leave", PHASES[1])
        self.check_end(run)
        if not IS_MPICH:
            self.check_waited(run, PHASES[1], "interrupted")

    def test_control_c_ends_all(self):
        run = self.start("stop", PHASES[1], 1000 * HANG_S)
        for line in run.process.stdout:
            if line == "failing now\n":
                break
        os.killpg(run.process.pid, signal.SIGINT)
        self.check_end(run)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
