#!/usr/bin/env python3
"""A model runs on four ranks and one fails as a random script says: the run ends as the table of outcomes allows.

  random_failures_test.py MPIEXEC FAILING_MODEL    FAILING_MODEL: the program of failing_model.cc

A script says how which rank fails, and where: before an exchange of the run, or after some time, wherever the rank is
then. A third of the times are within the first half second, while MPI starts.
"""
import dataclasses
import pathlib
import random
import re
import signal
import tempfile
import unittest

import small_model
from failing_runs import INTERRUPTED, IS_MPICH, NUM_RANKS, OF_STOPPED, FailingRuns

SEED = 21
NUM_SCRIPTS = 30
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclasses.dataclass(frozen=True)
class Script:
    how: str  # throw, kill (SIGKILL), stop (SIGSTOP)
    rank: int
    label: str = ""  # of the exchange that the rank does not start; empty = at a time
    after_s: float = 0


# What our ranks may say, by how one of them fails, and whether one of them must say something if it fails before an
# exchange. The status of mpirun is never 0 then.
ALLOWED = {
    "throw": ((r"rank {rank}: the shard is lost$", INTERRUPTED), True),
    # Before a rank waits, and under MPICH always, mpirun ends it without a word.
    "kill": ((r"rank \d+: .*",), False),
    "stop": (OF_STOPPED, True),
}


def random_scripts(labels_of_rank, seed=SEED, num_scripts=NUM_SCRIPTS):
    """`labels_of_rank`: the exchanges that each rank starts, in their order."""
    rng = random.Random(seed)
    scripts = []
    for number in range(num_scripts):
        rank = rng.randrange(NUM_RANKS)
        if number % 3 == 0:
            limit = 0.5 if number % 9 == 0 else 2.0
            scripts.append(Script(rng.choice(["kill", "stop"]), rank, after_s=round(rng.uniform(0, limit), 3)))
        else:
            how = rng.choice(["throw", "kill", "stop"])
            scripts.append(Script(how, rank, label=rng.choice(labels_of_rank[rank])))
    return scripts


class RandomFailures(FailingRuns, unittest.TestCase):
    arguments = [str(small_model.TINY_MODEL), "trace.safetensors"]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def labels(self, rank):
        run = self.start("list", "", rank=rank)
        self.assertEqual(run.finish(), 0, run.output)
        (self.folder / "trace.safetensors").unlink()
        return [line for line in run.output.splitlines() if line != "all done"]

    def check_outcome(self, run, script):
        if self.end_of(run) == 0:  # the rank had ended when the time came
            self.assertEqual((script.label, run.output.splitlines()[-1]), ("", "all done"))
        self.check_no_rank_is_left(run)
        if run.process.returncode == 0:
            return
        patterns, is_told = ALLOWED[script.how]
        patterns = [pattern.replace("{rank}", str(script.rank)) for pattern in patterns]
        said = re.findall(r"^\w+: ((?:rank \d+|MPI has not).*)$", run.output, re.M)
        for line in said:
            self.assertTrue(any(re.match(pattern, line) for pattern in patterns), run.output)
        if is_told and script.label and not IS_MPICH:  # a rank that waits in MPI_Finalize() is silent
            self.assertTrue(said, run.output)
        if script.how == "throw":  # its own line comes through under any launcher
            self.assertIn(f"rank {script.rank}: the shard is lost", said)
        partial = [path.name for path in self.folder.iterdir() if path.name != "trace.safetensors"]
        self.assertEqual(partial, [], "a partial output is left")

    def test_scripts(self):
        labels_of_rank = [self.labels(rank) for rank in range(NUM_RANKS)]
        for script in random_scripts(labels_of_rank):
            with self.subTest(script=script):
                (self.folder / "trace.safetensors").unlink(missing_ok=True)
                if script.label:
                    self.check_outcome(self.start(script.how, script.label, rank=script.rank), script)
                    continue
                run = self.start("none", "", rank=script.rank)
                self.signal_after(run, script.rank, script.after_s, SIGNALS[script.how])
                was_let_go = script.how == "stop" and self.let_go_after_the_end(run, script.rank)
                self.check_outcome(run, script)
                if was_let_go:
                    self.assertIn("all done", run.output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
