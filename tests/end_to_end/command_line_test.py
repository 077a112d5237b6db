#!/usr/bin/env python3
"""The c2r program from outside: results, errors, exit statuses, and every example in its help.

  command_line_test.py C2R    C2R: the program
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import small_model

C2R = str(pathlib.Path(sys.argv.pop(1)).resolve())
COMMANDS = ["import", "analyze", "collaborators", "plan", "simulate", "compare", "export", "tokenize",
            "inspect", "profile", "score", "generate", "permute-checkpoint"]
IMPORT = ["import", "--from", "npy", "expert_ids.npy", "--num-experts", "8", "--model", "small"]


class CommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        small_model.write_inputs(self.folder)

    def run_c2r(self, *words):
        return subprocess.run([C2R, *words], cwd=self.folder, text=True, capture_output=True,
                              timeout=60, check=False)

    def succeed(self, *words):
        done = self.run_c2r(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def fails_with(self, status, message, *words):
        done = self.run_c2r(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (status, "", message + "\n"))

    def make_trace(self):
        self.succeed(*IMPORT, "--sequences", "sequences.csv", "-o", "trace.safetensors")


class Results(CommandLine):
    def test_counts_of_a_small_model_are_right(self):
        self.make_trace()
        analysis = json.loads(self.succeed("analyze", "trace.safetensors", "--ranks", "2,4",
                                           "--json"))
        self.assertEqual(analysis["num_layers"], small_model.NUM_LAYERS)
        for layer, got in enumerate(analysis["layers"]):
            chosen = [token[layer] for token in small_model.choices()]
            self.assertEqual([e["load"] for e in got["experts"]],
                             [sum(e in pair for pair in chosen) for e in range(8)])
            for ranks in (2, 4):
                fan_out = sum(len({e // (8 // ranks) for e in pair}) for pair in chosen)
                self.assertAlmostEqual(got["fan_out"][str(ranks)], fan_out / len(chosen))

    def test_statistics_merge_to_the_same_as_their_trace(self):
        self.make_trace()
        self.succeed("analyze", "trace.safetensors", "-o", "counts.safetensors")
        once = json.loads(self.succeed("analyze", "counts.safetensors", "--json"))
        twice = json.loads(self.succeed("analyze", "counts.safetensors", "trace.safetensors",
                                        "--json"))
        for one, two in zip(once["layers"], twice["layers"]):
            self.assertEqual(2 * one["num_tokens"], two["num_tokens"])
            self.assertEqual([2 * e["load"] for e in one["experts"]],
                             [e["load"] for e in two["experts"]])
            self.assertEqual(one["fan_out"], two["fan_out"])

    def test_people_see_the_two_groups(self):
        self.make_trace()
        text = self.succeed("analyze", "trace.safetensors")
        self.assertIn("small: 4 MoE layers, 8 experts, top-2, 400 tokens", text)
        order = text.split("experts from left to right:")[1].split("\n")[0].split()
        self.assertIn({int(e) for e in order[:4]}, ({0, 1, 2, 3}, {4, 5, 6, 7}))

    def test_collaborators_stay_in_their_group(self):
        self.make_trace()
        lists = json.loads(self.succeed("collaborators", "trace.safetensors", "--top-t", "3"))
        for layer in lists["collaborators"]:
            for expert, collaborators in enumerate(layer):
                self.assertEqual({e // 4 for e in collaborators}, {expert // 4})
                self.assertNotIn(expert, collaborators)

    def test_a_config_gains_the_two_keys_and_keeps_the_others(self):
        self.make_trace()
        self.succeed("collaborators", "trace.safetensors", "--top-t", "3", "--config",
                     "config.json", "-o", "new.json")
        before = json.loads((self.folder / "config.json").read_text())
        after = json.loads((self.folder / "new.json").read_text())
        lists = after.pop("collaborative_list")
        self.assertEqual(after.pop("top_t"), 3)
        self.assertEqual(after, before)
        for layer in lists:
            for expert, collaborators in enumerate(layer):
                self.assertEqual(sorted(collaborators), list(range(8)))
                self.assertEqual(collaborators[-1], expert)

    def test_results_do_not_depend_on_threads(self):
        self.make_trace()
        one, two = (self.succeed("analyze", "trace.safetensors", "--json", "--threads", n)
                    for n in "12")
        self.assertEqual(one, two)


class Plans(CommandLine):
    def make_plan(self, *words):
        self.make_trace()
        return self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json",
                            *words)

    def test_a_plan_puts_each_group_on_one_rank(self):
        text = self.make_plan("--fit", "even", "--max-imbalance", "1.5")
        plan = json.loads((self.folder / "plan.json").read_text())
        for layer in plan["layers"]:
            self.assertEqual({frozenset(rank) for rank in layer["slots"]},
                             {frozenset(range(4)), frozenset(range(4, 8))})
        self.assertIn("odd (not fitted)", text)
        self.assertIn("proved optimal", text)

    def test_a_simulation_counts_what_the_definition_says(self):
        self.make_plan()
        steps = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors",
                                        "--json"))["steps"]
        self.assertEqual([s["step"] for s in steps],
                         ["per-expert", "deduplication", "placement"])
        for layer in range(small_model.NUM_LAYERS):
            chosen = [token[layer] for token in small_model.choices()]
            ranks = sum(len({e // 4 for e in pair}) for pair in chosen) / len(chosen)
            self.assertAlmostEqual(steps[0]["copies_per_token"][layer], 2)
            self.assertAlmostEqual(steps[1]["copies_per_token"][layer], ranks)
            self.assertAlmostEqual(steps[2]["copies_per_token"][layer], ranks)
            self.assertAlmostEqual(steps[2]["wire_copies_per_token"][layer], ranks / 2)

    def test_a_simulation_counts_whole_copies_and_bytes_from_known_homes(self):
        self.make_plan()
        step = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", "--json",
                                       "--homes", "sequences", "--hidden", "10"))["steps"][1]
        self.assertEqual(step["counts"]["denominator"], 1)
        homes = 100 * [0] + 250 * [1] + 50 * [0]  # three sequences on two ranks in turn
        for layer, counts in enumerate(step["counts"]["layers"]):
            wire = sum(len({e // 4 for e in token[layer]} - {home})
                       for token, home in zip(small_model.choices(), homes))
            self.assertEqual(counts["wire_copies"], wire)
            self.assertEqual(sum(counts["sent"]), wire)
            self.assertEqual(counts["dispatch_wire_bytes"], wire * 10 * 2)

    def test_pair_counts_of_top_2_are_as_good_as_a_trace(self):
        self.make_plan()
        self.succeed("analyze", "trace.safetensors", "-o", "statistics.safetensors")
        from_trace, from_pairs = (json.loads(self.succeed("simulate", "plan.json", name, "--json"))
                                  for name in ("trace.safetensors", "statistics.safetensors"))
        for a, b in zip(from_trace["steps"], from_pairs["steps"]):
            self.assertTrue(b["is_exact"])
            self.assertEqual(a["counts"], b["counts"])
        self.fails_with(2, "c2r simulate: statistics.safetensors holds pair counts, which are of "
                           "all sequences, not of --on even",
                        "simulate", "plan.json", "statistics.safetensors", "--on", "even")

    def test_the_constraint_is_a_step_of_its_own(self):
        self.make_plan()
        text = self.succeed("simulate", "plan.json", "trace.safetensors", "--on", "even",
                            "--constrained", "trace.safetensors")
        self.assertIn("\nconstraint  ", text)
        self.assertIn("\nconstraint: on ", text)

    def test_the_same_input_gives_the_same_plan(self):
        self.make_plan("--threads", "1")
        first = (self.folder / "plan.json").read_bytes()
        self.make_plan("--threads", "2")
        self.assertEqual(first, (self.folder / "plan.json").read_bytes())

    def test_every_goal_is_reached_and_said(self):
        fast = ("--minimize", "time", "--hidden", "64", "--intermediate", "64", "--cluster")
        cluster = {"num_nodes": 1, "ranks_per_node": 2, "device_flop_per_s": 1e12}
        (self.folder / "cluster.json").write_text(json.dumps(cluster))
        self.make_trace()
        for words, said in (
                (("--minimize", "imbalance", "--max-copies", "1.6", "--cluster", "1x2"),
                 "an imbalance of 1.0"),
                (("--imbalance-weight", "2", "--cluster", "1x2"), "copies + 2 x (imbalance - 1)"),
                (("--bound-on", "unseen", "--cluster", "1x2"), "copies per token of 1."),
                ((*fast, "cluster.json"), "us predicted")):
            self.assertIn(said, self.succeed("plan", "trace.safetensors", "-o", "p.json", *words))
        done = self.run_c2r("plan", "trace.safetensors", "-o", "p.json", *fast, "1x2")
        self.assertEqual(done.stderr,
                         "warning: the cluster has no device_flop_per_s, so no time can be "
                         "predicted; minimizing copies within --max-imbalance 1.1 instead\n")
        self.assertIn("copies per token of 1.", done.stdout)

    def test_goals_that_contradict_each_other_are_refused(self):
        self.make_trace()
        for message, *words in (
                ("--max-copies is a bound for --minimize imbalance", "--max-copies", "2"),
                ("--bound-on unseen needs --max-imbalance", "--bound-on", "unseen",
                 "--imbalance-weight", "1"),
                ("--minimize time needs --hidden and --intermediate", "--minimize", "time")):
            self.fails_with(2, "c2r plan: " + message, "plan", "trace.safetensors", "--cluster",
                            "1x2", "-o", "x", *words)

    def test_replicas_are_planned_and_said(self):
        text = self.make_plan("--redundant-slots", "1")
        self.assertIn("\nplacement  ", text)
        self.assertIn("\nreplicas  ", text)
        self.assertIn("replicas chosen by fewest-ranks", text)
        plan = json.loads((self.folder / "plan.json").read_text())
        self.assertEqual({len(rank) for layer in plan["layers"] for rank in layer["slots"]}, {5})

    def test_an_exported_plan_is_what_the_engine_reads(self):
        self.make_plan()
        exported = json.loads(self.run_c2r("export", "plan.json", "--to", "vllm-49572").stdout)
        plan = json.loads((self.folder / "plan.json").read_text())
        self.assertEqual(exported, [sum(layer["slots"], []) for layer in plan["layers"]])

    def test_a_backend_that_gathers_is_warned_about(self):
        self.make_plan()
        done = self.run_c2r("export", "plan.json", "--to", "vllm-49572", "-o", "map.json")
        self.assertEqual(done.returncode, 0)
        self.assertIn("warning: with the default backend", done.stderr)

    def test_an_engine_that_chooses_other_replicas_is_warned_about(self):
        self.make_plan("--redundant-slots", "1")
        done = self.run_c2r("export", "plan.json", "--to", "sglang", "-o", "map.json")
        self.assertIn("warning: the plan's predictions assume the replica rule fewest-ranks, but "
                      "sglang chooses as local-first does", done.stderr)

    def test_mistakes_are_explained(self):
        self.make_plan()
        self.fails_with(2, "c2r plan: a part of a trace is all, even, odd, first-half or "
                           "second-half; not 'half'",
                        "plan", "trace.safetensors", "--cluster", "1x2", "--fit", "half", "-o", "x")
        self.fails_with(1, "c2r simulate: config.json: the key 'format' is missing",
                        "simulate", "config.json", "trace.safetensors")


class ImportedPlacements(CommandLine):
    IMPORT = ["import", "--num-experts", "8", "--top-k", "2", "--layers", "0-2,3", "--cluster",
              "1x2", "-o", "imported.json", "--from"]

    def test_every_export_comes_back_and_can_be_compared(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        layers = json.loads((self.folder / "plan.json").read_text())["layers"]
        targets = re.findall(r"^  (\S+)-placement ", self.succeed("help", "import"), re.M)
        self.assertEqual(len(targets), 8)
        for target in targets:
            with self.subTest(target=target):
                self.run_c2r("export", "plan.json", "--to", target, "-o", "theirs")
                self.succeed(*self.IMPORT, target + "-placement", "theirs")
                imported = json.loads((self.folder / "imported.json").read_text())
                self.assertEqual(imported["layers"], layers)
                self.assertEqual(imported["predictions"], [])
        text = self.succeed("compare", "trace.safetensors", "imported.json", "--on", "odd")
        self.assertRegex(text, r"imported.json +unknown +4 ")

    def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(self):
        (self.folder / "map.json").write_text("[[0, 1, 2, 3, 4, 5, 6, 6]]")
        words = [*self.IMPORT, "vllm-49572-placement", "map.json"]
        self.fails_with(1, "c2r import: map.json: the map has 1 rows, but there are 4 MoE layers",
                        *words)
        words[words.index("0-2,3")] = "4"
        self.fails_with(1, "c2r import: map.json: row 0: rank 1 holds expert 6 twice", *words)
        words[words.index("4")] = "3-"
        self.fails_with(2, "c2r import: --layers takes indices and runs of at most 1024 layers, "
                           "such as 0,3-60; not '3-'", *words)
        self.fails_with(2, "c2r import: format eplb-placement takes one input, and needs "
                           "--num-experts, --top-k, --layers and --cluster",
                        "import", "--from", "eplb-placement", "map.json", "-o", "imported.json")
        self.fails_with(2, "c2r import: unknown format 'eplb-placemnt'; did you mean "
                           "'eplb-placement'? `c2r help import` lists them",
                        "import", "--from", "eplb-placemnt", "map.json", "-o", "imported.json")
        self.assertFalse((self.folder / "imported.json").exists())


class Comparisons(CommandLine):
    def compare(self, *words):
        self.make_trace()
        return json.loads(self.succeed("compare", "trace.safetensors", "--cluster", "1x2", "--json",
                                       *words))

    def test_baselines_are_counted_as_the_definition_says(self):
        placements = self.compare("--baselines", "contiguous,round-robin")["placements"]
        self.assertEqual([p["placement"] for p in placements], ["contiguous", "round-robin"])
        for layer in range(small_model.NUM_LAYERS):
            chosen = [token[layer] for token in small_model.choices()]
            for placement, rank in zip(placements, (lambda e: e // 4, lambda e: e % 2)):
                copies = sum(len({rank(e) for e in pair}) for pair in chosen)
                self.assertAlmostEqual(placement["copies_per_token"][layer], copies / len(chosen))

    def test_a_plan_is_said_to_be_reported_on_its_own_tokens(self):
        self.make_trace()
        for part, is_fitted in ("even", False), ("odd", True), ("all", True):
            self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--fit", part,
                         "-o", "plan.json")
            words = ["compare", "trace.safetensors", "--on", "odd", "plan.json", "--baselines"]
            row = json.loads(self.succeed(*words, "none", "--json"))["placements"][0]
            self.assertEqual((row["kind"], row["fitted_on"], row["is_fitted"]),
                             ("plan", part, is_fitted))
            text = self.succeed(*words, "contiguous,eplb")
            self.assertEqual("* reported on tokens that it was fitted on" in text, is_fitted)
        text = self.succeed(*words[:4], "--fit", "odd", "--baselines", "eplb", "plan.json")
        self.assertRegex(text, r"eplb +odd \*")

    def test_a_comparison_equals_a_simulation(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--redundant-slots", "1",
                     "-o", "plan.json")
        words = ["--on", "odd", "--hidden", "64", "--homes", "sequences", "--json"]
        row = json.loads(self.succeed("compare", "trace.safetensors", "plan.json", *words))
        steps = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", *words))
        for key in ("copies_per_token", "wire_copies_per_token", "imbalance",
                    "wire_bytes_per_token"):
            self.assertEqual(row["placements"][-1][key], steps["steps"][-1][key])

    def test_the_front_goes_from_few_copies_to_balance_and_its_plans_are_written(self):
        front = [p for p in self.compare("--on", "even", "--fit", "even", "--baselines",
                                         "contiguous,eplb,affinity,exhaustive", "--pareto", "4",
                                         "--front-plans", "front", "--bound")["placements"]]
        baselines = [p for p in front if p["kind"] == "baseline"]
        front = [p for p in front if p["kind"] == "front"]
        mean = lambda p, key: sum(p[key]) / len(p[key])
        points = [(mean(p, "copies_per_token"), mean(p, "imbalance")) for p in front]
        self.assertEqual(points, sorted(points))
        self.assertEqual(points, sorted(points, key=lambda p: -p[1]))
        for baseline in baselines:
            best = min(copies + 100 * max(0, imbalance - mean(baseline, "imbalance"))
                       for copies, imbalance in points)
            self.assertLessEqual(best, mean(baseline, "copies_per_token") + 1e-12)
        self.assertLessEqual(front[0]["copies_bound"], points[0][0] + 1e-12)
        written = json.loads(self.succeed("compare", "trace.safetensors", "front1.json", "--on",
                                          "even", "--baselines", "none", "--json"))
        self.assertEqual(written["placements"][0]["copies_per_token"],
                         front[0]["copies_per_token"])

    def test_what_cannot_be_placed_is_left_out_and_said(self):
        self.make_trace()
        text = self.succeed("compare", "trace.safetensors", "--cluster", "1x2", "--on", "odd",
                            "--redundant-slots", "1", "--baselines", "eplb,affinity")
        self.assertIn("left out: affinity cannot place this layer: it makes no replicas", text)
        self.assertIn("replicas chosen by fewest-ranks", text)

    def test_mistakes_are_explained(self):
        self.make_trace()
        self.fails_with(2, "c2r compare: --cluster is required where no plan says what the cluster "
                           "is", "compare", "trace.safetensors")
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.fails_with(2, "c2r compare: plan.json is for a cluster of 1x2 ranks, but 1x4 are "
                           "compared", "compare", "trace.safetensors", "plan.json", "--cluster",
                        "1x4")
        self.fails_with(2, "c2r compare: a baseline is contiguous, round-robin, random, eplb, "
                           "affinity, grace, exhaustive; not 'best'",
                        "compare", "trace.safetensors", "plan.json", "--baselines", "best")
        self.fails_with(2, "c2r compare: there is nothing to compare", "compare",
                        "trace.safetensors", "--cluster", "1x2", "--baselines", "none")
        self.fails_with(2, "c2r compare: --bound knows a bound for --transport per-rank, not "
                           "all-gather", "compare", "trace.safetensors", "plan.json", "--bound",
                        "--transport", "all-gather")


class Tokens(CommandLine):
    def test_ids_are_those_of_the_tokenizer_and_decode_to_the_text(self):
        text = (self.folder / "text.txt").read_text(encoding="utf-8")
        got = json.loads(self.succeed("tokenize", "model", "text.txt", "--json"))
        vocabulary = json.loads((self.folder / "model" / "tokenizer.json").read_text())["model"]["vocab"]
        spelled = "".join(sorted(vocabulary, key=vocabulary.get)[i] for i in got["ids"])
        self.assertTrue(spelled.startswith("Hello,Ġworld!Ġ"), spelled)
        self.assertEqual(got["text"], text)
        self.assertEqual(got["num_tokens"], len(got["ids"]))

    def test_people_see_a_token_a_line(self):
        lines = self.succeed("tokenize", "model", "text.txt").splitlines()
        ids = json.loads(self.succeed("tokenize", "model", "text.txt", "--json"))["ids"]
        self.assertEqual(lines[0], f"text.txt: {len(ids)} tokens")
        self.assertEqual([int(line.split()[0]) for line in lines[2:]], ids)
        self.assertEqual(lines[-1].split()[1], '"\\n"')

    def test_standard_input_is_a_text_too(self):
        done = subprocess.run([C2R, "tokenize", "model", "-", "--json"], cwd=self.folder, text=True,
                              input="Hello", capture_output=True, timeout=60, check=False)
        self.assertEqual(json.loads(done.stdout)["text"], "Hello")

    def test_what_c2r_lacks_is_named(self):
        path = self.folder / "model" / "tokenizer.json"
        path.write_text(path.read_text().replace('"normalizer":{"type":"NFC"}', '"normalizer":{"type":"NFD"}'))
        self.fails_with(1, "c2r tokenize: model/tokenizer.json: normalizer has the type 'NFD', but c2r "
                           "supports only NFC, NFKC, Prepend, Replace and Sequence",
                        "tokenize", "model", "text.txt")


class Models(CommandLine):
    def setUp(self):
        super().setUp()
        self.expected = json.loads((small_model.TINY_MODEL / "expected.json").read_text())["plain"]

    def test_inspect_says_what_is_in_the_folder(self):
        text = self.succeed("inspect", "tiny_model")
        self.assertIn("family       Qwen2-MoE (qwen2_moe)", text)
        self.assertIn("experts      10 in each of 2 layers, top-4, intermediate 12", text)
        sizes = json.loads(self.succeed("inspect", "tiny_model", "--json"))
        self.assertEqual(sizes["expert_bytes"], 2 * 10 * 3 * 32 * 12 * 2)
        self.assertEqual(sizes["kv_bytes_per_token"], 2 * 3 * 2 * 8 * 2)
        unchosen, embeddings = sizes["expert_bytes"] * 6 // 10, 64 * 32 * 2
        self.assertEqual(sizes["bytes_per_token"], sizes["weight_bytes"] - unchosen - embeddings)

    def test_generate_prints_the_greedy_text(self):
        text = self.succeed("generate", "tiny_model", "--dtype", "f32", "--max-new-tokens", "64",
                            "--tokens", json.dumps(self.expected["prompt"]))
        self.assertEqual([int(t) for t in text.split()], self.expected["greedy"])

    def test_a_profile_is_a_trace_that_can_be_planned_for(self):
        text = self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o",
                            "profile.safetensors")
        self.assertEqual(text, "profile.safetensors: 76 tokens in 2 sequences\n")
        self.succeed("plan", "profile.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.succeed("inspect", "tiny_model", "--plan", "plan.json")

    def test_a_permuted_checkpoint_says_the_same(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.succeed("permute-checkpoint", "tiny_model", "--plan", "plan.json", "-o", "permuted")
        before, after = (self.succeed("generate", folder, "--dtype", "f32", "--tokens",
                                      "[1,2,3]", "--max-new-tokens", "64")
                         for folder in ("tiny_model", "permuted"))
        self.assertEqual(before, after)

    def test_texts_are_run_as_their_tokens(self):
        ids = json.loads(self.succeed("tokenize", "model", "text.txt", "--json"))["ids"]
        (self.folder / "ids.jsonl").write_text(json.dumps(ids) + "\n")
        text = (self.folder / "text.txt").read_text(encoding="utf-8")
        (self.folder / "lines.jsonl").write_text(json.dumps({"text": text}) + "\n")
        scores = {self.succeed("score", "model", *words) for words in
                  (["--text", "text.txt"], ["--tokens", "ids.jsonl"], ["--text", "lines.jsonl"])}
        self.assertEqual(len(scores), 1, scores)
        for words in ["--text", "text.txt"], ["--tokens", "ids.jsonl"]:
            self.assertIn(f" {len(ids)} tokens in 1 sequences",
                          self.succeed("profile", "model", *words, "-o", "trace.safetensors"))

    def test_pairs_are_scored_by_their_continuation(self):
        pair = {"context": "Hello, ", "continuation": "world!"}
        (self.folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
        (self.folder / "hello.txt").write_text("Hello,")
        (self.folder / "whole.txt").write_text("Hello, world!")
        count = [json.loads(self.succeed("tokenize", "model", name, "--json"))["num_tokens"]
                 for name in ("hello.txt", "whole.txt")]
        score = json.loads(self.succeed("score", "model", "--pairs", "pairs.jsonl", "--json"))
        self.assertEqual(score["num_tokens"], count[1] - count[0])

    def test_generated_text_is_what_its_ids_decode_to(self):
        (self.folder / "hello.txt").write_text("Hello")
        ids = json.loads(self.succeed("tokenize", "model", "hello.txt", "--json"))["ids"]
        more = ["--max-new-tokens", "40", "--temperature", "1", "--seed", "7"]
        done = self.succeed("generate", "model", "--tokens", json.dumps(ids), *more)
        text = self.succeed("generate", "model", "--prompt", "Hello", *more)
        vocabulary = json.loads((self.folder / "model" / "tokenizer.json").read_text())["model"]["vocab"]
        spelled = {i: word for word, i in vocabulary.items()}
        words = [spelled[int(i)] for i in done.split() if int(i) in spelled]
        for word in words:
            if word.isascii():
                self.assertIn(word, text)

    def test_score_knows_the_greedy_text(self):
        line = {"context": self.expected["prompt"], "continuation": self.expected["greedy"]}
        (self.folder / "lines.jsonl").write_text(json.dumps(line) + "\n")
        score = json.loads(self.succeed("score", "tiny_model", "--dtype", "f32", "--pairs",
                                        "lines.jsonl", "--json"))
        self.assertTrue(score["is_greedy"])
        self.assertEqual(score["num_tokens"], 64)
        self.assertLess(score["log_likelihood"], 0)

    def test_mistakes_are_explained(self):
        self.fails_with(1, "c2r inspect: 'x' is not a folder with a model", "inspect", "x")
        self.fails_with(2, "c2r generate: give either --prompt or --tokens", "generate", "model")
        self.fails_with(2, "c2r score: give either --pairs, or --text and --tokens", "score", "model")
        self.fails_with(2, "c2r profile: there is no file; give --text or --tokens",
                        "profile", "model", "-o", "trace.safetensors")
        self.fails_with(1, "c2r generate: --tokens: a token is 64, but must be an integer in "
                           "[0, 63]", "generate", "tiny_model", "--tokens", "[64]")
        self.fails_with(2, "c2r generate: the prompt has no token",
                        "generate", "tiny_model", "--tokens", "[]")
        self.fails_with(2, "c2r score: --dtype takes bf16 or f32, not 'f16'",
                        "score", "tiny_model", "--tokens", "tokens.jsonl", "--dtype", "f16")
        (self.folder / "bad.jsonl").write_text("[1]\n[-1]\n")
        self.fails_with(1, "c2r profile: bad.jsonl:2: a token is -1, but must be an integer in "
                           "[0, 63]",
                        "profile", "tiny_model", "--tokens", "bad.jsonl", "-o", "profile")
        self.assertFalse((self.folder / "profile").exists())


class Help(CommandLine):
    def test_every_example_works(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.run_c2r("export", "plan.json", "--to", "sglang", "-o", "map.json")
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "tiny_plan.json")
        for command in COMMANDS:
            text = self.succeed("help", command)
            self.assertEqual(text, self.succeed(command, "--help"))
            examples = text.split("Example:\n")[1].strip().splitlines()
            self.assertTrue(examples)
            for line in examples:
                words = line.split()
                self.assertEqual(words[:2], ["c2r", command])
                done = self.run_c2r(*words[1:])
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_version_names_the_build(self):
        self.assertRegex(self.succeed("--version"), r"^c2r \d+\.\d+\.\d+ \(commit \S+, .+\)\n$")


class Mistakes(CommandLine):
    def test_unknown_names_are_answered_with_the_nearest(self):
        self.fails_with(2, "c2r: unknown command 'analyse'; did you mean 'analyze'?", "analyse", "x")
        self.fails_with(2, "c2r help: unknown command 'analyse'; did you mean 'analyze'?", "help", "analyse")
        self.fails_with(2, "c2r analyze: unknown option '--rank'; did you mean '--ranks'?",
                  "analyze", "x", "--rank", "2")
        self.fails_with(2, "c2r collaborators: unknown option '--topt'; did you mean '--top-t'?",
                  "collaborators", "x", "--topt=2")

    def test_nothing_to_do_is_a_usage_error(self):
        done = self.run_c2r()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("analyze", done.stderr)

    def test_values_out_of_range_name_the_range(self):
        self.make_trace()
        self.fails_with(2, "c2r collaborators: --top-t 8 is not in [1, 7]: a token of top-2 needs 1 "
                     "collaborators, and an expert has 7",
                  "collaborators", "trace.safetensors", "--top-t", "8")
        self.fails_with(2, "c2r analyze: --ranks 3: 8 experts cannot be split evenly over 3 ranks",
                  "analyze", "trace.safetensors", "--ranks", "3")
        self.fails_with(2, "c2r analyze: --heat-map takes best, all, none or the index of an MoE layer in "
                     "[0, 3], not '9'", "analyze", "trace.safetensors", "--heat-map", "9", "--ranks",
                  "2")

    def test_a_missing_file_is_a_failure(self):
        self.fails_with(1, "c2r analyze: cannot open 'x': No such file or directory", "analyze", "x")

    def test_another_format_points_to_import(self):
        path = self.folder / "weights.safetensors"
        path.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
        self.fails_with(1, "c2r analyze: weights.safetensors: is not a routing trace: its metadata lacks "
                     "format = c2r.trace; `c2r import` reads other formats",
                  "analyze", "weights.safetensors")

    def test_a_config_of_another_model_is_refused(self):
        self.make_trace()
        (self.folder / "config.json").write_text('{"num_experts": 60}')
        self.fails_with(2, "c2r collaborators: config.json: num_experts is 60, but the statistics are of "
                     "8 experts",
                  "collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json")

    def test_a_failed_import_leaves_nothing_behind(self):
        before = sorted(self.folder.iterdir())
        words = [w if w != "8" else "7" for w in IMPORT]
        self.assertEqual(self.run_c2r(*words, "-o", "trace.safetensors").returncode, 1)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_a_full_disk_is_a_failure(self):
        self.make_trace()
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([C2R, "analyze", "trace.safetensors"], cwd=self.folder, stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "c2r analyze: cannot write to standard output\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
