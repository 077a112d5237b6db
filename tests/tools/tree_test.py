#!/usr/bin/env python3
"""Rules about files that a reader of the tree can rely on: how they open, how long they are, and how many
stand in a folder."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("c2r", "cmake", "examples", "tests", "tools")
MOST_LINES = 420
MOST_FILES = 30  # of a folder of c2r/, without tests and benchmarks
TEST = re.compile(r"_(test|bench)\.cc$|_test\.py$|testing\w*\.h$")
OPENING = {  # suffix -> how the first lines look
    ".cc": r"// \S", ".h": r"// \S", ".cmake": r"# \S",
    ".py": r'(#!.*\n)?"""\S', ".sh": r"#!.*\n# \S",
}


def files():
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")
             if path.is_file() and "__pycache__" not in path.parts]
    assert len(found) > 300, f"only {len(found)} files below {ROOT}"
    return sorted(found)


class Tree(unittest.TestCase):
    def test_a_source_opens_with_a_sentence_that_says_what_it_is_for(self):
        silent = [str(path.relative_to(ROOT)) for path in files() if path.suffix in OPENING
                  and path.stat().st_size > 0 and not re.match(OPENING[path.suffix], path.read_text())]
        self.assertEqual(silent, [])

    def test_a_file_can_be_read_at_once(self):
        num_lines = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n")
                     for path in files() if path.suffix in OPENING}
        self.assertEqual({name: lines for name, lines in num_lines.items() if lines > MOST_LINES}, {})

    def test_a_folder_has_few_files(self):
        folders = {}
        for path in (ROOT / "c2r").rglob("*.*"):
            if path.suffix in OPENING and not TEST.search(path.name):
                folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path.name)
        crowded = {folder: len(names) for folder, names in folders.items() if len(names) > MOST_FILES}
        self.assertEqual(crowded, {})


if __name__ == "__main__":
    unittest.main(verbosity=2)
