#!/usr/bin/env python3
"""Documents that lie are bugs: every path that they name exists, every command in them works.

  documents_test.py C2R [MPIEXEC]    C2R: the program built from this tree

Paths are relative links and `code` that looks like a path of this tree. Commands are the lines of
```sh blocks: `make X` must be a target; lines that start with c2r are run, in order, in a folder that
holds the small model's files, and so are those of c2r under mpirun where there is an MPI. Text after #
is a comment. Commands in indented blocks need files or machines that are not here: paths of this tree in
them must exist, and commands and options of c2r must be those of its help.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))
import small_model  # noqa: E402

C2R = pathlib.Path(sys.argv.pop(1)).resolve()
MPIEXEC = sys.argv.pop(1) if len(sys.argv) > 1 and "/" in sys.argv[1] else None
# The changelog names what is no longer there.
DOCUMENTS = sorted([*(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("training/*.md"),
                    *ROOT.glob("models/*/README.md")])
LAUNCHERS = ("mpirun", "mpiexec")
TOP_LEVEL = {path.name for path in ROOT.iterdir()}


def named_paths(text):
    """(path, line number) of each link and each path-like `code`, outside of fenced blocks."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    for number, line in enumerate(text.splitlines(), 1):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line):
            yield target, number, True
        for code in re.findall(r"`([A-Za-z0-9_.][A-Za-z0-9_./*{},-]*)`", line):
            first = code.split("/")[0]
            if first in TOP_LEVEL and not code.startswith("build/"):
                yield code, number, False


def shell_lines(text):
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split(" #")[0].strip()
            if line and not line.startswith("#"):
                yield line


