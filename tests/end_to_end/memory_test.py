#!/usr/bin/env python3
"""A file that needs more memory than is free is refused in one line, by a machine, or in a control group, with little.

  memory_test.py C2R    exits with 77 where a process cannot be shown another /proc and /sys
"""
import lzma
import os
import shutil
import subprocess
import sys
import unittest

from command_line import C2R, CommandLine

# Shows a process the files of "root" in the place of the machine's.
REPLACE = """mount --bind root/proc/meminfo /proc/meminfo && mount --bind root/proc/self/cgroup /proc/$$/cgroup &&
             mount --rbind root/sys/fs/cgroup /sys/fs/cgroup && exec "$@" """


def write_machine(folder, files):
    """A root with 64 GB of free memory, but for these files."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    of_machine = {"proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 64000000 kB\n", "proc/self/cgroup": "",
                  "sys/fs/cgroup/memory.stat": ""}
    for name, text in {**of_machine, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def run_on_machine(folder, *words):
    return subprocess.run(["unshare", "--mount", "sh", "-c", REPLACE, "sh", *words],
                          cwd=folder, text=True, capture_output=True, timeout=100, check=False)


def machine(megabytes):
    return {"proc/meminfo": f"MemTotal: 64000000 kB\nMemAvailable: {megabytes * 1000} kB\n"}


def group_of_version_1(megabytes):
    folder = "sys/fs/cgroup/memory/jobs/7"
    return {"proc/self/cgroup": "4:memory:/jobs/7\n0::/\n", f"{folder}/memory.limit_in_bytes": str(megabytes * 1_500_000),
            f"{folder}/memory.usage_in_bytes": str(megabytes * 500_000), f"{folder}/memory.stat": "total_cache 7\n"}


def group_of_version_2(megabytes):
    folder = "sys/fs/cgroup/jobs/7"
    return {"proc/self/cgroup": "0::/jobs/7\n", f"{folder}/memory.max": f"{megabytes * 1_500_000}\n",
            f"{folder}/memory.current": f"{megabytes * 500_000}\n", f"{folder}/memory.stat": "inactive_file 0\n"}


class Memory(CommandLine):
    def refuses(self, megabytes, name, message, forms=(machine,)):
        """Where so much memory is free; where ten times as much is, c2r says something else."""
        for form in forms:
            with self.subTest(name=name, form=form.__name__):
                write_machine(self.folder, form(megabytes))
                done = run_on_machine(self.folder, C2R, "inspect", name)
                self.assertEqual((done.returncode, done.stderr), (
                    1, f"c2r inspect: {name}: {message}, for which the memory that is free does not suffice\n"))
                write_machine(self.folder, form(10 * megabytes))
                self.assertNotIn("memory", run_on_machine(self.folder, C2R, "inspect", name).stderr)

    def test_values_of_json(self):
        (self.folder / "numbers.json").write_text("[" + "1," * 1_000_000 + "1]")
        self.refuses(40, "numbers.json", "JSON has more than 917504 values",
                     forms=(machine, group_of_version_1, group_of_version_2))

    def test_arrays_of_json(self):
        (self.folder / "arrays.json").write_text("[" + "[]," * 1_000_000 + "1]")
        self.refuses(90, "arrays.json", "JSON has more than 917504 arrays and objects")

    def test_strings_of_json(self):
        (self.folder / "strings.json").write_text("[" + '"",' * 1_000_000 + "1]")
        self.refuses(200, "strings.json", "JSON has more than 917504 strings and keys")

    def test_a_compressed_file(self):
        (self.folder / "zeros.json.xz").write_bytes(lzma.compress(bytes(60_000_000), preset=1))
        self.refuses(30, "zeros.json.xz", "holds more than 10 MB")

    def test_a_large_file(self):
        (self.folder / "plan.json").write_text("{")
        os.truncate(self.folder / "plan.json", 20_000_000)
        self.refuses(10, "plan.json", "has 20 MB")


def is_permitted():
    return subprocess.run(["unshare", "--mount", "sh", "-c",
                           "mount --bind /dev/null /proc/meminfo && mount --bind /dev/null /proc/$$/cgroup && "
                           "mount --bind /tmp /sys/fs/cgroup"], stderr=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    if not is_permitted():
        sys.exit(77)
    unittest.main(verbosity=2)
