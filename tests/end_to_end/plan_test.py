#!/usr/bin/env python3
"""c2r plan, simulate and export, and placements of other engines."""
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

import small_model
from command_line import C2R, IMPORT, CommandLine, unwrapped


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

    def test_a_simulation_of_replicas_on_nodes_counts_what_brute_force_does(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "--redundant-slots", "1",
                     "--effort", "0.01", "-o", "plan.json")
        slots = [layer["slots"] for layer in json.loads((self.folder / "plan.json").read_text())["layers"]]
        for mode in "per-rank", "per-node":
            step = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", "--json",
                                           "--copy-mode", mode))["steps"][-1]
            for layer, hosted in enumerate(slots):
                wire = 0
                for home, token in itertools.product(range(4), small_model.choices()):
                    covers = [c for size in (1, 2) for c in itertools.combinations(range(4), size)
                              if set(token[layer]) <= {e for rank in c for e in hosted[rank]}]
                    nodes = lambda cover: {rank // 2 for rank in cover}
                    ranks = min(covers, key=lambda c: (len(c), len(nodes(c)),
                                                       home // 2 not in nodes(c)))
                    if mode == "per-rank":
                        wire += sum(rank != home for rank in ranks)
                    else:  # to the home's twin in each other node, and from there inside it
                        wire += sum(node != home // 2 for node in nodes(ranks))
                        wire += sum(rank % 2 != home % 2 for rank in ranks)
                self.assertAlmostEqual(step["wire_copies_per_token"][layer], wire / 4 / 400)

    def test_pair_counts_of_top_2_are_as_good_as_a_trace(self):
        self.make_plan()
        self.succeed("analyze", "trace.safetensors", "-o", "statistics.safetensors")
        from_trace, from_pairs = (json.loads(self.succeed("simulate", "plan.json", name, "--json"))
                                  for name in ("trace.safetensors", "statistics.safetensors"))
        for a, b in zip(from_trace["steps"], from_pairs["steps"]):
            self.assertTrue(b["is_exact"])
            self.assertEqual(a["counts"], b["counts"])
        self.fails_with(1, "c2r analyze: plan.json: is JSON, as plans are, not a safetensors file, as traces are",
                        "analyze", "plan.json")
        (self.folder / "counts.json").write_text(json.dumps({"logical_count": [[400] * 8] * 4}))
        self.succeed("import", "--from", "sglang-loads", "counts.json", "--top-k", "2", "-o", "loads.st")
        loads = ["import", "--from", "sglang-loads", "counts.json", "--top-k", "2", "--num-experts"]
        self.succeed(*loads, "8", "-o", "loads.st")
        self.fails_with(1, "c2r import: counts.json: holds counts of 8 experts, but --num-experts is 9",
                        *loads, "9", "-o", "loads.st")
        text = self.succeed("simulate", "plan.json", "loads.st")
        self.assertIn("copies: unknown from loads", text)
        self.assertRegex(text, r"\nplacement +- +- +- +1.000 +1.000 +0/4\n")
        self.fails_with(2, "c2r simulate: loads.st holds loads only: what --engine sends is unknown; give a trace, or "
                           "counts of pairs", "simulate", "plan.json", "loads.st", "--engine", "megatron")
        self.fails_with(2, "c2r simulate: statistics.safetensors holds counts, which are of "
                           "all sequences, not of --on even",
                        "simulate", "plan.json", "statistics.safetensors", "--on", "even")

    def test_pair_counts_of_more_bound_what_is_saved(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "top4")  # top-4 of 10
        self.succeed("analyze", "top4", "-o", "pairs")
        self.succeed("plan", "top4", "--cluster", "1x2", "-o", "plan.json")
        self.assertIn("from pair counts, which are exact only up to top-2: the copies are lower bounds, and the "
                      "savings upper bounds ", unwrapped(self.succeed("simulate", "plan.json", "pairs")))

    def test_what_is_saved_weighs_links(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "-o", "plan.json")
        rows = [line.split() for line in self.succeed("simulate", "plan.json", "trace.safetensors").splitlines()]
        wire, saved, between = [], [], []
        for row in rows[1:4]:
            wire.append(float(row[2]))
            saved.append(float(row[3]))
        for row in rows[6:9]:  # the columns beyond 80 characters follow below
            between.append(float(row[1]))
        self.assertEqual(rows[5], ["step", "between", "nodes"])
        costs = [a + 7 * b for a, b in zip(wire, between)]  # a slow link takes 8 times as long
        for cost, of_step in zip(costs, saved):
            self.assertAlmostEqual(of_step, 100 * (1 - cost / costs[0]), delta=0.2)
        self.assertIn("saved: the share of the copies on the wire of per-expert that is saved; a copy between nodes "
                      "counts as 8 within a node, by the speed of the links", " ".join(word for row in rows for word in row))

    def test_the_constraint_is_a_step_of_its_own(self):
        self.make_plan()
        text = self.succeed("simulate", "plan.json", "trace.safetensors", "--on", "even",
                            "--constrained", "trace.safetensors")
        self.assertIn("\nconstraint  ", text)
        self.assertIn("\nconstraint: on ", text)

    def test_the_constraint_can_have_a_plan_of_its_own(self):
        self.make_plan()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--redundant-slots", "4", "-o", "replicated.json")
        words = ["simulate", "plan.json", "trace.safetensors"]
        text = self.succeed(*words, "--constrained", "trace.safetensors", "--constrained-plan", "replicated.json")
        copies = {line.split()[0]: float(line.split()[1]) for line in text.splitlines()[1:5]}
        self.assertEqual(copies["constraint"], 1)  # with every expert on both ranks a token needs one
        self.assertGreater(copies["placement"], 1)
        done = self.run_c2r(*words, "--constrained-plan", "replicated.json")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--constrained-plan requires --constrained", done.stderr)

    def test_a_proof_can_be_asked_for_where_ranks_can_hold_many_things(self):
        words = ["20" if word == "8" else word for word in IMPORT]  # 184,756 halves of 20 experts
        self.succeed(*words, "-o", "trace.safetensors")
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json"]
        self.assertIn("0 of 4 layers are proved optimal", self.succeed(*words))
        self.assertIn("every layer is proved optimal", self.succeed(*words, "--prove"))

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
                 "a rank imbalance of 1.0"),
                (("--imbalance-weight", "2", "--cluster", "1x2"), "copies + 2 x (imbalance - 1)"),
                (("--bound-on", "unseen", "--cluster", "1x2"), "copies per token of 1."),
                ((*fast, "cluster.json"), "us predicted")):
            self.assertIn(said, self.succeed("plan", "trace.safetensors", "-o", "p.json", "--effort", "0.1", *words))
        done = self.run_c2r("plan", "trace.safetensors", "-o", "p.json", "--effort", "0.1", *fast, "1x2")
        self.assertEqual(done.stderr,
                         "warning: the cluster has no device_flop_per_s, so no time can be "
                         "predicted; minimizing copies within --max-imbalance 1.1 instead\n")
        self.assertIn("copies per token of 1.", done.stdout)

    def test_a_bound_on_unseen_tokens_is_lowered_by_what_halves_miss_on_each_other(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "--cluster", "1x4", "--max-imbalance", "1.1"]
        fitted = unseen = 0
        for half in "even", "odd":
            self.succeed(*words, "--fit", half, "-o", "half.json")
            plan = json.loads((self.folder / "half.json").read_text())
            unseen += sum(plan["predictions"][-1]["imbalance"])
            steps = json.loads(self.succeed("simulate", "half.json", "trace.safetensors", "--on",
                                            half, "--json"))["steps"]
            fitted += sum(steps[-1]["imbalance"])
        self.assertLess(fitted, unseen)
        text = self.succeed(*words, "--bound-on", "unseen", "-o", "plan.json")
        bound = float(re.search("a bound on imbalance of ([0-9.]+)", text).group(1))
        self.assertAlmostEqual(bound, 1.1 * fitted / unseen, 4)
        options = self.provenance()["options"]
        self.assertEqual((options["max_imbalance"], options["bound_on"]), (1.1, "unseen"))
        self.assertAlmostEqual(options["fitted_max_imbalance"], bound, 4)

    def test_goals_that_contradict_each_other_are_refused(self):
        self.make_trace()
        for message, *words in (
                ("--max-copies is a bound for --minimize imbalance", "--max-copies", "2"),
                ("--bound-on unseen needs --max-imbalance", "--bound-on", "unseen",
                 "--imbalance-weight", "1"),
                ("--minimize time needs --hidden and --intermediate", "--minimize", "time")):
            self.fails_with(2, "c2r plan: " + message, "plan", "trace.safetensors", "--cluster",
                            "1x2", "-o", "x", *words)

    def test_numbers_that_make_no_sense_are_refused(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "x"]
        for option, bad, allowed in (
                ("--effort", ("nan", "-1", "0", "inf", "1e13"), "a number from 1e-06 to 1e+06"),
                ("--seconds", ("nan", "-1", "0", "inf", "1e10"), "a number from 0.001 to 1e+09"),
                ("--max-imbalance", ("nan", "inf", "-1", "0", "0.5"), "a number from 1 to 1e+09"),
                ("--max-copies", ("nan", "0", "0.5"), "a number from 1 to 1e+09"),
                ("--imbalance-weight", ("nan", "-1"), "a number from 0 to 1e+09")):
            for number in bad:
                self.fails_with(2, f"c2r plan: {option}: '{number}' is not {allowed}", *words,
                                option, number)
        self.assertIn("--seed: Value -1 not in range 0 to 9223372036854775807",
                      self.run_c2r(*words, "--seed", "-1").stderr)

    def test_mistakes_are_said_before_a_long_search(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "--redundant-slots", "1",
                 "--effort", "1e6", "-o"]  # of days
        self.fails_with(1, "c2r plan: cannot write 'nosuch/p.json': No such file or directory",
                        *words, "nosuch/p.json")
        self.fails_with(2, "c2r plan: --top-t 99 is not in [1, 7]: a token of top-2 needs 1 collaborators, and "
                           "an expert has 7", *words, "x", "--top-t", "99")
        self.assertFalse(list(self.folder.glob(".*.tmp")))

    def test_files_in_each_others_places_are_recognized(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.fails_with(1, "c2r simulate: trace.safetensors: is not a plan but a safetensors file, as traces are; "
                           "plans are JSON", "simulate", "trace.safetensors", "plan.json")

    def test_options_that_would_be_ignored_are_refused(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "x", "--method"]
        for option in (["--minimize", "time"], ["--max-imbalance", "2"], ["--effort", "2"],
                       ["--prove"], ["--seconds", "2"], ["--bound-on", "fitted"],
                       ["--scenarios", "2"]):
            self.fails_with(2, f"c2r plan: {option[0]} is for --method optimize; eplb does not use "
                               "it", *words, "eplb", *option)
        self.fails_with(2, "c2r plan: --num-groups is for the methods optimize and eplb, not random",
                        *words, "random", "--num-groups", "2")
        self.fails_with(2, "c2r plan: a time is predicted of --hidden and --intermediate, but one "
                           "of them is missing", *words, "optimize", "--hidden", "8")
        self.fails_with(2, "c2r plan: a method is optimize, contiguous, round-robin, random, eplb, balance, "
                           "affinity, grace or exhaustive; not 'best'", *words, "best")
        self.fails_with(2, "c2r import: --cluster is for placements; format npy has none",
                        *IMPORT, "-o", "x", "--cluster", "1x2")

    def test_a_trace_of_one_sequence_has_no_other_part(self):
        self.succeed(*IMPORT, "-o", "trace.safetensors")
        remedy = ("c2r {}: trace.safetensors has no tokens in the part 'odd' of its 1 sequence: take "
                  "the part 'all', or import more files together; for npy, --sequences says where "
                  "sequences begin")
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json"]
        self.fails_with(2, remedy.format("plan"), *words, "--fit", "even")
        self.assertFalse((self.folder / "plan.json").exists())
        self.succeed(*words)
        self.fails_with(2, remedy.format("simulate"), "simulate", "plan.json", "trace.safetensors",
                        "--on", "odd")
        self.fails_with(2, remedy.format("compare"), "compare", "trace.safetensors", "plan.json",
                        "--on", "odd")

    def provenance(self):
        return json.loads((self.folder / "plan.json").read_text())["provenance"]

    def test_a_plan_says_how_it_was_made_and_what_ended_the_search(self):
        text = self.make_plan("--max-imbalance", "1.25", "--effort", "0.5", "--fit", "even")
        self.assertEqual(self.provenance()["options"],
                         {"fit": "even", "redundant_slots": 0, "minimize": "copies",
                          "rank_copy_cost": 1, "node_copy_cost": 0, "max_imbalance": 1.25,
                          "effort": 0.5})
        self.assertEqual(self.provenance()["ended_by"], "work")
        self.assertIn("max_imbalance 1.25, effort 0.5; all of the search was done", unwrapped(text))
        self.make_plan("--method", "eplb")
        self.assertEqual(self.provenance()["options"], {"fit": "all", "redundant_slots": 0})
        self.assertNotIn("ended_by", self.provenance())
        text = self.make_plan("--redundant-slots", "1", "--effort", "1e6", "--seconds", "0.05")
        self.assertEqual(self.provenance()["ended_by"], "seconds")
        self.assertIn("cut short by --seconds: the best found is kept", unwrapped(text))

    def test_an_interrupted_search_keeps_the_best_and_says_so(self):
        self.make_trace()
        search = subprocess.Popen([C2R, "plan", "trace.safetensors", "--cluster", "1x2",
                                   "--redundant-slots", "1", "--effort", "1e6", "-o", "plan.json"],
                                  cwd=self.folder, text=True, stdout=subprocess.PIPE)
        stat = pathlib.Path(f"/proc/{search.pid}/stat")
        ticks = lambda: sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
        while ticks() < 2 * os.sysconf("SC_CLK_TCK"):  # two seconds of work: it is searching
            time.sleep(0.01)
        search.send_signal(signal.SIGINT)
        self.assertIn("interrupted: the best found is kept", unwrapped(search.communicate(timeout=60)[0]))
        self.assertEqual(search.returncode, 0)
        self.assertEqual(self.provenance()["ended_by"], "interrupt")

    def test_a_bound_that_contiguous_experts_miss_is_said_to_cost_copies(self):
        text = unwrapped(self.make_plan("--fit", "even"))
        self.assertRegex(text, r"the bound of 1.1 on imbalance costs copies: on the fitted tokens "
                               r"1\.\d+, where contiguous experts make 1\.\d+ with a rank imbalance of "
                               r"up to 1\.\d+, which --max-imbalance 1\.\d+ allows ")
        bound = re.search("which --max-imbalance ([0-9.]+) allows", text)[1]
        self.assertNotIn("contiguous", self.make_plan("--fit", "even", "--max-imbalance", bound))

    def test_experts_on_every_rank_are_proved_optimal(self):
        self.assertIn("every layer is proved optimal", self.make_plan("--redundant-slots", "4"))

    def test_plan_and_simulate_send_copies_in_the_same_way(self):
        self.make_trace()
        for cluster, mode in ("2x2", "per-node"), ("4x1", "per-rank"), ("1x4", "per-rank"):
            self.succeed("plan", "trace.safetensors", "--cluster", cluster, "-o", "plan.json")
            planned = json.loads((self.folder / "plan.json").read_text())["predictions"]
            words = ["simulate", "plan.json", "trace.safetensors", "--json"]
            steps = json.loads(self.succeed(*words))["steps"]
            per_rank = json.loads(self.succeed(*words, "--copy-mode", "per-rank"))["steps"]
            self.assertEqual([p["copy_mode"] for p in planned], ["per-expert", mode, mode])
            for plan, step, same in zip(planned, steps, per_rank):
                for key in "copies_per_token", "wire_copies_per_token", "imbalance":
                    self.assertEqual(plan[key], step[key])
                self.assertEqual(step["copies_per_token"], same["copies_per_token"])  # the fan-out

    def test_replicas_are_planned_and_said(self):
        text = self.make_plan("--redundant-slots", "1")
        self.assertIn("\nplacement  ", text)
        self.assertIn("\nreplicas  ", text)
        self.assertIn("replicas chosen by fewest-ranks", text)
        plan = json.loads((self.folder / "plan.json").read_text())
        self.assertEqual({len(rank) for layer in plan["layers"] for rank in layer["slots"]}, {5})

    def test_what_is_lost_with_each_rank_is_said(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json", "--survive"]
        for slots, num_lost, num_layers in (([], 16, 4), (["--redundant-slots", "4"], 0, 0)):
            said = self.succeed(*words, *slots).splitlines()[-2:]
            self.assertEqual(said, [f"loss of rank {rank}: {num_lost} of 32 experts are on no other rank, in "
                                    f"{num_layers} of 4 layers" for rank in range(2)])

    def test_slots_that_experts_leave_are_said_to_hold_replicas(self):
        self.make_trace()
        words = ["plan", "trace.safetensors", "-o", "plan.json", "--effort", "0.01", "--cluster"]
        self.assertIn("8 experts do not divide over 3 ranks: the slot left holds a replica\n",
                      self.succeed(*words, "1x3"))
        self.assertIn("8 experts do not divide over 5 ranks: the 2 slots left hold replicas\n",
                      self.succeed(*words, "1x5"))
        self.assertNotIn("divide", self.succeed(*words, "1x2"))

    def test_an_exported_plan_is_what_the_engine_reads(self):
        self.make_plan()
        exported = json.loads(self.run_c2r("export", "plan.json", "--to", "vllm-49572").stdout)
        plan = json.loads((self.folder / "plan.json").read_text())
        self.assertEqual(exported, [sum(layer["slots"], []) for layer in plan["layers"]])

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
        targets = re.findall(r"^  (\w\S+)-placement +(\S+)", self.succeed("help", "import"), re.M)
        self.assertEqual(len(targets), 8)
        for target, suffix in targets:
            with self.subTest(target=target):
                theirs = "theirs" + suffix
                self.run_c2r("export", "plan.json", "--to", target, "-o", theirs)
                self.succeed(*self.IMPORT, target + "-placement", theirs)
                imported = json.loads((self.folder / "imported.json").read_text())
                self.assertEqual(imported["layers"], layers)
                self.assertEqual(imported["predictions"], [])
        text = self.succeed("compare", "trace.safetensors", "imported.json", "--on", "odd")
        self.assertRegex(text, r"imported.json .* unknown\n(.*\n)+imported.json +4\n")

    def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(self):
        (self.folder / "map.json").write_text("[[0, 1, 2, 3, 4, 5, 6, 6]]")
        words = [*self.IMPORT, "vllm-49572-placement", "map.json"]
        self.fails_with(1, "c2r import: map.json: the map has 1 rows, but there are 4 MoE layers",
                        *words)
        words[words.index("0-2,3")] = "4"
        self.fails_with(1, "c2r import: map.json: row 0: expert 7 is on no rank", *words)
        words[words.index("4")] = "3-"
        self.fails_with(2, "c2r import: --layers takes indices up to 65535 and ranges of them, "
                           "such as 0,3-60; not '3-'", *words)
        self.fails_with(2, "c2r import: format eplb-placement takes one input, and needs "
                           "--num-experts, --top-k, --layers and --cluster",
                        "import", "--from", "eplb-placement", "map.json", "-o", "imported.json")
        self.fails_with(2, "c2r import: unknown format 'eplb-placemnt'; did you mean "
                           "'eplb-placement'? `c2r help import` lists them",
                        "import", "--from", "eplb-placemnt", "map.json", "-o", "imported.json")
        self.assertFalse((self.folder / "imported.json").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
