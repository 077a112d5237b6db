#!/usr/bin/env python3
"""The programs of examples/ build against an installed c2r, run, and are what the documents show.

  examples_test.py WORK CXX C2R [MPIEXEC]    WORK/prefix: an installed c2r, CXX: its compiler,
                                             C2R: its program
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))
import small_model  # noqa: E402

WORK, CXX = pathlib.Path(sys.argv.pop(1)).resolve(), sys.argv.pop(1)
C2R = pathlib.Path(sys.argv.pop(1)).resolve()
MPIEXEC = sys.argv.pop(1) if len(sys.argv) > 1 and "/" in sys.argv[1] else None
BUILD = WORK / "examples"
EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines_of(text):
    """A text's lines without their indentation: a snippet is shown without that of its block."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        small_model.write_inputs(cls.folder)
        for command in (["cmake", "-S", EXAMPLES, "-B", BUILD, f"-DCMAKE_CXX_COMPILER={CXX}",
                         f"-DCMAKE_PREFIX_PATH={WORK / 'prefix'}"], ["cmake", "--build", BUILD]):
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  check=False)
            if done.returncode != 0:
                raise AssertionError(done.stdout)

    def run_command(self, *command, status=0):
        done = subprocess.run(command, cwd=self.folder, text=True, capture_output=True, timeout=120,
                              check=False)
        self.assertEqual(done.returncode, status, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def make_trace(self):
        self.run_command(C2R, "import", "--from", "npy", "expert_ids.npy", "--sequences", "sequences.csv",
                         "--num-experts", "8", "--model-name", "small", "-o", "trace.safetensors")

    def test_count_collaboration_says_what_analyze_says(self):
        self.make_trace()
        said = self.run_command(BUILD / "count_collaboration", "trace.safetensors")
        self.assertRegex(said, r"^an expert works with [3-5]\.\d others\n$")
        missing = self.run_command(BUILD / "count_collaboration", "absent.safetensors", status=1)
        self.assertIn("absent.safetensors", missing)

    def test_expert_parallel_gives_each_token_its_sum_on_four_ranks(self):
        ranks = [MPIEXEC, "-n", "4"] if MPIEXEC else []
        said = self.run_command(*ranks, BUILD / "expert_parallel").splitlines()
        self.assertEqual(len(said), 4, said)
        for rank, line in enumerate(sorted(said)):
            self.assertIn(f"rank {rank}: 7.5 (expected 7.5), ", line)

    def test_score_on_ranks_says_on_any_ranks_what_the_program_says(self):
        self.assertIn("absent", self.run_command(BUILD / "score_on_ranks", "absent", "t.jsonl", "2", status=1))
        rows = [list(range(1, n)) for n in (40, 2, 7, 1, 23)]
        (self.folder / "t.jsonl").write_text("".join(f"{row}\n" for row in rows))
        said = self.run_command(C2R, "score", "tiny_model", "--tokens", "t.jsonl", "--dtype", "f32", "--window",
                                "128")
        self.assertRegex(said, r"^log-likelihood -\d+\.\d+ of \d+ tokens")
        ranks = [(BUILD / "score_on_ranks", "tiny_model", "t.jsonl", n) for n in ("1", "3")]
        if MPIEXEC:
            ranks += [(MPIEXEC, "-n", "4", BUILD / "score_on_ranks", "tiny_model", "t.jsonl")]
        for command in ranks:
            with self.subTest(command=command):
                self.assertEqual(self.run_command(*command), said)

    def test_plan_from_arrays_gives_what_the_program_gives(self):
        self.make_trace()
        self.run_command(C2R, "plan", "trace.safetensors", "--cluster", "1x8", "-o", "program.json")
        self.run_command(BUILD / "plan_from_arrays", "trace.safetensors", "arrays.json")
        plans = [json.loads((self.folder / name).read_text()) for name in ("program.json", "arrays.json")]
        self.assertEqual([plan["provenance"]["inputs"][0].pop("name") for plan in plans],
                         ["trace.safetensors", "memory"])
        for plan in plans:
            plan["provenance"]["inputs"][0].pop("hash")
            for prediction in plan["predictions"]:
                prediction.pop("trace")
        self.assertEqual(*plans)

    def test_compare_plans_says_what_compare_says(self):
        self.make_trace()
        said = self.run_command(BUILD / "compare_plans", "trace.safetensors")
        self.run_command(C2R, "plan", "trace.safetensors", "--cluster", "1x4", "--fit", "even", "-o", "p.json")
        table = self.run_command(C2R, "compare", "trace.safetensors", "p.json", "--on", "odd",
                                 "--baselines", "contiguous,eplb")
        rows = re.findall(r"^(contiguous|eplb|p\.json) +([0-9.]+) +[0-9.]+ +[0-9.-]+ % ", table, re.M)
        self.assertEqual(len(rows), 3, table)
        self.assertEqual(said.replace("plan ", "p.json "),
                         "".join(f"{name} {copies}\n" for name, copies in rows))

    def test_route_with_c2r_keeps_to_the_lists(self):
        self.make_trace()
        self.run_command(C2R, "plan", "trace.safetensors", "--cluster", "1x4", "--top-t", "3", "-o", "p.json")
        lists = json.loads((self.folder / "p.json").read_text())["layers"][0]["collaborators"]
        said = self.run_command(BUILD / "route_with_c2r", "p.json")
        tokens = [[int(e) for e in line.split()] for line in said.splitlines()]
        self.assertEqual([token[0] for token in tokens], list(range(8)))
        for token in tokens:  # the others are the highest ids among the lists of the first
            best = sorted(lists[token[0]], reverse=True)
            self.assertEqual(token[1:], best[:len(token) - 1])
        self.assertIn("make it with --top-t", self.run_command(
            C2R, "plan", "trace.safetensors", "--cluster", "1x4", "-o", "p.json") and self.run_command(
            BUILD / "route_with_c2r", "p.json", status=1))

    def test_snippets_of_documents_are_lines_of_a_program(self):
        programs = [lines_of(path.read_text()) for path in
                    [*EXAMPLES.iterdir(), *ROOT.glob("tests/consumer/**/CMakeLists.txt")]]
        num_snippets = 0
        for document in DOCUMENTS:
            text = document.read_text()
            for snippet in re.findall(r"^```(?:cpp|cmake)\n(.*?)^```", text, re.M | re.S):
                for part in snippet.split("\n\n"):
                    num_snippets += 1
                    self.assertTrue(any(lines_of(part) in program for program in programs),
                                    f"{document.name} shows what is in no program:\n{part}")
        self.assertGreater(num_snippets, 1)

    def test_every_program_is_shown_built_and_tested(self):
        library, this = (ROOT / "docs" / "library.md").read_text(), pathlib.Path(__file__).read_text()
        for path in EXAMPLES.glob("*.cc"):
            self.assertIn(f"examples/{path.name}", library)
            self.assertTrue((BUILD / path.stem).exists(), f"{path.name} is not built")
            self.assertIn(f'"{path.stem}"', this)


if __name__ == "__main__":
    unittest.main(verbosity=2)
