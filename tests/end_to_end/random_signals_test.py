#!/usr/bin/env python3
"""c2r runs on four ranks and one gets a signal at a random time: all others end, and nothing is left.

  random_signals_test.py MPIEXEC C2R [NUM_SIGNALS]

A third of the times are before the ranks run, while MPI starts. C2R is c2r profile, on which rank 0 writes a file. Each rank
is run by a shell that notes the rank's exit status.
"""
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
import unittest

NUM_SIGNALS = int(sys.argv.pop(3)) if len(sys.argv) > 3 else 30
import small_model  # noqa: E402
from failing_runs import (  # noqa: E402
    HANG_S, INTERRUPTED, IS_MPICH, MPIEXEC, NUM_RANKS, OF_STOPPED, PROGRAM, FailingRuns, Run)

SEED = 60
SIGNALS = ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT", "SIGHUP")
# Starting has its own timeout, and machines are busy.
TIMEOUT_S, START_S, SLACK_S = 2, 10, 15
OUTPUT = "trace.safetensors"
# The shell outlives signals that the launcher sends to both of them, and ends as the rank did. If it is killed, there is
# no status. Itself it says nothing.
NOTE_STATUS = """
exec 3>&2 2>/dev/null
trap : TERM INT HUP
"$@" 2>&3
status=$?
echo $status > status.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
trap - TERM INT HUP
[ $status -le 128 ] || kill -$((status - 128)) $$
exit $status
"""
# What may come after our line: a word of a shell around a rank, and warnings of libevent in mpirun about a descriptor that
# was closed when a rank ended.
AFTER_OURS = (r"Terminated$", r"\[warn\] Epoll (ADD|MOD|DEL)\(\d+\) on fd \d+ failed\. ", r"\[warn\] epoll_wait: ",
               r"\[warn\] event_del: ")
OURS = re.compile(r"^c2r: ((?:rank \d+|MPI has not).*)$", re.M)
# What our ranks may say. A rank that is killed ends the others at whatever they do.
ALLOWED = {"SIGSTOP": OF_STOPPED, "SIGKILL": (r"rank \d+: ",), "SIGHUP": (r"rank \d+: ",)}


@dataclasses.dataclass(frozen=True)
class Script:
    name: str
    rank: int
    is_at_start: bool
    share: float  # of the time that ranks need to start, or else that they run


def random_scripts(num_scripts, seed=SEED):
    rng = random.Random(seed)
    return [Script(rng.choice(SIGNALS), rng.randrange(NUM_RANKS), number % 3 == 0, round(rng.random(), 3))
            for number in range(num_scripts)]


def write_tokens(path):
    """200 sequences: some two seconds of four ranks on two cores, of which most are waiting."""
    rows = [[(t * 11 + row) % 60 for t in range(7 * (row % 5 + 1))] for row in range(200)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class RandomSignals(FailingRuns, unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        write_tokens(self.folder / "tokens.jsonl")

    def start_c2r(self):
        for path in self.folder.glob("status.*"):
            path.unlink()
        (self.folder / OUTPUT).unlink(missing_ok=True)
        quiet = [] if IS_MPICH else ["-q"]
        run = Run(MPIEXEC, *quiet, "-n", str(NUM_RANKS), "sh", "-c", NOTE_STATUS, "sh", PROGRAM, "profile",
                  str(small_model.TINY_MODEL), "--tokens", "tokens.jsonl", "-o", OUTPUT, "--timeout",
                  str(TIMEOUT_S), cwd=self.folder)
        self.addCleanup(run.stop)
        return run

    def durations(self):
        """Seconds until the ranks run, and then until the end."""
        begin = time.monotonic()
        run = self.start_c2r()
        run.read_until("c2r profile: there is no plan, so experts are placed contiguously")
        started = time.monotonic()
        self.assertEqual(run.finish(), 0, run.output)
        self.assertEqual(self.statuses(), {rank: 0 for rank in range(NUM_RANKS)})
        return started - begin, time.monotonic() - started

    def statuses(self):
        return {int(path.suffix[1:]): int(path.read_text()) for path in self.folder.glob("status.*")}

    def check_ranks(self, run, script, sent_at):
        """No rank ends well, unless all had done their work before, and none ends late."""
        others = {rank: status for rank, status in self.statuses().items() if rank != script.rank}
        if not (self.folder / OUTPUT).exists():
            self.assertNotEqual(run.process.returncode, 0, run.output)
            self.assertNotIn(0, others.values(), run.output)
        for rank in others:
            ended_at = (self.folder / f"status.{rank}").stat().st_mtime
            self.assertLess(ended_at - sent_at, START_S + TIMEOUT_S + SLACK_S, run.output)

    def check_words(self, run, script):
        said = OURS.findall(run.output)
        for line in said:
            allowed = ALLOWED.get(script.name, (INTERRUPTED,))
            self.assertTrue(any(re.match(pattern, line) for pattern in allowed), run.output)
        has_ended = (self.folder / OUTPUT).exists()
        if script.name == "SIGSTOP" and not has_ended:
            self.assertTrue(said, run.output)
        if said and not IS_MPICH:  # MPICH's mpirun always adds a paragraph
            lines = [line for line in run.output.splitlines()
                     if not any(re.match(pattern, line) for pattern in AFTER_OURS)]
            self.assertRegex(lines[-1], OURS)

    def check_files(self, run):
        """A rank that was killed by SIGKILL cannot remove what it was writing; the next run does."""
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith("status.")}
        left = names - {"tokens.jsonl", OUTPUT}
        was_killed = self.statuses().get(0, 128 + signal.SIGKILL) == 128 + signal.SIGKILL
        if left and was_killed:
            self.assertEqual(len(left), 1)
            self.assertRegex(left.pop(), rf"\.{OUTPUT}\.\d+\.\d+\.tmp")
        self.assertEqual(left, set(), run.output)

    def check(self, script, after_s):
        run = self.start_c2r()
        was_sent = self.signal_after(run, script.rank, after_s, getattr(signal, script.name))
        sent_at = time.time()
        if script.name == "SIGSTOP" and self.let_go_after_the_end(run, script.rank):
            self.assertTrue((self.folder / OUTPUT).exists(), run.output)
        status = self.end_of(run)
        self.check_no_rank_is_left(run)
        if was_sent:
            self.check_ranks(run, script, sent_at)
            self.check_words(run, script)
        else:
            self.assertEqual(status, 0, run.output)
        self.check_files(run)
        return was_sent

    def test_signals(self):
        start_s, run_s = self.durations()
        num_sent = 0
        for script in random_scripts(NUM_SIGNALS):
            with self.subTest(script=script):
                after_s = script.share * start_s if script.is_at_start else start_s + script.share * run_s
                num_sent += self.check(script, after_s)
        self.assertGreater(num_sent, NUM_SIGNALS // 2)  # the others came when their rank had ended
        self.durations()
        self.assertEqual({path.name for path in self.folder.iterdir() if "status" not in path.name},
                         {"tokens.jsonl", OUTPUT})


if __name__ == "__main__":
    unittest.main(verbosity=2)
