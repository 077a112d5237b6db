#!/usr/bin/env python3
"""What tables and JSON say of layers over the bound on imbalance, of scenarios, and of homes by signature."""
import json
import re
import unittest

from command_line import IMPORT, CommandLine


class Predictions(CommandLine):
    def make_plan(self, *words):
        self.make_trace()
        return self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json", *words)

    def test_layers_that_miss_the_bound_are_counted_and_named(self):
        self.make_plan("--max-imbalance", "1.05", "--fit", "even")
        plan = json.loads((self.folder / "plan.json").read_text())
        met = plan["predictions"][-1]["imbalance"]
        over = [layer["layer_index"] for layer, x in zip(plan["layers"], met) if x > 1.05]
        self.assertTrue(over)
        words = ["simulate", "plan.json", "trace.safetensors", "--on", "odd"]
        step = json.loads(self.succeed(*words, "--json"))["steps"][-1]
        self.assertEqual((step["layers_over"], step["max_imbalance"]), (over, 1.05))
        self.assertEqual((step["worst_imbalance"], step["imbalance"]), (max(met), met))
        for command in (words, ["compare", "trace.safetensors", "plan.json", "--on", "odd"]):
            text = self.succeed(*command, "--layers")
            self.assertIn(f"{len(over)} of {len(met)} layers are above the bound of 1.05", text)
            self.assertRegex(text, f"{max(met):.3f} +{len(over)}/{len(met)}")
            self.assertEqual(len(re.findall(f"@ {max(met):.3f} [*]", text)) > 0, True)

    def test_homes_by_signature_are_a_step_with_whole_counts(self):
        self.make_plan("--homes", "signature")
        words = ["simulate", "plan.json", "trace.safetensors", "--homes", "signature"]
        simulated = json.loads(self.succeed(*words, "--hidden", "10", "--json"))
        step = simulated["steps"][-1]
        self.assertEqual((step["step"], step["homes"]), ("homes", "signature"))
        self.assertEqual(step["counts"]["denominator"], 1)
        prefix = simulated["homes"]["rows"][1]
        self.assertEqual((prefix["homes"], prefix["wire_copies_per_token"]),
                         ("prefix", step["wire_copies_per_token"]))
        self.assertRegex(self.succeed(*words), r"\nuniform .*\nprefix .*\nearlier turn .*\nall tokens ")
        self.make_plan()
        self.fails_with(2, "c2r simulate: the plan has no signature of homes; make it with --homes signature", *words)
        self.fails_with(2, "c2r simulate: --home-window is for --homes signature",
                        *words[:3], "--home-window", "8")

    def test_several_traces_are_fitted_together_and_each_can_be_a_scenario(self):
        self.make_trace()
        self.succeed(*IMPORT, "-o", "other.safetensors")
        words = ["plan", "trace.safetensors", "other.safetensors", "--cluster", "1x2", "-o", "plan.json"]
        text = self.succeed(*words)
        provenance = json.loads((self.folder / "plan.json").read_text())["provenance"]
        self.assertEqual([made["name"] for made in provenance["inputs"]],
                         ["trace.safetensors", "other.safetensors"])
        self.assertIn("predicted on 800 tokens of trace.safetensors + other.safetensors, all", text)
        self.assertNotIn("scenario", text)
        text = self.succeed(*words, "--scenarios", "traces", "--engine", "sglang")
        provenance = json.loads((self.folder / "plan.json").read_text())["provenance"]
        self.assertEqual(provenance["options"]["scenarios"], "traces")
        self.assertRegex(text, r"trace 2 of 2 +400 +\d\.\d{3} @ \d\.\d{3}")
        self.assertIn("scenarios of the fitted tokens: copies a token @ rank imbalance", text)
        self.succeed("simulate", "plan.json", "other.safetensors")
        self.fails_with(2, "c2r plan: there are 1 scenarios, but must be 2 to 64", "plan", "trace.safetensors",
                        "--cluster", "1x2", "-o", "x", "--scenarios", "traces")


if __name__ == "__main__":
    unittest.main(verbosity=2)
