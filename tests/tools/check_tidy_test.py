#!/usr/bin/env python3
"""clang-tidy reads again what has changed, and nothing else: the digests of tools/check_tidy.py."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_tidy  # noqa: E402

COMMAND = {"command": "c++ -DC2R_COMMIT=one -DA=1 -std=c++20 -c a.cc"}


class Digest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = check_tidy.ROOT = pathlib.Path(folder.name)
        (self.root / "c2r").mkdir()
        self.write("c2r/a.cc", '#include <vector>\n#include "c2r/a.h"\nint a;\n')
        self.write("c2r/a.h", '#include "c2r/b.h"\n')
        self.write("c2r/b.h", '#include "c2r/a.h"\nint b();\n')  # a cycle must not hang
        self.write("c2r/other.h", "int other();\n")
        self.before = self.digest()

    def write(self, name, text):
        (self.root / name).write_text(text)

    def digest(self, command=COMMAND["command"], rules="rules"):
        check_tidy.included.cache_clear()
        check_tidy.digest_of_text.cache_clear()
        return check_tidy.digest("c2r/a.cc", {"command": command}, rules)

    def test_stays_where_nothing_that_is_read_changes(self):
        self.write("c2r/other.h", "int changed();\n")
        self.assertEqual(self.digest(), self.before)
        self.assertEqual(self.digest(COMMAND["command"].replace("one", "two")), self.before)

    def test_changes_with_the_source_a_header_of_a_header_the_options_and_the_rules(self):
        self.assertNotEqual(self.digest(COMMAND["command"].replace("A=1", "A=2")), self.before)
        self.assertNotEqual(self.digest(rules="others"), self.before)
        self.write("c2r/b.h", "int changed();\n")
        changed = self.digest()
        self.assertNotEqual(changed, self.before)
        self.write("c2r/a.cc", '#include "c2r/a.h"\nint changed;\n')
        self.assertNotEqual(self.digest(), changed)


if __name__ == "__main__":
    unittest.main(verbosity=2)
