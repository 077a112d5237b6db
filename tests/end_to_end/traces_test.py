#!/usr/bin/env python3
"""c2r import, analyze and collaborators: counts that the definition confirms."""
import json
import os
import random
import struct
import subprocess
import unittest
import zipfile

import small_model
from command_line import C2R, IMPORT, CommandLine


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

    def test_arrays_of_an_npz_file_are_layers(self):
        def array(values):  # [tokens, 2] of int16, as numpy.savez() has it
            header = f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({len(values) // 2}, 2), }}".ljust(117) + "\n"
            return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + struct.pack(
                f"<{len(values)}h", *values)

        layers = {"L3_idx": [0, 1, 2, 3, 7, 6], "L10_idx": [5, 4, 3, 2, 1, 0]}
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # savez(), savez_compressed()
            with self.subTest(compression=compression):
                with zipfile.ZipFile(self.folder / "ids.npz", "w", compression) as archive:
                    for name, values in layers.items():
                        archive.writestr(name + ".npy", array(values))
                self.succeed("import", "--from", "npy", "ids.npz", "--num-experts", "8", "-o", "t.safetensors")
                with (self.folder / "t.safetensors").open("rb") as file:
                    (size,) = struct.unpack("<Q", file.read(8))
                    header, data = json.loads(file.read(size)), file.read()
                self.assertEqual(json.loads(header["__metadata__"]["layer_indices"]), [3, 10])
                for at, values in enumerate(layers.values()):
                    begin, end = header[f"layers.{at}.topk_idx"]["data_offsets"]
                    self.assertEqual(list(data[begin:end]), values)

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
        said = self.succeed("collaborators", "trace.safetensors", "--top-t", "3", "--config",
                     "config.json", "-o", "new.json")
        self.assertEqual(said, "new.json: lists of 3 collaborators for 8 experts in each of 4 layers\n")
        before = json.loads((self.folder / "config.json").read_text())
        after = json.loads((self.folder / "new.json").read_text())
        lists = after.pop("collaborative_list")
        self.assertEqual(after.pop("top_t"), 3)
        self.assertEqual(after, before)
        for layer in lists:
            for expert, collaborators in enumerate(layer):
                self.assertEqual(sorted(collaborators), list(range(8)))
                self.assertEqual(collaborators[-1], expert)

    def test_a_heat_map_fits_where_it_is_wanted(self):
        self.make_trace()
        lines = self.succeed("analyze", "trace.safetensors", "--heat-map", "0", "--heat-map-cells",
                             "4").splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("layer 0: "))
        last = next(at for at, line in enumerate(lines) if line.startswith("experts from left to right:"))
        self.assertIn("mean share of one of the column's experts", " ".join(lines[first:last - 4]))
        self.assertEqual(last - first, 2 + 4)  # the sentence takes two lines
        self.assertLessEqual(max(map(len, lines[last - 4:last])), 2 * 4)

    def test_tables_fold_and_shades_are_those_that_the_locale_has(self):
        self.make_trace()
        for locale, solid in (("C", "##"), ("C.UTF-8", "██")):
            with self.subTest(locale=locale):
                done = subprocess.run([C2R, "analyze", "trace.safetensors", "--ranks", "1,2,4,8"], cwd=self.folder,
                                      env={**os.environ, "LC_ALL": locale}, capture_output=True, encoding="utf-8",
                                      timeout=240, check=True)
                lines = done.stdout.splitlines()
                self.assertLessEqual(max(map(len, lines)), 80)
                self.assertEqual([line.split()[0] for line in lines if line.startswith("layer  ")], ["layer"] * 2)
                self.assertIn(solid, done.stdout)

    def test_results_do_not_depend_on_threads(self):
        self.make_trace()
        one, two = (self.succeed("analyze", "trace.safetensors", "--json", "--threads", n)
                    for n in "12")
        self.assertEqual(one, two)


class Mistakes(CommandLine):
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

    def test_another_format_points_to_import(self):
        path = self.folder / "weights.safetensors"
        path.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
        self.fails_with(1, "c2r analyze: weights.safetensors: is not a routing trace: its metadata lacks "
                     "format = c2r.trace; `c2r import` reads other formats",
                  "analyze", "weights.safetensors")

    def test_a_config_of_another_model_is_refused(self):
        self.make_trace()
        path = self.folder / "config.json"
        config = {"num_hidden_layers": 4, **json.loads(path.read_text())}
        experts = {"num_hidden_layers": 6, "mlp_only_layers": [0, 2]}
        for keys, what in (
                ({"num_experts": 60}, "num_experts is 60, but the statistics are of 8 experts"),
                ({"num_experts_per_tok": 4}, "num_experts_per_tok is 4, but the statistics are of top-2"),
                ({"num_hidden_layers": 24}, "24 of its layers have experts (0-23), but the statistics are of 4 (0-3)"),
                (experts, "4 of its layers have experts (1, 3-5), but the statistics are of 4 (0-3)")):
            path.write_text(json.dumps({**config, **keys}))
            self.fails_with(2, f"c2r collaborators: config.json: {what}",
                            "collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json")
        path.write_text('{"num_experts": 8}')
        self.fails_with(1, "c2r collaborators: config.json: is no config.json of a model, which has a model_type",
                        "collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json")
        path.write_text(json.dumps({**config, "model_type": "mixtral", "num_local_experts": 8}))
        self.fails_with(1, "c2r collaborators: config.json: the key 'hidden_size' is missing",
                        "collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json")

    def test_lists_are_of_experts_that_met(self):
        self.make_trace()
        warning = r"^warning: \d+ of 32 experts were chosen together with fewer than 7 others; their lists are " \
                  r"filled up by expert id: count more tokens, or take a smaller --top-t\n$"
        for words in (["collaborators", "trace.safetensors", "-o", "lists.json"],
                      ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json"]):
            done = self.run_c2r(*words, "--top-t", "7")
            self.assertEqual(done.returncode, 0)
            self.assertRegex(done.stderr, warning)
        small_model.write_npy(self.folder / "expert_ids.npy", "|u1", (8, 1, 1), bytes(range(8)))
        self.succeed(*IMPORT, "-o", "trace.safetensors")
        for words in (["collaborators", "trace.safetensors"],
                      ["plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json"]):
            self.fails_with(2, f"c2r {words[0]}: layer 0: no token chose two experts, so nothing is known of "
                               "collaborators", *words, "--top-t", "3")

    def test_import_finds_the_format_by_what_is_in_the_file(self):
        words = ["import", "expert_ids.npy", "--num-experts", "8", "-o", "found.safetensors"]
        self.assertIn("\nread as --from npy: an array of U8 [", self.succeed(*words))
        self.succeed("import", "--from", "npy", *words[1:-1], "named.safetensors")
        self.assertEqual((self.folder / "found.safetensors").read_bytes(),
                         (self.folder / "named.safetensors").read_bytes())
        (self.folder / "notes.txt").write_text("some notes\n")
        self.fails_with(2, "c2r import: notes.txt looks like text that begins with 'some notes'; `c2r help "
                           "import` lists the formats that --from can name", "import", "notes.txt", "-o", "x")

    def test_a_placement_says_how_many_slots_its_layers_have(self):
        # Each of 2 ranks holds 2 experts of layer 0 and 3 of layer 1.
        small_model.write_npy(self.folder / "pattern.npy", "|u1", (2, 2, 4),
                              bytes([1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1]))
        told = self.succeed("import", "--from", "omni-infer-placement", "pattern.npy", "--num-experts", "4", "--top-k",
                            "2", "--layers", "0-1", "--cluster", "1x2", "-o", "plan.json")
        self.assertIn("2 to 3 slots on each of 2 ranks", told)

    def test_a_simulation_routes_again_from_logits(self):
        rng = random.Random(1)
        logits = [[rng.randrange(64) / 8 for _ in range(8)] for _ in range(60)]
        best = [sorted(range(8), key=lambda e: (-row[e], e)) for row in logits]
        for rank in range(2):  # each the half of the tokens, thus a sequence
            tokens = range(30 * rank, 30 * rank + 30)
            bits = [struct.unpack("<I", struct.pack("<f", x))[0] >> 16 for t in tokens for x in logits[t]]
            (self.folder / f"logits_rank{rank}.bin").write_bytes(struct.pack(f"<{len(bits)}H", *bits))
            (self.folder / f"trace_{rank}.jsonl").write_text(json.dumps({
                "step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 3, "rank": rank,
                "num_tokens": 30, "topk": 2, "top_indices": [best[t][:2] for t in tokens],
                "logit_offset": 0, "logit_bytes": 480, "logit_shape": [30, 8]}) + "\n")
        self.succeed("import", "trace_0.jsonl", "trace_1.jsonl", "--num-experts", "8", "-o", "trace.safetensors")
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--top-t", "4", "-o", "plan.json")
        layer = json.loads((self.folder / "plan.json").read_text())["layers"][0]
        words = ["simulate", "plan.json", "trace.safetensors", "--top-t", "3", "--policy", "device-limited:1"]
        said = json.loads(self.succeed(*words, "--json"))
        steps = {step["step"]: step for step in said["steps"]}
        self.assertEqual(list(steps)[-2:], ["top-t:3", "device-limited:1"])
        self.assertEqual(steps["device-limited:1"]["copies_per_token"], [1])
        rank_of = {expert: rank for rank, experts in enumerate(layer["slots"]) for expert in experts}
        copies = 0
        for first, *others in best:
            second = next(e for e in others if e in layer["collaborators"][first][:3])
            copies += len({rank_of[first], rank_of[second]})
        self.assertAlmostEqual(steps["top-t:3"]["copies_per_token"][0], copies / 60)
        self.assertEqual((said["num_choices"], said["num_other_choices"]), (60, 0))
        self.assertIn("top-t:3: on 60 tokens of trace.safetensors, all, routed by top-t:3\n", self.succeed(*words))
        self.fails_with(2, "c2r simulate: the plan lists 4 collaborators of an expert in layer 3, but 5 are asked "
                           "for: make it with c2r plan --top-t 5",
                        "simulate", "plan.json", "trace.safetensors", "--top-t", "5")

    def test_a_failed_import_leaves_nothing_behind(self):
        before = sorted(self.folder.iterdir())
        words = [w if w != "8" else "7" for w in IMPORT]
        self.assertEqual(self.run_c2r(*words, "-o", "trace.safetensors").returncode, 1)
        self.assertEqual(sorted(self.folder.iterdir()), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
