#!/usr/bin/env python3
"""c2r compare: placements side by side, counted as the definition says."""
import json
import os
import unittest

import small_model
from command_line import CommandLine


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
            self.assertEqual("* fitted on some of the counted tokens" in text, is_fitted)
        text = self.succeed(*words[:4], "--fit", "odd", "--baselines", "eplb", "plan.json")
        self.assertRegex(text, r"eplb .* odd \*")

    def test_the_fitted_trace_is_known_by_its_content(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--fit", "even", "-o", "plan.json")
        words = ["compare", "--on", "even", "--cluster", "1x2", "--baselines", "none"]
        os.rename(self.folder / "trace.safetensors", self.folder / "renamed")
        self.assertRegex(self.succeed(*words, "renamed", "plan.json"), r"\nplan.json .* even \*")
        expert_ids = self.folder / "expert_ids.npy"
        expert_ids.write_bytes(expert_ids.read_bytes()[:-2] + b"\x01\x02")
        self.make_trace()  # another of the same name
        self.assertRegex(self.succeed(*words, "trace.safetensors", "plan.json"),
                         r"\nplan.json .*trace.safetensors, even\b")
        plan = json.loads((self.folder / "plan.json").read_text())
        del plan["provenance"]["inputs"][0]["hash"]
        (self.folder / "plan.json").write_text(json.dumps(plan))
        self.assertRegex(self.succeed(*words, "trace.safetensors", "plan.json"), r"\nplan.json .*even, by name \*")

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
        self.fails_with(2, "c2r compare: a baseline is contiguous, round-robin, random, eplb, balance, "
                           "affinity, grace, exhaustive; not 'best'",
                        "compare", "trace.safetensors", "plan.json", "--baselines", "best")
        self.fails_with(2, "c2r compare: there is nothing to compare", "compare",
                        "trace.safetensors", "--cluster", "1x2", "--baselines", "none")
        self.fails_with(2, "c2r compare: --effort requires --pareto", "compare",
                        "trace.safetensors", "plan.json", "--effort", "2")
        self.fails_with(1, "c2r compare: cannot write 'nosuch/f1.json': No such file or directory",
                        "compare", "trace.safetensors", "plan.json", "--pareto", "2", "--effort",
                        "1e6", "--front-plans", "nosuch/f")
        self.fails_with(2, "c2r compare: --bound knows a bound for --copy-mode per-rank and "
                           "per-node, not all-gather", "compare", "trace.safetensors", "plan.json", "--bound",
                        "--copy-mode", "all-gather")


if __name__ == "__main__":
    unittest.main(verbosity=2)
