#!/usr/bin/env python3
"""What a plan does in the user's engine, batch and hardware, and what counts alone are enough for."""
import json
import re
import unittest

import small_model
from command_line import CommandLine, unwrapped


class Engines(CommandLine):
    def make_plan(self, *words):
        self.make_trace()
        return self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json",
                            *words)

    def test_the_engine_decides_how_copies_are_sent_and_what_is_saved_of(self):
        self.make_trace()
        use = ["--engine", "sglang", "--backend", "deepep"]
        text = self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "-o", "plan.json", *use)
        self.assertRegex(text, r"SGLang, DeepEP normal: [0-9.]+ -> [0-9.]+ copies on the wire a token and layer, ")
        for method in ("optimize", "eplb"):
            text = self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "-o", "kb.json", *use, "--hidden", "1000",
                                "--method", method)
            self.assertRegex(text, r"SGLang, DeepEP normal: [0-9.]+ -> [0-9.]+ kB a token and layer, ")
        words = ["simulate", "plan.json", "trace.safetensors", *use, "--hidden", "1000"]
        simulated = json.loads(self.succeed(*words, "--json"))
        self.assertEqual(simulated["base"], "SGLang, DeepEP normal")
        self.assertEqual([s["step"] for s in simulated["steps"]], ["SGLang, DeepEP normal", "placement"])
        predictions = json.loads((self.folder / "plan.json").read_text())["predictions"]
        self.assertEqual([p["wire_copies_per_token"] for p in predictions],
                         [s["wire_copies_per_token"] for s in simulated["steps"]])
        normal, low_latency = simulated["engine"]["kernels"]
        for key, step in zip(("today", "planned"), simulated["steps"]):
            self.assertAlmostEqual(normal[key]["bytes_per_token"], step["wire_bytes_per_token"])
        per_expert = json.loads(self.succeed(*words[:3], "--copy-mode", "per-expert", "--hidden", "1000",
                                             "--json"))["steps"]
        for key, step in zip(("today", "planned"), per_expert):
            self.assertAlmostEqual(low_latency[key]["bytes_per_token"], step["wire_bytes_per_token"])
        today, planned = (low_latency[key]["bytes_per_token"] / 1e3 for key in ("today", "planned"))
        text = unwrapped(self.succeed(*words, "--tokens-per-second", "1e6"))
        self.assertIn(f"; DeepEP low latency: {today:.1f} -> {planned:.1f} kB a token and layer, ", text)
        total = 4 * normal["today"]["bytes_per_token"]  # of the model's MoE layers
        self.assertIn(f"; at 1000000 tokens a second {total / 1e3:.4g} -> ", text)
        self.assertIn("saved: the share of the copies on the wire of SGLang, DeepEP normal that is saved", text)
        compared = json.loads(self.succeed("compare", "trace.safetensors", "plan.json", *use, "--json"))
        self.assertEqual(compared["base"]["wire_copies_per_token"],
                         simulated["steps"][0]["wire_copies_per_token"])
        self.assertEqual(compared["engine"][0]["kernels"][0]["today"]["dispatch_copies_per_token"],
                         normal["today"]["dispatch_copies_per_token"])
        self.assertIn("the exchange is hidden under the experts' products: placement saves no time here",
                      unwrapped(self.succeed(*words[:3], "--engine", "sglang", "--backend", "megamoe")))
        for said, *wrong in (("a backend of sglang is none, deepep, ", "--engine", "sglang", "--backend", "naive"),
                             ("--copy-mode and --engine both say how copies are sent", *use, "--copy-mode", "per-rank"),
                             ("--tokens-per-second needs --engine and --hidden", "--tokens-per-second", "1")):
            done = self.run_c2r(*words[:3], *wrong)
            self.assertEqual((done.returncode, said in done.stderr), (2, True), done.stderr)

    def test_what_is_saved_has_one_base(self):
        self.make_plan()
        simulated = self.succeed("simulate", "plan.json", "trace.safetensors").splitlines()
        compared = self.succeed("compare", "trace.safetensors", "plan.json", "--baselines", "contiguous").splitlines()
        share = lambda lines, name: re.search(r"([0-9.]+) %", next(l for l in lines if l.startswith(name)))[1]
        self.assertEqual(share(simulated, "placement "), share(compared, "plan.json "))
        self.assertEqual(share(simulated, "deduplication"), share(compared, "contiguous"))

    def test_how_even_ranks_are_is_jains_index_too(self):
        self.make_plan()
        simulated = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", "--json"))["steps"][-1]
        compared = json.loads(self.succeed("compare", "trace.safetensors", "plan.json", "--baselines", "none",
                                           "--json"))["placements"][0]
        for layer, jain in zip(simulated["counts"]["layers"], compared["jain_index"]):
            loads = layer["choices"]
            self.assertAlmostEqual(jain, sum(loads) ** 2 / len(loads) / sum(x * x for x in loads))
            self.assertEqual(layer["jain_index"], jain)

    def test_a_slot_that_is_better_wasted_is_said_and_exported(self):
        # DeepSeek's algorithm puts expert 0 twice on rank 1, where it serves 2/3 of its load; no placement with an
        # expert once on a rank is as even.
        (self.folder / "counts.json").write_text(json.dumps({"logical_count": [[896, 48, 313, 72]]}))
        self.succeed("import", "--from", "sglang-loads", "counts.json", "--top-k", "1", "-o", "loads.st")
        done = self.run_c2r("plan", "loads.st", "--cluster", "1x2", "--redundant-slots", "1", "-o", "even.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("warning: balance: 1 slots in 1 of 1 layers hold an expert that another slot of their rank holds",
                      unwrapped(done.stderr))
        plan = json.loads((self.folder / "even.json").read_text())
        even = (896 * 2 / 3 + 72) * 2 / (896 + 48 + 313 + 72)
        self.assertAlmostEqual(plan["predictions"][1]["imbalance"][0], even)
        self.assertEqual(len(plan["layers"][0]["wasted_slots"]), 1)
        self.assertIn("rank imbalance of 1.0073", unwrapped(done.stdout))
        compared = json.loads(self.succeed("compare", "loads.st", "even.json", "--baselines", "eplb,balance",
                                           "--redundant-slots", "1", "--json"))
        self.assertLess(even, compared["placements"][0]["imbalance"][0])
        for entry in compared["placements"][1:]:
            self.assertAlmostEqual(entry["imbalance"][0], even)
        exported = self.run_c2r("export", "even.json", "--to", "eplb", "-o", "map.json")
        self.assertIn("warning: 1 slots in 1 of 1 layers are wasted", exported.stderr)
        self.succeed("import", "--from", "eplb-placement", "map.json", "--cluster", "1x2", "--num-experts", "4",
                     "--top-k", "1", "--layers", "0", "-o", "back.json")
        simulated = json.loads(self.succeed("simulate", "back.json", "loads.st", "--json"))["steps"][-1]
        self.assertAlmostEqual(simulated["imbalance"][0], even)
        refused = self.run_c2r("export", "even.json", "--to", "omni-infer", "-o", "m.npy")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("which omni-infer's file cannot say", refused.stderr)

    def test_counts_alone_are_enough_to_plan(self):
        self.make_trace()
        self.succeed("analyze", "trace.safetensors", "-o", "pairs.st")
        of_trace, of_pairs = (self.succeed("plan", name, "--cluster", "1x2", "-o", f"{name}.json")
                              for name in ("trace.safetensors", "pairs.st"))
        self.assertEqual(of_trace.splitlines()[:4], of_pairs.splitlines()[:4])  # top-2: the same tokens
        loads = [[40, 20, 10, 10, 0, 20, 10, 10]] * 4
        (self.folder / "counts.json").write_text(json.dumps({"logical_count": loads}))
        self.succeed("import", "--from", "sglang-loads", "counts.json", "--top-k", "2", "-o", "loads.st")
        text = self.succeed("plan", "loads.st", "--cluster", "1x2", "-o", "even.json")
        self.assertIn("on the fitted loads, a rank imbalance of 1.0000; no placement of these slots can be below 1.0000", unwrapped(text))
        self.assertIn("method balance", text)
        predictions = json.loads((self.folder / "even.json").read_text())["predictions"]
        self.assertEqual([p["placement"] for p in predictions], ["contiguous", "placement"])
        self.assertNotIn("copies_per_token", predictions[1])
        self.assertEqual(predictions[0]["imbalance"], [80 / 60] * 4)
        compared = json.loads(self.succeed("compare", "loads.st", "even.json", "--baselines", "contiguous,eplb,affinity",
                                           "--json"))
        self.assertEqual([p["copies"] for p in compared["placements"]], ["unknown from loads"] * 3)
        self.assertEqual(compared["placements"][2]["imbalance"], [1] * 4)
        self.assertEqual(len(compared["left_out"]), 1)
        self.fails_with(2, "c2r plan: loads.st, loads: loads do not say which experts are chosen together, so copies, "
                           "collaborators and what an engine sends are unknown: take the method balance or eplb, or a "
                           "trace", "plan", "loads.st", "--cluster", "1x2", "--method", "optimize", "-o", "p.json")
        self.fails_with(2, "c2r plan: loads.st holds counts, which are of all sequences, not of --fit even",
                        "plan", "loads.st", "--cluster", "1x2", "--fit", "even", "-o", "p.json")
        self.fails_with(2, "c2r compare: pairs.st holds counts: a front and bounds need the choices of each token",
                        "compare", "pairs.st", "--cluster", "1x2", "--bound")

    def test_times_are_of_the_users_batch_and_hardware(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "-o", "plan.json")
        words = ["simulate", "plan.json", "trace.safetensors", "--hardware", "h800-ib400", "--hidden", "7168",
                 "--intermediate", "2048", "--engine", "vllm", "--backend", "deepep_low_latency"]
        few, many = (json.loads(self.succeed(*words, "--json", "--batch-tokens", n))["steps"][0] for n in ("4", "4000000"))
        for layer in range(small_model.NUM_LAYERS):
            link = few["inter_node_copies_per_token"][layer]  # of each rank; in 4 tokens together
            bytes_of_rank = max(many["counts"]["layers"][layer]["sent"])
            self.assertGreater(bytes_of_rank, 0)
            self.assertGreater(few["predicted_dispatch_s"][layer], 30e-6)  # the latency
            self.assertLess(few["predicted_dispatch_s"][layer], 31e-6 + link * 14336 / 44.5e9 * 10)
            self.assertGreater(many["predicted_dispatch_s"][layer], 1e5 * 14336 / 130e9)
            # 3 x 7168 x 2048 weights of 2 bytes take 26 us; a few tokens read few experts
            self.assertLess(few["predicted_experts_s"][layer], 8 * 27e-6)
            self.assertGreater(few["predicted_experts_s"][layer], 26e-6 * 0.5)
        fp8 = json.loads(self.succeed(*words, "--json", "--batch-tokens", "4000000", "--dispatch-type", "fp8"))["steps"][0]
        for a, b in zip(fp8["predicted_dispatch_s"], many["predicted_dispatch_s"]):
            self.assertAlmostEqual((a - 30e-6) / (b - 30e-6), (7168 + 56 * 4) / 14336, places=4)
        self.assertEqual(fp8["predicted_combine_s"], many["predicted_combine_s"])
        text = self.succeed(*words, "--batch-tokens", "128")
        self.assertIn("dispatch ms", text)
        self.assertIn("predicted for a batch of 128 tokens on all ranks together", text)
        done = self.run_c2r(*words[:3], "--hardware", "h900")
        self.assertEqual(done.returncode, 2)
        self.assertIn("hardware is a100-ib200, h800-ib400, ", done.stderr)
        self.fails_with(2, "c2r simulate: --batch-tokens is for predicted times, which need --hidden and --intermediate",
                        *words[:3], "--batch-tokens", "4")

    def test_a_backend_that_gathers_is_warned_about(self):
        self.make_plan()
        done = self.run_c2r("export", "plan.json", "--to", "vllm-49572", "-o", "map.json")
        self.assertEqual(done.returncode, 0)
        self.assertIn("warning: vLLM sends every token to every rank with the default backend", done.stderr)

    def test_how_to_load_an_export_is_said_as_it_would_be_typed(self):
        self.make_plan("--redundant-slots", "1")
        done = self.run_c2r("export", "plan.json", "--to", "sglang", "-o", "map.json")
        self.assertEqual(done.stderr.splitlines()[-1], "a placement does not change the model's answers, only which "
                         "rank computes them; to go back, start the engine as before, without this file")
        self.assertEqual(done.stderr.splitlines()[-2],
                         "load it on 2 ranks with: --ep-size 2 --ep-num-redundant-experts 2 --init-expert-location "
                         "map.json --ep-dispatch-algorithm static")
        self.fails_with(2, "c2r export: --output 'map.pt' must end in .json, by which sglang knows the form of the "
                           "file", "export", "plan.json", "--to", "sglang", "-o", "map.pt")

    def test_an_engine_that_chooses_other_replicas_is_warned_about(self):
        self.make_plan("--redundant-slots", "1")
        done = self.run_c2r("export", "plan.json", "--to", "sglang", "-o", "map.json")
        self.assertIn("warning: the plan's predictions assume the replica rule fewest-ranks, but "
                      "SGLang chooses as local-first does", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
