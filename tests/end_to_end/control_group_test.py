#!/usr/bin/env python3
"""In a real control group, a file that needs more memory than the group leaves is refused, and nothing is killed.

  control_group_test.py C2R    exits with 77 where no group with a limit on memory can be made

memory_test.py has the same for made-up groups.
"""
import os
import pathlib
import subprocess
import sys
import unittest

from command_line import C2R, CommandLine

# The top of the hierarchy that has the memory controller, its name in /proc/self/cgroup, the file with the limit.
HIERARCHIES = [("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "", "memory.max")]


def make_group():
    """A new group below that of this process and its file with the limit; or why there is none."""
    why = "/proc/self/cgroup names none with the memory controller"
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        for top, controller, limit in HIERARCHIES:
            if controller not in controllers.split(","):
                continue
            group = pathlib.Path(top + own) / f"c2r-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                why = str(error)
                continue
            if (group / limit).exists():
                return group, group / limit
            group.rmdir()
            why = f"{group.parent} gives its groups no {limit}"
    sys.stderr.write(f"no control group: {why}\n")
    sys.exit(77)


class ControlGroup(CommandLine):
    def inspect(self, name, megabytes):
        LIMIT.write_text(str(megabytes * 1_000_000))
        return subprocess.run(["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', GROUP, C2R, "inspect", name],
                              cwd=self.folder, text=True, capture_output=True, timeout=100, check=False)

    def refuses(self, name, megabytes, message):
        done = self.inspect(name, megabytes)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, f"^c2r inspect: {name}: {message}, for which the memory that is free does not "
                                      "suffice\n$")
        self.assertNotIn("memory", self.inspect(name, 10 * megabytes).stderr)

    def test_values_of_json(self):
        (self.folder / "numbers.json").write_text("[" + "1," * 1_000_000 + "1]")
        self.refuses("numbers.json", 40, r"JSON has more than \d+ values")

    def test_a_large_file(self):
        (self.folder / "plan.json").write_text("{")
        os.truncate(self.folder / "plan.json", 20_000_000)
        self.refuses("plan.json", 16, "has 20 MB")


if __name__ == "__main__":
    GROUP, LIMIT = make_group()
    try:
        unittest.main(verbosity=2)
    finally:
        GROUP.rmdir()
