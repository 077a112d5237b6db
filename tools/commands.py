"""What the steps of tools/check.py share: where the tree is, and how commands are run in it."""
import os
import pathlib
import subprocess
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
JOBS = str(len(os.sched_getaffinity(0)))


class StepFailed(Exception):
    pass


def run(*command, **options):
    """The output of a command in the tree. Raises StepFailed, with the output, if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        words = textwrap.shorten(" ".join(map(str, command)), 200)
        raise StepFailed(f"{done.stdout}\n{words}: exit {done.returncode}")
    return done.stdout


def tracked(*patterns):
    """The files of the tree, those that are not committed yet among them."""
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns)
    return [name for name in names.split() if (ROOT / name).exists()]
