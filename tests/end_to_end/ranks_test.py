#!/usr/bin/env python3
"""c2r profile, score and generate under mpirun give what one process gives.

  ranks_test.py C2R MPIEXEC
"""
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

MPIEXEC = sys.argv.pop(2)
import small_model  # noqa: E402
from command_line import C2R, CommandLine  # noqa: E402

EXACT = ["--dtype", "f32", "--copy-mode", "per-expert"]  # the order of sums of one process
MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
MEMORY = re.compile(r"rank (\d+): (\d+\.\d) MB resident, of which (\d+\.\d) MB are weights\n")
TRAFFIC = re.compile(
    r"(\d+) ranks: (?P<tokens>\d+) tokens in \d+\.\d\d s, (?P<speed>\d+\.\d) tokens/s\n"
    r"rows sent, per token and layer: (?P<rows>\d+\.\d{4}) kB(, (?P<inter>\d+\.\d{4}) of them between nodes)?; "
    r"(?P<predicted>.*)\n"
    r"most on a link, per token and layer: (?P<most>\d+\.\d{4}) kB from rank (\d+) to rank (\d+); lists and "
    r"agreements on all links: (?P<others>\d+\.\d{4}) kB\n")


class Ranks(CommandLine):
    def setUp(self):
        super().setUp()
        self.expected = json.loads((small_model.TINY_MODEL / "expected.json").read_text())["plain"]
        self.rows = [self.expected["prompt"], self.expected["greedy"], [5], [1, 2, 3]]
        (self.folder / "tokens.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in self.rows))

    def make_plan(self, cluster, *words):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "for_plan")
        self.succeed("plan", "for_plan", "--cluster", cluster, *words, "-o", "plan.json")

    def run_ranks(self, num_ranks, *words):
        return subprocess.run([MPIEXEC, "-n", str(num_ranks), C2R, *words], cwd=self.folder,
                              text=True, capture_output=True, timeout=120, check=False)

    def succeed_on(self, num_ranks, *words):
        done = self.run_ranks(num_ranks, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = "" if "--plan" in words else \
            f"c2r {words[0]}: there is no plan, so experts are placed contiguously\n"
        self.assertTrue(done.stderr.startswith(said), done.stderr)
        memory = MEMORY.findall(done.stderr)
        self.assertEqual([int(rank) for rank, _, _ in memory], list(range(num_ranks)))
        for _, resident, weights in memory:
            self.assertTrue(0 <= float(weights) < float(resident), done.stderr)
        if "--json" in words:
            self.assertIsNone(TRAFFIC.search(done.stderr))
            *lines, last = done.stdout.splitlines(keepends=True)
            self.run_of_ranks = json.loads(last)["run"]
            return "".join(lines)
        self.run_of_ranks = TRAFFIC.search(done.stderr)
        self.assertEqual(self.run_of_ranks[1], str(num_ranks), done.stderr)
        return done.stdout

    def fails_on(self, num_ranks, status, message, *words):
        """One line of ours; mpirun may add its own."""
        done = self.run_ranks(num_ranks, *words)
        ours = [line for line in done.stderr.splitlines() if line.startswith("c2r")]
        self.assertEqual((done.returncode, done.stdout, ours), (status, "", [message]), done.stderr)

    def test_one_process_says_that_it_places_no_experts(self):
        self.make_plan("1x2")
        score = ["score", "tiny_model", "--tokens", "tokens.jsonl"]
        done = self.run_c2r(*score, "--plan", "plan.json")
        self.assertEqual((done.returncode, done.stderr), (0,
            "c2r score: one process has all experts, so nothing of plan.json is used; --ranks or mpirun place "
            "experts\n"))
        self.assertEqual(done.stdout, self.succeed(*score))

    def test_a_placement_does_not_change_the_models_constraint(self):
        self.make_plan("1x2")
        score = ["score", "tiny_model", "--tokens", "tokens.jsonl", *EXACT]
        free = self.succeed(*score)
        self.succeed("collaborators", "for_plan", "--top-t", "3", "--config", "tiny_model/config.json", "-o",
                     "config_c2r.json")
        shutil.copy(self.folder / "config_c2r.json", self.folder / "tiny_model" / "config.json")
        constrained = self.succeed(*score)
        self.assertNotEqual(constrained, free)
        self.assertEqual(self.run_c2r(*score, "--plan", "plan.json").stdout, constrained)
        self.assertEqual(self.succeed_on(2, *score, "--plan", "plan.json"), constrained)
        self.run_c2r("plan", "for_plan", "--cluster", "1x2", "--top-t", "9", "-o", "plan.json")
        done = self.run_c2r(*score, "--plan", "plan.json")
        self.assertEqual((done.stdout, done.stderr.splitlines()), (free, [
            "c2r score: one process has all experts, so nothing but the collaborator lists of plan.json is used; "
            "--ranks or mpirun place experts",
            "c2r score: the collaborator lists of plan.json replace those of the model's config.json"]))

    def test_a_trace_is_the_same_file(self):
        words = ["profile", "tiny_model", "--tokens", "tokens.jsonl", "--window", "20", *EXACT]
        said = self.succeed(*words, "-o", "one")
        for num_ranks, chunks in (2, 3), (3, 1), (4, 2):
            self.assertEqual(self.succeed_on(num_ranks, *words, "--chunks", str(chunks), "-o", "many"),
                             said.replace("one", "many"))
            self.assertEqual((self.folder / "many").read_bytes(), (self.folder / "one").read_bytes())
        self.make_plan("1x3", "--redundant-slots", "2")
        self.succeed_on(3, *words, "--plan", "plan.json", "-o", "planned")
        self.assertEqual((self.folder / "planned").read_bytes(), (self.folder / "one").read_bytes())

    def test_scores_are_the_same_numbers(self):
        (self.folder / "pairs.jsonl").write_text("".join(
            json.dumps({"context": [1] * n, "continuation": [2, n]}) + "\n" for n in (3, 1, 9, 4, 2)))
        for words in ["--tokens", "tokens.jsonl", "--json"], ["--pairs", "pairs.jsonl", "--json"], \
                ["--tokens", "tokens.jsonl"]:
            words = ["score", "tiny_model", *EXACT, *words]
            self.assertEqual(self.succeed_on(3, *words), self.succeed(*words))

    def simulated_kilobytes(self, trace, hidden, *words):
        """Of a token and layer on the wire and between nodes, with rows of bf16; and what the plan predicts."""
        done = self.succeed("simulate", "plan.json", trace, "--json", *words)
        step = json.loads(done)["steps"][-1]
        plan = json.loads((self.folder / "plan.json").read_text())["predictions"][-1]
        columns = "wire_copies_per_token", "inter_node_copies_per_token"
        return [[4 * hidden * sum(source[column]) / len(source[column]) / 1e3 for column in columns]
                for source in (step, plan)]

    def test_a_run_sends_what_the_simulation_counts_and_says_what_the_plan_predicts(self):
        hidden = json.loads((self.folder / "tiny_model" / "config.json").read_text())["hidden_size"]
        for cluster in "1x2", "2x2":
            self.make_plan(cluster, "--redundant-slots", "1")
            num_ranks = math.prod(int(n) for n in cluster.split("x"))
            words = ["tiny_model", "--tokens", "tokens.jsonl", "--plan", "plan.json"]
            self.succeed_on(num_ranks, "profile", *words, "-o", "trace")
            run = self.run_of_ranks
            sent, predicted = self.simulated_kilobytes("trace", hidden, "--homes", "sequences")
            between = "" if cluster == "1x2" else f", {predicted[1]:.4f} of them between nodes"
            self.assertEqual(run["rows"], f"{sent[0]:.4f}")
            self.assertEqual(run["inter"], None if cluster == "1x2" else f"{sent[1]:.4f}")
            self.assertRegex(run["predicted"], rf"^predicted by the plan on for_plan, .*, homes uniform: "
                                               rf"{predicted[0]:.4f} kB{between}$")
            self.assertTrue(0 < float(run["most"]) <= float(run["rows"]))
            self.assertGreater(float(run["others"]), 0)

            self.succeed_on(num_ranks, "score", *words, "--json")
            run = self.run_of_ranks
            self.assertEqual(run["num_tokens"], sum(len(row) - 1 for row in self.rows))
            self.assertAlmostEqual(run["num_tokens"] / run["elapsed_s"], run["tokens_per_s"])
            visits = run["num_tokens"] * run["num_layers"]
            self.assertAlmostEqual(sum(run["row_bytes_per_token_and_layer"].values()) * visits,
                                   sum(map(sum, run["row_bytes"])))
            self.assertLess(sum(map(sum, run["row_bytes"])), sum(map(sum, run["sent_bytes"])))
            self.assertAlmostEqual(sum(run["predicted"]["row_bytes_per_token_and_layer"].values()), 1e3 * predicted[0])
            self.assertEqual([len(run["row_bytes"]), run["ep_size"]], [num_ranks, num_ranks])

    def test_a_way_of_sending_that_the_plan_does_not_predict_is_named(self):
        self.make_plan("1x2")
        words = ["score", "tiny_model", "--tokens", "tokens.jsonl", "--plan", "plan.json"]
        self.succeed_on(2, *words, "--copy-mode", "per-expert")
        self.assertEqual(self.run_of_ranks["predicted"], "no prediction of a plan for this way of sending")
        self.succeed_on(2, *words, "--copy-mode", "per-expert", "--json")
        self.assertIsNone(self.run_of_ranks["predicted"])

    def test_prompts_end_with_the_run(self):
        (self.folder / "prompts.jsonl").write_text("[1, 2, 3]\n[4]\n")
        words = ["generate", "tiny_model", "--prompts", "prompts.jsonl", "--max-new-tokens", "3", *EXACT]
        done = self.run_ranks(2, *words)
        *lines, last = done.stdout.splitlines(keepends=True)
        self.assertEqual("".join(lines), self.succeed(*words))
        self.assertEqual(json.loads(last)["run"]["num_tokens"], 3 + 1 + 2 * 2)  # the last ones are not run

    def test_greedy_text_is_the_same_in_every_mode(self):
        words = ["generate", "tiny_model", "--dtype", "f32", "--max-new-tokens", "64", "--tokens",
                 json.dumps(self.expected["prompt"])]
        self.make_plan("2x2", "--redundant-slots", "1")
        for mode in "per-expert", "per-rank", "per-node":
            text = self.succeed_on(4, *words, "--plan", "plan.json", "--copy-mode", mode)
            self.assertEqual([int(t) for t in text.split()], self.expected["greedy"])

    def test_text_of_a_trained_model_is_the_same(self):
        for model in "nano-qwen-moe", "nano-llama-moe":
            words = ["generate", str(MODELS / model), "--dtype", "f32", "--max-new-tokens", "64", "--prompt",
                     "The history of the city begins"]
            one = self.run_c2r(*words).stdout  # standard error names settings that are not used
            for mode in "per-expert", "per-rank":
                with self.subTest(model=model, mode=mode):
                    self.assertEqual(self.succeed_on(4, *words, "--copy-mode", mode), one)
            words += ["--temperature", "1", "--copy-mode", "per-expert"]
            self.assertEqual(self.succeed_on(4, *words), self.succeed(*words))

    def test_text_is_streamed_by_one_rank(self):
        words = ["generate", "model", "--prompt", "Hello", "--max-new-tokens", "40",
                 "--temperature", "1", *EXACT]
        self.assertEqual(self.succeed_on(3, *words), self.succeed(*words))

    def test_threads_are_ranks_without_mpirun(self):
        words = ["score", "tiny_model", *EXACT, "--tokens", "tokens.jsonl"]
        done = self.run_c2r(*words, "--ranks", "3")
        self.assertEqual((done.returncode, done.stdout), (0, self.succeed(*words)))

    def test_what_is_wrong_is_said_once_and_before_any_work(self):
        self.make_plan("1x2")
        score = ["score", "tiny_model", "--tokens", "tokens.jsonl"]
        self.fails_on(3, 2, "c2r score: plan.json: the plan is for 2 ranks, but there are 3; start "
                            "2, or make a plan for 3", *score, "--plan", "plan.json")
        self.fails_on(2, 1, "c2r score: plan.json: the plan is for 10 experts and top-4, but the "
                            "model has 4 and top-2",
                      "score", "model", "--text", "text.txt", "--plan", "plan.json")
        self.fails_on(2, 1, "c2r score: 'x' is not a folder with a model", "score", "x", *score[2:])
        self.fails_on(2, 2, "c2r generate: the prompt has no token",
                      "generate", "tiny_model", "--tokens", "[]")
        self.fails_on(2, 2, "c2r score: a row type is f32 or bf16; not 'fp8'", *score, "--row-type",
                      "fp8")

    def test_an_input_without_tokens_or_with_a_broken_line_is_an_error_of_one_rank_only(self):
        self.make_plan("1x3")
        plan = ["--plan", "plan.json"]
        (self.folder / "empty.jsonl").write_text("")
        (self.folder / "broken.jsonl").write_text("[5, 6]\n[1, 2]\n[3, 4]\n[7, 8]\n[9,\n")
        self.fails_on(3, 2, "c2r score: there is no token to score",
                      "score", "tiny_model", "--tokens", "empty.jsonl", *plan)
        self.fails_on(3, 2, "c2r profile: there is no token to profile",
                      "profile", "tiny_model", "--tokens", "empty.jsonl", "-o", "trace", *plan)
        for words in (["score"], ["profile", "-o", "trace"]):
            done = self.run_ranks(3, *words, "tiny_model", "--tokens", "broken.jsonl", *plan)
            ours = [line for line in done.stderr.splitlines() if line.startswith("c2r")]
            self.assertEqual((done.returncode, done.stdout, len(ours)), (1, "", 1), done.stderr)
            self.assertIn(f"c2r {words[0]}: broken.jsonl:5: ", ours[0])
        self.assertFalse((self.folder / "trace").exists())

    def test_copies_travel_as_the_plan_assumes(self):
        self.make_plan("2x2")
        words = [C2R, "score", "tiny_model", "--tokens", "tokens.jsonl", "--plan", "plan.json"]
        done = subprocess.run([MPIEXEC, "-n", "1", *words, ":", "-n", "3", *words, "--copy-mode", "per-node"],
                              cwd=self.folder, text=True, capture_output=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)  # the default is the same

    def test_commands_without_ranks_refuse_several(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "trace")
        self.fails_on(2, 2, "c2r plan: runs in one process, but mpirun has started 2; start it without mpirun",
                      "plan", "trace", "--cluster", "1x2", "-o", "plan.json")
        self.assertFalse((self.folder / "plan.json").exists())
        done = self.run_ranks(1, "inspect", "tiny_model")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.fails_on(2, 2, "c2r inspect: runs in one process, but mpirun has started 2; start it without mpirun",
                      "inspect", "tiny_model")

    def test_a_wrong_command_line_is_said_once(self):
        score = ["score", "tiny_model", "--tokens", "tokens.jsonl"]
        self.fails_on(4, 2, "c2r score: unknown option '--colour'", *score, "--colour")
        self.fails_on(4, 2, "c2r score: --timeout: Value 0 not in range 1 to 86400", *score, "--timeout", "0")
        self.fails_on(4, 2, "c2r: --ranks is 2, but mpirun has started 4 processes", *score, "--ranks", "2")

    def test_commands_below_bench_take_ranks(self):
        done = self.run_ranks(2, "bench", "exchange", "olmoe", "--tokens", "4", "--rounds", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 ranks (1x2) of 4 tokens", done.stdout)

    def test_what_one_rank_lacks_is_said_once(self):
        words = [C2R, "score", "--tokens", "tokens.jsonl"]
        done = subprocess.run([MPIEXEC, "-n", "2", *words, "tiny_model", ":", "-n", "1", *words, "x"],
                              cwd=self.folder, text=True, capture_output=True, timeout=120, check=False)
        ours = [line for line in done.stderr.splitlines() if line.startswith("c2r")]
        self.assertEqual((done.returncode, done.stdout, ours),
                         (1, "", ["c2r score: 'x' is not a folder with a model"]), done.stderr)

    def test_ranks_that_would_run_different_models_refuse(self):
        self.make_plan("1x2")
        score = [C2R, "score", "tiny_model", "--tokens", "tokens.jsonl", "--timeout", "20"]
        done = subprocess.run([MPIEXEC, "-n", "1", *score, ":", "-n", "1", *score, "--plan", "plan.json"],
                              cwd=self.folder, text=True, capture_output=True, timeout=120, check=False)
        ours = [line for line in done.stderr.splitlines() if line.startswith("c2r")]
        self.assertEqual((done.returncode, done.stdout, ours),
                         (2, "", ["c2r score: rank 1 has another plan than rank 0; give all ranks the same"]))

    def test_weights_that_do_not_fit_are_refused(self):
        small_model.write_huge_model(self.folder / "huge")
        done = self.run_ranks(2, "generate", "huge", "--tokens", "[1]")
        self.assertEqual(done.returncode, 1, done.stderr)
        ours = [line for line in done.stderr.splitlines() if line.startswith("c2r")]
        self.assertEqual(len(ours), 1, done.stderr)
        self.assertRegex(ours[0], r"^c2r generate: the machine of ranks 0, 1 has \d+\.\d\d MB of memory "
                                  r"available, but its weights are \d+\.\d\d MB; spread the ranks "
                                  r"over more machines$")

    def test_an_output_that_cannot_be_written_leaves_nothing(self):
        self.fails_on(3, 1, "c2r profile: cannot write 'nowhere/trace': No such file or directory",
                      "profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "nowhere/trace")


if __name__ == "__main__":
    unittest.main(verbosity=2)
