"""What the tests of the c2r program share. Each is run as  X_test.py C2R    C2R: the program
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import small_model

C2R = str(pathlib.Path(sys.argv.pop(1)).resolve())
IMPORT = ["import", "--from", "npy", "expert_ids.npy", "--num-experts", "8", "--model-name", "small"]


def unwrapped(text):
    """Text whose lines were broken to fit a terminal, in one line."""
    return " ".join(text.split())


class CommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        small_model.write_inputs(self.folder)

    def run_c2r(self, *words):
        return subprocess.run([C2R, *words], cwd=self.folder, text=True, errors="replace",
                              capture_output=True, timeout=240, check=False)

    def succeed(self, *words):
        """The output. A plan of few tokens is often no better than contiguous experts or says little about others."""
        done = self.run_c2r(*words)
        said = [line for line in done.stderr.splitlines()
                if words[0] != "plan" or not re.search(" on the reported tokens|the load of a rank is known to", line)]
        self.assertEqual((done.returncode, said), (0, []), done.stdout)
        return done.stdout

    def fails_with(self, status, message, *words):
        done = self.run_c2r(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (status, "", message + "\n"))

    def make_trace(self):
        self.succeed(*IMPORT, "--sequences", "sequences.csv", "-o", "trace.safetensors")
