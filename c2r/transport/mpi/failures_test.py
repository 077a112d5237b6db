#!/usr/bin/env python3
"""Runs in which a rank throws, dies, stops or leaves, in each phase: all ranks end, and say why.

  failures_test.py MPIEXEC FAILING_RANK    FAILING_RANK: the program built from failing_rank_test.cc
"""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "end_to_end"))
from failing_runs import IS_MPICH, FailureTests  # noqa: E402


class Failures(FailureTests, unittest.TestCase):
    phases = ["layer 0 counts", "layer 1 dispatch", "layer 2 combine", "end"]
    phase_of_control_c = "layer 1 dispatch"

    def label_of(self, phase):
        return "end of the run" if phase == "end" else phase

    def test_nothing_is_said_when_nothing_fails(self):
        run = self.start("none", "")
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(run.output, "all layers done\n")

    def test_a_rank_stops_before_mpi_has_started(self):
        run = self.start("stop", "start")
        self.check_end(run)
        self.assertIn("failing_rank: MPI has not started within 10000 ms: a rank has stopped, or its machine cannot "
                      "be reached\n", run.output)

    def test_a_rank_ends_before_mpi_has_started(self):
        for how in ("kill", "leave"):
            with self.subTest(how=how):
                self.check_end(self.start(how, "start"))

    def test_a_rank_leaves(self):
        run = self.start("leave", "layer 1 dispatch")
        self.check_end(run)
        if not IS_MPICH:
            self.check_waited(run, "layer 1 dispatch", "interrupted")


if __name__ == "__main__":
    unittest.main(verbosity=2)