def indented_commands(text):
    """The words of each command in a block that is indented, not fenced."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S).replace("\\\n", " ")
    for line in re.findall(r"^ {4}(\S.*)$", text, re.M):
        words = line.split(" #")[0].split()
        in_tree = words[0].split("/")[0] in TOP_LEVEL | {"build"} and "/" in words[0]
        if in_tree or words[0] in ("c2r", "python3", *LAUNCHERS):
            yield words


def table_rows(text, header):
    """The cells of each row of the table that begins with this header."""
    table = text[text.index(header):].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_sources():
    """The text of each test, by its name: Suite.Name, or FILE::NAME of an unittest."""
    sources = {}
    for path in ROOT.glob("c2r/**/*_test.cc"):
        for suite, name, body in re.findall(r"^TEST\((\w+), (\w+)\) (.*?)^}", path.read_text(), re.M | re.S):
            sources[f"{suite}.{name}"] = body
    for path in ROOT.glob("tests/end_to_end/*_test.py"):
        for name, body in re.findall(r"^    def (test_\w+)(.*?)(?=^    def |\Z)", path.read_text(), re.M | re.S):
            sources[f"{path.name}::{name}"] = body
    return sources


def imports_by(format_name, source):
    """Whether a test's file names the format, or the engine's file that it is made of."""
    return f'"{format_name}"' in source or f'"{format_name.removesuffix("-placement")}"' in source


def expand(pattern):
    match = re.search(r"\{([^}]*)\}", pattern)
    if not match:
        return [pattern]
    return [p for part in match[1].split(",")
            for p in expand(pattern[:match.start()] + part + pattern[match.end():])]


class Documents(unittest.TestCase):
    def test_name_paths_that_exist(self):
        num_paths = 0
        for document in DOCUMENTS:
            for path, number, is_link in named_paths(document.read_text()):
                base = document.parent if is_link else ROOT
                for one in expand(path):
                    num_paths += 1
                    self.assertTrue(list(base.glob(one)) if "*" in one else (base / one).exists(),
                                    f"{document.relative_to(ROOT)}:{number} names {one}")
        self.assertGreater(num_paths, 20)

    def test_show_commands_that_work(self):
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        num_commands = 0
        for document in DOCUMENTS:
            with tempfile.TemporaryDirectory() as folder:
                small_model.write_inputs(pathlib.Path(folder))
                for name in ("models", "docs", "README.md"):  # as in the tree, where nothing is to be written
                    (pathlib.Path(folder) / name).symlink_to(ROOT / name)
                (pathlib.Path(folder) / "build").mkdir()
                for line in shell_lines(document.read_text()):
                    with self.subTest(document=document.name, line=line):
                        num_commands += self.check_command(line, targets, folder)
        self.assertGreater(num_commands, 5)

    def test_show_the_python_programs_of_examples(self):
        for document, example in [("python.md", "plan_in_python.py"), ("huggingface.md", "constrain_model.py")]:
            shown = re.search(r"^```python\n(.*?)^```", (ROOT / "docs" / document).read_text(), re.M | re.S)[1]
            program = (ROOT / "examples" / example).read_text()
            self.assertEqual(program.split('"""\n\n', 1)[1], shown, f"{document} and {example} differ")

    def test_name_in_indented_commands_what_exists(self):
        num_commands = 0
        for document in DOCUMENTS:
            for words in indented_commands(document.read_text()):
                with self.subTest(document=document.name, words=words):
                    num_commands += 1
                    self.check_words(words)
        self.assertGreater(num_commands, 10)

    def test_name_a_test_of_every_format_that_is_read(self):
        """docs/formats.md has a row for each format, and each row a test that imports by a format of the row."""
        usage = subprocess.run([C2R, "help", "import"], text=True, capture_output=True, timeout=60, check=True).stdout
        formats = set(re.findall(r"^  ([a-z][a-z0-9-]*) {2,}\S", usage[usage.index("Formats that"):], re.M))
        tests = test_sources()
        named = set()
        for row in table_rows((ROOT / "docs" / "formats.md").read_text(), "| engine | version read |"):
            with self.subTest(row=row[0]):
                self.assertIn(row[6], ("source", "own code"))
                of_row = set(re.findall(r"`([a-z0-9-]+)`", row[4])) & formats
                self.assertTrue(of_row, "names no format")
                named |= of_row
                of_tests = re.findall(r"`([A-Za-z0-9_.:]+)`", row[7])
                self.assertTrue(of_tests, "names no test")
                missing = [test for test in of_tests if test not in tests]
                self.assertEqual(missing, [])
                for one in of_row:
                    self.assertTrue(any(imports_by(one, tests[test]) for test in of_tests),
                                    f"none of its tests imports by {one}")
        self.assertEqual(named, formats - {"permutation-placement"})  # c2r's own file

    def check_words(self, words):
        for word in words:
            if "/" in word and word.split("/")[0] in TOP_LEVEL - {"build"}:
                self.assertTrue((ROOT / word).exists(), f"{word} does not exist")
        if words[:2] == ["python3", "-m"]:
            self.assertTrue((ROOT / (words[2].replace(".", "/") + ".py")).exists(), words[2])
        programs = [at for at, word in enumerate(words) if word in ("c2r", "build/release/c2r")]
        if not programs or (programs[0] > 0 and words[0] not in LAUNCHERS):
            return
        command, *rest = words[programs[0] + 1:]
        done = subprocess.run([C2R, "help", command], text=True, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for option in (word.split("=")[0] for word in rest if re.match("-[-a-z]", word)):
            self.assertRegex(done.stdout, rf"(^|[\s,]){option}[\s,]")

    def check_command(self, line, targets, folder):
        words = shlex.split(line)
        if words[0] == "make":
            for target in (w for w in words[1:] if "=" not in w):
                self.assertIn(target, targets)
            return 1
        if words[0].startswith(("tools/", "build/release/")):
            path = ROOT / words[0] if words[0].startswith("tools/") else C2R.parent / words[0][14:]
            self.assertTrue(path.exists(), f"{words[0]} does not exist")
            return 1
        if words[:2] == ["python3", "-m"]:
            for path in [words[2].replace(".", "/") + ".py", *(w for w in words if w.endswith(".toml"))]:
                self.assertTrue((ROOT / path).exists(), f"{path} does not exist")
            return 1
        if words[0] == "mpirun" and "c2r" in words and MPIEXEC:
            line = line.replace("mpirun", MPIEXEC, 1)
        elif words[0] != "c2r":
            return 0
        environment = {**os.environ, "PATH": f"{C2R.parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, text=True,
                              env=environment, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")
        return 1


if __name__ == "__main__":
    unittest.main(verbosity=2)
