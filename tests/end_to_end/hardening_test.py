#!/usr/bin/env python3
"""The program is built as SECURITY.md says: what cmake/c2r_hardening.cmake asks for is in it.

  hardening_test.py C2R
"""
import re
import subprocess
import sys
import unittest

C2R = sys.argv.pop(1)


def readelf(*options):
    return subprocess.run(["readelf", "--wide", *options, C2R], capture_output=True, text=True, check=True).stdout


class Hardening(unittest.TestCase):
    def test_addresses_of_functions_are_read_only(self):
        self.assertIn("GNU_RELRO", readelf("--program-headers"))
        self.assertRegex(readelf("--dynamic"), r"\(FLAGS(_1)?\).*\b(BIND_)?NOW\b")

    def test_memory_is_checked(self):
        called = set(re.findall(r" UND (\w+)", readelf("--dyn-syms")))
        self.assertIn("__stack_chk_fail", called, "no stack protector")
        self.assertTrue([name for name in called if re.fullmatch(r"__\w+_chk", name)], "no _FORTIFY_SOURCE")
        self.assertTrue([name for name in called if "__glibcxx_assert_fail" in name], "no _GLIBCXX_ASSERTIONS")


if __name__ == "__main__":
    unittest.main(verbosity=2)
