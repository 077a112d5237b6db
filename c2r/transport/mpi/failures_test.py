#!/usr/bin/env python3
"""Runs in which a rank throws, dies, stops or leaves, in each phase: all ranks end, and say why.

  failures_test.py MPIEXEC FAILING_RANK    FAILING_RANK: the program built from failing_rank.cc
"""
import os
import pathlib
import signal
import sys
import unittest

MPIEXEC, PROGRAM = sys.argv[1:3]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "end_to_end"))
from failing_runs import HANG_S, FailureTest, is_mpich  # noqa: E402

IS_MPICH = is_mpich(MPIEXEC)
NUM_RANKS, FAILING_RANK = 4, 2
TIMEOUT_MS = 1500
PHASES = ["layer 0 counts", "layer 1 dispatch", "layer 2 combine", "end"]


class Failures(FailureTest):
    def start(self, how, phase, timeout_ms=TIMEOUT_MS):
        return super().start(MPIEXEC, "-n", str(NUM_RANKS), PROGRAM, how, phase, str(FAILING_RANK),
                             str(timeout_ms))

    def check_waited(self, run, phase, why):
        label = "end of the run" if phase == "end" else phase
        super().check_waited(run, FAILING_RANK, label, why)

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
        run.read_until("failing now")
        os.killpg(run.process.pid, signal.SIGINT)
        self.check_end(run)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
