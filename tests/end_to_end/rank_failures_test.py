#!/usr/bin/env python3
"""A model runs on four ranks and one throws, dies or stops, in each phase: all end, and say why.

  rank_failures_test.py MPIEXEC FAILING_MODEL    FAILING_MODEL: the program of failing_model.cc
"""
import pathlib
import tempfile
import unittest

import small_model
from failing_runs import FailureTests


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

    def test_nothing_is_said_when_nothing_fails(self):
        run = self.start("none", "")
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(run.output, "all done\n")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["trace.safetensors"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
