#!/usr/bin/env python3
"""c2r where threads cannot be started."""
import subprocess
import sys
import unittest

from command_line import C2R, CommandLine


def run_within(kilobytes, words, **options):
    """With stacks so large that starting a thread fails while there is memory for what runs."""
    limits = f"ulimit -s {kilobytes // 4}; ulimit -v {kilobytes}"
    return subprocess.run(["bash", "-c", f"{limits}; {C2R} {words}"], text=True, capture_output=True,
                          timeout=60, check=False, **options)


class Threads(CommandLine):
    def test_those_that_cannot_be_started_are_a_failure(self):
        for kilobytes, words in ((3_000_000, "score model --text text.txt --threads 1024"),
                                 (1_000_000, "bench exchange deepseek-v3 --ranks 256 --tokens 1 --rounds 1")):
            done = run_within(kilobytes, words, cwd=self.folder)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"\Ac2r \w+: (.*cannot start .*thread.*|out of memory)\n\Z")


if __name__ == "__main__":
    if run_within(3_000_000, "--version").returncode != 0:
        print("skipped: built with a sanitizer, which needs all of the address space")
        sys.exit(77)
    unittest.main(verbosity=2)
