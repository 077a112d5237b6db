#!/usr/bin/env python3
"""`c2r bench`: layers and models are counted and timed, in both kinds of output."""
import json
import math
import unittest

from command_line import CommandLine

SMALL = ["olmoe", "--ranks", "4", "--tokens", "16", "--rounds", "1"]


class Bench(CommandLine):
    def test_prints_what_each_variant_sends_and_takes(self):
        text = self.succeed("bench", "exchange", *SMALL, "--cluster", "2x2", "--copy-mode", "per-node",
                            "--chunks", "3")
        self.assertIn("exchange of olmoe: 64 experts, top-8, hidden 2048", text)
        self.assertIn("4 ranks (2x2) of 16 tokens", text)
        self.assertRegex(text, r"\nas asked .*\nbaseline +[0-9.]+ +[0-9.]+ +1\.000 ")
        self.assertIn("wait_dispatch", text)
        self.assertIn("from 3", text)

    def test_counts_what_the_modes_differ_in(self):
        result = json.loads(self.succeed("bench", "exchange", *SMALL, "--ablate", "--json"))
        variants = {v["name"]: v for v in result["variants"]}
        self.assertEqual(list(variants), [
            "as asked", "without overlap", "without placement", "without local sums",
            "without deduplication", "baseline"])
        total = {(name, key): sum(map(sum, v[key])) for name, v in variants.items()
                 for key in ("dispatch_bytes", "combine_bytes", "metadata_bytes")}
        rows_out = total["as asked", "dispatch_bytes"]
        choices_out = total["baseline", "dispatch_bytes"]
        # 4 x 16 tokens with 8 choices each, of 4096 bytes, some of which stay at home.
        self.assertLessEqual(rows_out, 4 * 16 * 3 * 4096)
        self.assertLess(1.5 * rows_out, choices_out)
        self.assertEqual(total["as asked", "combine_bytes"], rows_out)
        self.assertEqual(total["without local sums", "dispatch_bytes"], rows_out)
        self.assertEqual(total["without local sums", "combine_bytes"], choices_out)
        self.assertEqual(total["without deduplication", "combine_bytes"], choices_out)
        self.assertGreater(total["baseline", "metadata_bytes"], 0)
        for variant in variants.values():
            self.assertEqual(len(variant["seconds"]), 1)
            self.assertEqual(len(variant["phase_seconds"]["experts"]), 4)

    def test_takes_choices_from_a_trace_and_experts_from_a_plan(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        text = self.succeed("bench", "layer", "llama-moe", "--ranks", "2", "--tokens", "2", "--rounds",
                            "1", "--trace", "trace.safetensors", "--plan", "plan.json", "--dtype", "f32",
                            "--row-type", "f32")
        self.assertIn("8 experts", text)
        self.assertIn("layer 0 of small, all sequences", text)

    def test_counts_what_a_model_multiplies_and_reads(self):
        def matrices(parts):
            return sum(math.prod(t["shape"]) for name, t in tensors.items()
                       if len(t["shape"]) == 2 and any(part in name for part in parts))

        tensors = {}
        for shard in (self.folder / "tiny_model").glob("*.safetensors"):
            data = shard.read_bytes()
            tensors |= json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
        tensors.pop("__metadata__", None)
        chosen = matrices([".experts."]) * 4 // 10  # top-4 of 10, all of one size
        others = matrices(["self_attn", ".mlp."]) - matrices([".experts."])
        output = matrices(["lm_head"])
        attention = 4 * 3 * 4 * 8  # two products of 3 layers of 4 heads of 8, for each position seen
        for ranks in [], ["--ranks", "2"]:
            done = self.run_c2r("bench", "model", "tiny_model", "--prompt-tokens", "6", "--steps", "5",
                                "--batch", "1", "3", "--rounds", "2", "--max-pass-tokens", "4", "--json",
                                *ranks)
            result = json.loads(done.stdout)
            prefill, single, batch = result["phases"]
            self.assertEqual([p["num_tokens"] for p in result["phases"]], [6, 5, 15])
            self.assertEqual([len(p["seconds"]) for p in result["phases"]], [2, 2, 2])
            self.assertEqual(prefill["flop"], 2 * 6 * (chosen + others) + 2 * output + attention * 21)
            self.assertEqual(single["flop"], 5 * 2 * (chosen + others + output) + attention * 15)
            self.assertEqual(batch["flop"], 3 * single["flop"])
            self.assertEqual(single["weight_bytes"], 5 * 2 * (chosen + others + output))
            self.assertLess(single["weight_bytes"], batch["weight_bytes"])
            self.assertLess(batch["weight_bytes"], 3 * single["weight_bytes"])
        text = self.succeed("bench", "model", "tiny_model", "--prompt-tokens", "6", "--steps", "2",
                            "--rounds", "1")
        self.assertRegex(text, r"\nprefill +1 +[0-9.]+ .*\ndecode +1 +.*\ndecode +8 ")

    def test_says_what_is_wrong(self):
        self.fails_with(2, "c2r bench: a sequence of 512 tokens was asked for, but the model has "
                        "positions for 1 to 128", "bench", "model", "tiny_model")
        self.fails_with(2, "c2r bench: unknown option '--step'; did you mean '--steps'?",
                        "bench", "model", "tiny_model", "--step", "3")
        self.fails_with(2, "c2r bench: a layer is qwen1.5-moe, llama-moe, olmoe, mixtral-8x7b or "
                        "deepseek-v3; not 'gpt'", "bench", "layer", "gpt")
        self.fails_with(1, "c2r bench: this program was built without CUDA; the one with it is c2r-cuda, "
                        "which the target c2r_cuda_program makes (docs/cuda.md)",
                        "bench", "layer", "olmoe", "--device", "cuda")
        self.fails_with(2, "c2r bench: the cluster has 2x2 ranks, but 2 are running",
                        "bench", "exchange", "olmoe", "--ranks", "2", "--cluster", "2x2")
        self.fails_with(2, "c2r bench: 64 experts cannot be split evenly over 3 ranks",
                        "bench", "exchange", "olmoe", "--ranks", "3")
        self.make_trace()
        self.fails_with(2, "c2r bench: trace.safetensors: has 4 layers, but --layer is 9", "bench",
                        "exchange", "olmoe", "--trace", "trace.safetensors", "--layer", "9")


if __name__ == "__main__":
    unittest.main(verbosity=2)
