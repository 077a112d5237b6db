#!/usr/bin/env python3
"""A model runs on four ranks and one throws, dies or stops, in each phase: all end, and say why.

  rank_failures_test.py MPIEXEC FAILING_MODEL    FAILING_MODEL: the program of failing_model.cc
"""
import os
import pathlib
import signal
import tempfile
import time
import unittest

import small_model
from failing_runs import FAILING_RANK, HANG_S, FailureTests, process_of, waits_for_a_stopped_rank


class Failures(FailureTests, unittest.TestCase):
    # The exchange that the rank does not start: machines, loading the model, rank 0's input, agreeing on a
    # pass, routing, telling who gets what, sending rows, computing experts, the second layer,
    # results.
    phases = ["machines of the ranks", "start of the run", "the next sequences (sizes)", "pass 1", "layer 1 counts",
              "layer 1 lists", "layer 1 chunk 0 dispatch", "layer 1 chunk 0 combine",
              "layer 2 chunk 0 dispatch", "choices (sizes)"]
    phase_of_control_c = "layer 1 lists"
    arguments = [str(small_model.TINY_MODEL), "trace.safetensors"]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def label_of(self, phase):
        if phase == "the next sequences (sizes)":  # which rank 0 has sent, and all pass on
            return "pass 0"
        return phase

    def check_end(self, run):
        super().check_end(run)
        self.assertEqual(list(self.folder.iterdir()), [], "a partial output is left")

    def test_a_rank_that_stops_when_mpi_has_ended_keeps_mpirun_waiting(self):
        """No rank is there any more to notice it; the results are complete."""
        run = self.start("stop", "after MPI")
        end = time.monotonic() + HANG_S
        while not waits_for_a_stopped_rank(run, FAILING_RANK) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        self.assertIsNone(run.process.poll())
        self.assertEqual([path.name for path in self.folder.iterdir()], ["trace.safetensors"])
        os.kill(process_of(run, FAILING_RANK), signal.SIGCONT)
        self.assertEqual(run.finish(), 0, run.output)
        self.assertIn("all done\n", run.output)

    def test_nothing_is_said_when_nothing_fails(self):
        run = self.start("none", "")
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(run.output, "all done\n")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["trace.safetensors"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
