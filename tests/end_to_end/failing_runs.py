"""Runs of mpirun in which a rank goes wrong, and what must be true of how they end. Each is run as

  X_test.py MPIEXEC PROGRAM    PROGRAM: built from failing_rank_test.cc or failing_model.cc
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import uuid

NUM_RANKS, FAILING_RANK = 4, 2
TIMEOUT_MS = 1500
HANG_S = 60  # far above what a busy machine needs; a hang is a failure, being slow is not
MPIEXEC, PROGRAM = sys.argv.pop(1), str(pathlib.Path(sys.argv.pop(1)).resolve())
# MPICH's mpirun kills the other ranks before they can speak when one has died.
IS_MPICH = "HYDRA" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True,
                                     check=True).stdout


class Run:
    """A run of mpirun; its ranks carry a mark in their environment, by which they are found."""

    def __init__(self, *command, cwd=None):
        self.mark = str(uuid.uuid4())
        self.process = subprocess.Popen(
            # Without PMIx's shared memory, whose lock a killed process may leave locked, so that mpirun hangs.
            command, env={**os.environ, "C2R_FAILURES_TEST": self.mark, "PMIX_MCA_gds": "hash"}, text=True, cwd=cwd,
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

    def wait_for_ranks(self):
        """Returns when no process of the run is left, or after HANG_S."""
        deadline = time.monotonic() + HANG_S
        while self.ranks_left() and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self):
        for pid in self.ranks_left():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


def process_of(run, rank):
    """The process id of PROGRAM on a rank that mpirun has started; None if there is none yet, or none any more."""
    names = [f"{name}={rank}".encode() for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK")]
    for pid in run.ranks_left():
        try:
            variables = pathlib.Path("/proc", pid, "environ").read_bytes().split(b"\0")
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if program == PROGRAM and any(name in variables for name in names):
            return int(pid)
    return None


def is_stopped(pid):
    """Whether a process has been stopped by a signal."""
    try:
        return pathlib.Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:  # ended meanwhile
        return False


def waits_for_a_stopped_rank(run, rank):
    """Whether all other ranks have ended, while this one is stopped, for which mpirun waits without a limit."""
    pid = process_of(run, rank)
    others = [process_of(run, other) for other in range(NUM_RANKS) if other != rank]
    return pid is not None and is_stopped(pid) and others == [None] * len(others)


WAITED = r"rank \d+: [^:]+: nothing moved for \d+ ms while waiting for "
NOT_STARTED = r"MPI has not started within 10000 ms: "
INTERRUPTED = r"rank \d+: .*interrupted"
# What our ranks may say when another one stops.
OF_STOPPED = (WAITED, NOT_STARTED, INTERRUPTED, r"rank \d+: start of the run: not all ranks came")


class FailingRuns:
    """Starts PROGRAM on ranks of which one goes wrong as it is told. To be mixed into a TestCase."""
    arguments = []  # for PROGRAM, after those that say how to fail
    folder = None  # in which to run; None is the current one

    def signal_after(self, run, rank, after_s, number):
        """Sends the rank a signal when its time has come. Returns whether it had not ended by then."""
        begin = time.monotonic()
        while time.monotonic() - begin < after_s or process_of(run, rank) is None:
            if run.process.poll() is not None:
                return False
            time.sleep(0.005)
        pid = process_of(run, rank)
        try:
            if pid is not None:
                os.kill(pid, number)
        except ProcessLookupError:
            return False
        return pid is not None

    def let_go_after_the_end(self, run, rank):
        """Kills a rank that was stopped when the run had ended: nobody is left to notice, and mpirun waits for it.

        Returns whether it has. docs/running.md has the outcome in its table.
        """
        end = time.monotonic() + HANG_S
        while run.process.poll() is None and time.monotonic() < end:
            if waits_for_a_stopped_rank(run, rank):
                time.sleep(5)  # in which mpirun kills the rank if the others have failed
                if waits_for_a_stopped_rank(run, rank):
                    os.kill(process_of(run, rank), signal.SIGKILL)
                    return True
            time.sleep(0.2)
        return False

    def end_of(self, run):
        """The status of mpirun. Open MPI's can wait for itself for ever when all ranks have ended, which no rank can
        notice: docs/running.md has the outcome in its table. A rank that is left then is a failure.
        """
        try:
            return run.finish()
        except subprocess.TimeoutExpired:
            self.assertFalse(IS_MPICH)
            self.assertEqual(run.ranks_left(), [str(run.process.pid)])
            run.process.kill()
            return run.finish()

    def start(self, how, phase, timeout_ms=TIMEOUT_MS, rank=FAILING_RANK):
        run = Run(MPIEXEC, "-n", str(NUM_RANKS), PROGRAM, how, phase, str(rank), str(timeout_ms), *self.arguments,
                  cwd=self.folder)
        self.addCleanup(run.stop)
        return run

    def check_end(self, run):
        """It fails, and leaves no process behind."""
        self.assertNotEqual(run.finish(), 0, run.output)
        self.check_no_rank_is_left(run)

    def check_no_rank_is_left(self, run):
        run.wait_for_ranks()
        self.assertEqual(run.ranks_left(), [], run.output)


class FailureTests(FailingRuns):
    """Tests of PROGRAM, whose rank FAILING_RANK goes wrong as it is told, in each of `phases`.

    To be mixed into a TestCase: unittest would run one that is imported a second time.
    """
    phases = []
    phase_of_control_c = ""

    def label_of(self, phase):
        """What the other ranks call the phase that a rank does not reach."""
        return phase

    def check_waited(self, run, phase, why):
        """A rank other than the failing one said that it waited for that one in this phase."""
        line = (rf"rank (?!{FAILING_RANK}:)\d+: {re.escape(self.label_of(phase))}: {why} "
                rf"while waiting for .*rank {FAILING_RANK} \(")
        self.assertTrue(any(re.match(line, said) for said in run.lines_of_ranks()), run.output)

    def test_a_rank_throws(self):
        for phase in self.phases:
            with self.subTest(phase=phase):
                run = self.start("throw", phase)
                self.check_end(run)
                self.assertIn(f"rank {FAILING_RANK}: the shard is lost", run.lines_of_ranks())

    def test_a_rank_stops(self):
        for phase in self.phases:
            with self.subTest(phase=phase):
                run = self.start("stop", phase)
                self.check_end(run)
                self.check_waited(run, phase, f"nothing moved for {TIMEOUT_MS} ms")

    def test_a_rank_is_killed(self):
        for phase in self.phases:
            with self.subTest(phase=phase):
                run = self.start("kill", phase)
                self.check_end(run)
                if IS_MPICH:
                    self.assertIn("EXIT CODE: 9", run.output)
                else:
                    self.check_waited(run, phase, "interrupted")

    def test_control_c_ends_all(self):
        run = self.start("stop", self.phase_of_control_c, 1000 * HANG_S)
        run.read_until("failing now")
        os.killpg(run.process.pid, signal.SIGINT)
        self.check_end(run)
