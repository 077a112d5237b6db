#!/usr/bin/env python3
"""c2r import, analyze and collaborators: counts that the definition confirms."""
import json
import unittest

import small_model
from command_line import IMPORT, CommandLine


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

    def test_a_heat_map_fits_where_it_is_wanted(self):
        self.make_trace()
        lines = self.succeed("analyze", "trace.safetensors", "--heat-map", "0", "--heat-map-cells",
                             "4").splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("layer 0: "))
        self.assertIn("each row is a few experts", lines[first])
        self.assertTrue(lines[first + 5].startswith("experts from left to right:"))
        self.assertLessEqual(max(map(len, lines[first + 1:first + 5])), 2 * 4)

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
        (self.folder / "config.json").write_text('{"num_experts": 60}')
        self.fails_with(2, "c2r collaborators: config.json: num_experts is 60, but the statistics are of "
                     "8 experts",
                  "collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json")

    def test_a_failed_import_leaves_nothing_behind(self):
        before = sorted(self.folder.iterdir())
        words = [w if w != "8" else "7" for w in IMPORT]
        self.assertEqual(self.run_c2r(*words, "-o", "trace.safetensors").returncode, 1)
        self.assertEqual(sorted(self.folder.iterdir()), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
