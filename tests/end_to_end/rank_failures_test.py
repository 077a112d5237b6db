#!/usr/bin/env python3
"""A model runs on four ranks and one throws, dies or stops, in each phase: all end, and say why.

  rank_failures_test.py MPIEXEC FAILING_MODEL    FAILING_MODEL: the program of failing_model.cc
"""
import os
import pathlib
import signal
import sys
import tempfile
import unittest

import small_model
from failing_runs import HANG_S, FailureTest, is_mpich

MPIEXEC, PROGRAM = sys.argv[1], str(pathlib.Path(sys.argv[2]).resolve())
IS_MPICH = is_mpich(MPIEXEC)
FAILING_RANK = 2
TIMEOUT_MS = 1500
# The exchange that the rank does not start: loading the model, rank 0's input, agreeing on a pass,
# routing, telling who gets what, sending rows, computing experts, the second layer, results.
PHASES = ["machines of the ranks", "the next sequences (sizes)", "pass 1", "layer 1 counts",
          "layer 1 lists", "layer 1 chunk 0 dispatch", "layer 1 chunk 0 combine",
          "layer 2 chunk 0 dispatch", "choices (sizes)"]


class Failures(FailureTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, how, phase, timeout_ms=TIMEOUT_MS):
        return super().start(MPIEXEC, "-n", "4", PROGRAM, how, phase, str(FAILING_RANK),
                             str(timeout_ms), str(small_model.TINY_MODEL), "trace.safetensors",
                             cwd=self.folder)

    def check_end(self, run):
        super().check_end(run)
        self.assertEqual(list(self.folder.iterdir()), [], "a partial output is left")

    def check_waited(self, run, phase, why):
        if phase == "the next sequences (sizes)":  # which rank 0 has sent, and all pass on
            phase = "pass 0"
        super().check_waited(run, FAILING_RANK, phase.replace("(", r"\(").replace(")", r"\)"), why)

    def test_nothing_is_said_when_nothing_fails(self):
        run = self.start("none", "")
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(run.output, "all done\n")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["trace.safetensors"])

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

    def test_control_c_ends_all(self):
        run = self.start("stop", "layer 1 lists", 1000 * HANG_S)
        run.read_until("failing now")
        os.killpg(run.process.pid, signal.SIGINT)
        self.check_end(run)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
