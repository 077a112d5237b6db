#!/usr/bin/env python3
"""The c2r program whatever the command: help, its examples, unknown words, files that fail."""
import json
import os
import subprocess
import unittest

from command_line import C2R, IMPORT, CommandLine

COMMANDS = ["import", "analyze", "collaborators", "plan", "simulate", "compare", "report", "export", "tokenize",
            "inspect", "profile", "score", "generate", "permute-checkpoint", "bench", "bench layer",
            "bench exchange", "bench model"]


class Help(CommandLine):
    def test_every_example_works(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.run_c2r("export", "plan.json", "--to", "sglang", "-o", "map.json")
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "tiny_plan.json")
        for command in COMMANDS:
            text = self.succeed("help", *command.split())
            self.assertEqual(text, self.succeed(*command.split(), "--help"))
            examples = text.split("Example:\n")[1].replace("\\\n", " ").strip().splitlines()
            self.assertTrue(examples)
            for line in examples:
                words = line.split()
                self.assertTrue(line.strip().startswith(f"c2r {command} "), line)
                done = self.run_c2r(*words[1:])
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_help_fits_a_terminal(self):
        for words in [["--help"], *(["help", *name.split()] for name in COMMANDS)]:
            with self.subTest(words=words):
                self.assertLessEqual(max(map(len, self.succeed(*words).splitlines())), 80)

    def test_version_names_the_build(self):
        self.assertRegex(self.succeed("--version"), r"^c2r \d+\.\d+\.\d+ \(commit \S+, .+\)\n$")


class Inspect(CommandLine):
    def inspect(self, name):
        """What --json says, after comparing the text with it."""
        text = self.succeed("inspect", name)
        described = json.loads(self.succeed("inspect", name, "--json"))
        self.assertTrue(" ".join(text.split()).startswith(f"{name}: {described['what']}"), text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
        return described

    def test_our_files_are_explained(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--fit", "even", "--top-t", "3", "-o", "plan.json")
        self.succeed("analyze", "trace.safetensors", "-o", "statistics.safetensors")
        trace = self.inspect("trace.safetensors")
        self.assertIn("a routing trace", trace["what"])
        self.assertEqual((trace["num_tokens"], trace["num_sequences"], trace["model"]), (400, 3, "small"))
        self.assertIn("how often experts were chosen together", self.inspect("statistics.safetensors")["what"])
        plan = self.inspect("plan.json")
        self.assertEqual((plan["cluster"], plan["collaborators"]), ("1 x 2 ranks", "lists of up to 3"))
        self.assertEqual(plan["made_from"], "trace.safetensors, even")
        predicted = json.loads((self.folder / "plan.json").read_text())["predictions"][-1]["imbalance"]
        self.assertAlmostEqual(plan["rank_imbalance"], sum(predicted) / len(predicted))

    def test_what_commands_print_is_explained(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        printed = {
            "what c2r compare": ["compare", "trace.safetensors", "plan.json"],
            "what c2r simulate": ["simulate", "plan.json", "trace.safetensors"],
            "the data of a report": ["report", "trace.safetensors", "--plan", "plan.json"],
            "what c2r score": ["score", "tiny_model", "--tokens", "tokens.jsonl"],
            "what c2r analyze": ["analyze", "trace.safetensors"],
            "what c2r bench model": ["bench", "model", "tiny_model", "--prompt-tokens", "4", "--steps", "1",
                                     "--rounds", "1"],
            "what c2r bench exchange": ["bench", "exchange", "olmoe", "--ranks", "2", "--tokens", "4", "--rounds", "1"],
        }
        for what, words in printed.items():
            (self.folder / "printed.json").write_text(self.succeed(*words, "--json"))
            self.assertTrue(self.inspect("printed.json")["what"].startswith(what), what)
        self.succeed("report", "trace.safetensors", "--plan", "plan.json", "-o", "report.html")
        self.assertIn("a page of c2r report", self.inspect("report.html")["what"])
        self.succeed("collaborators", "trace.safetensors", "--top-t", "3", "-o", "lists.json")
        self.assertEqual(self.inspect("lists.json")["top_t"], 3)
        (self.folder / "cluster.json").write_text('{"num_nodes": 2, "ranks_per_node": 4}')
        self.assertEqual(self.inspect("cluster.json")["ranks_per_node"], 4)

    def test_files_of_a_model_lead_to_its_folder(self):
        (self.folder / "folder").mkdir()
        (self.folder / "folder/config.json").write_text('{"model_type": "\\u009b2Jmixtral", "architectures": []}')
        config = self.inspect("folder/config.json")
        self.assertEqual(config["model_type"], "\x9b2Jmixtral")
        self.assertEqual(config["notes"], ["c2r inspect folder says whether c2r runs the model of this folder"])
        self.assertNotIn("\x9b", self.succeed("inspect", "folder/config.json", "--json"))
        (self.folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": "b"}}')
        self.assertEqual(self.inspect("model.safetensors.index.json")["num_tensors"], 1)

    def test_files_of_others_are_recognized(self):
        found = self.inspect("expert_ids.npy")
        self.assertEqual(found["format"], "npy")
        self.assertIn("c2r import --from npy expert_ids.npy makes a trace of it", found["notes"][0])
        (self.folder / "map.json").write_text('{"physical_to_logical_map": [[0, 1]]}')
        self.assertEqual(self.inspect("map.json")["format"], "sglang-placement")

    def test_what_is_neither_is_refused(self):
        (self.folder / "note.md").write_text("# A note\n")
        self.fails_with(1, "c2r inspect: 'note.md' is no file that c2r knows: it is text that begins with '# A note'; "
                           "`c2r help import` lists the formats of other programs", "inspect", "note.md")
        (self.folder / "cut.json").write_text('{"format": "c2r-plan", "version": 3}')
        done = self.run_c2r("inspect", "cut.json")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("cut.json", done.stderr)
        self.fails_with(2, "c2r inspect: --plan is for the folder of a model, and 'expert_ids.npy' is an array of "
                           "U8 [400, 4, 2], thus ids [tokens, layers, top_k]",
                        "inspect", "expert_ids.npy", "--plan", "cut.json")


class Mistakes(CommandLine):
    def test_unknown_names_are_answered_with_the_nearest(self):
        self.fails_with(2, "c2r: unknown command 'analyse'; did you mean 'analyze'?", "analyse", "x")
        self.fails_with(2, "c2r: unknown command 'plna'; did you mean 'plan'?", "plna")
        self.fails_with(2, "c2r help: unknown command 'analyse'; did you mean 'analyze'?", "help", "analyse")
        self.fails_with(2, "c2r bench: unknown command 'modl'; did you mean 'model'?", "bench", "modl")
        self.fails_with(2, "c2r help: unknown command 'models'; did you mean 'model'?", "help", "bench", "models")
        self.fails_with(2, "c2r help: unexpected argument 'x'", "help", "analyze", "x")
        self.fails_with(2, "c2r analyze: unknown option '--rank'; did you mean '--ranks'?",
                  "analyze", "x", "--rank", "2")
        self.fails_with(2, "c2r collaborators: unknown option '--topt'; did you mean '--top-t'?",
                  "collaborators", "x", "--topt=2")

    def test_a_command_without_the_one_below_it_is_told_which_there_are(self):
        self.fails_with(2, "c2r bench: a command must follow: layer, exchange, model", "bench")

    def test_a_name_that_is_like_none_gets_no_suggestion(self):
        self.fails_with(2, "c2r: unknown command 'foo'", "foo")
        self.fails_with(2, "c2r analyze: unknown option '--colour'", "analyze", "x", "--colour")
        self.fails_with(2, "c2r import: unknown format 'csv'; `c2r help import` lists them",
                        "import", "--from", "csv", "x", "-o", "y")

    def test_options_without_effect_are_usage_errors(self):
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        for message, *words in (
                ("analyze: --output: needs a name", "analyze", "trace.safetensors", "-o", ""),
                ("analyze: --ranks: there is an empty value in '2,,4'", "analyze", "trace.safetensors",
                 "--ranks", "2,,4"),
                ("generate: --seed: Value -1 not in range 0 to 9223372036854775807", "generate", "tiny_model",
                 "--tokens", "[1]", "--seed", "-1"),
                ("simulate: overlap is added or overlapped; not 'some'", "simulate", "plan.json", "trace.safetensors", "--overlap",
                 "some"),
                ("import: --layers takes indices up to 65535 and ranges of them, such as 0,3-60; not '2147483647'",
                 "import", "--from", "sglang-placement", "plan.json", "--num-experts", "8", "--top-k", "2",
                 "--cluster", "1x2", "-o", "x", "--layers", "2147483647"),
                ("import: --layers takes at most 1024 layers in all", "import", "--from", "sglang-placement",
                 "plan.json", "--num-experts", "8", "--top-k", "2", "--cluster", "1x2", "-o", "x", "--layers",
                 "0-1000,2000-3000"),
                ("analyze: --ranks takes numbers in [1, 1024], not '2x'", "analyze", "trace.safetensors",
                 "--ranks", "2x"),
                ("export: --num-hidden-layers makes no difference to eplb, only to sglang",
                 "export", "plan.json", "--to", "eplb", "--num-hidden-layers", "7"),
                ("export: sglang's map has a row for each of 2000000000 hidden layers, but may have at most "
                 "4096", "export", "plan.json", "--to", "sglang", "--num-hidden-layers", "2000000000"),
                ("bench: --layer needs --trace or --plan", "bench", "exchange", "olmoe", "--layer", "0"),
                ("bench: --on requires --trace", "bench", "exchange", "olmoe", "--on", "even")):
            self.fails_with(2, "c2r " + message, *words)

    def test_names_for_several_ranks_are_checked_on_one(self):
        words = ["score", "tiny_model", "--tokens", "tokens.jsonl"]
        self.fails_with(2, "c2r score: a copy mode is per-expert, per-rank, per-node or all-gather; not 'x'",
                        *words, "--copy-mode", "x")
        self.fails_with(2, "c2r score: a row type is f32 or bf16; not 'x'", *words, "--row-type", "x")

    def test_a_name_that_is_not_utf8_is_replaced_in_json(self):
        self.make_trace()
        name = os.fsencode(self.folder) + b"/na\xffme.safetensors"
        os.rename(self.folder / "trace.safetensors", name)
        self.succeed("plan", name, "--cluster", "1x2", "-o", "plan.json")
        for words in (["analyze", name], ["simulate", "plan.json", name], ["compare", name, "plan.json"]):
            self.assertIn("na\ufffdme.safetensors", self.succeed(*words, "--json"))

    def test_paths_that_cannot_be_looked_up_are_failures(self):
        os.symlink("loop", self.folder / "loop")
        for name, why in (("x" * 300, "File name too long"), ("loop", "Too many levels of symbolic links")):
            for words in (["inspect", name], ["score", name, "--text", "text.txt"]):
                self.fails_with(1, f"c2r {words[0]}: cannot look up '{name}': {why}", *words)
            self.fails_with(1, f"c2r tokenize: cannot look up '{name}/tokenizer.json': {why}",
                            "tokenize", name, "text.txt")
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "tiny_plan.json")
        self.fails_with(1, "c2r permute-checkpoint: cannot look up 'loop': Too many levels of symbolic links",
                        "permute-checkpoint", "tiny_model", "--plan", "tiny_plan.json", "-o", "loop")

    def test_nothing_to_do_is_a_usage_error(self):
        done = self.run_c2r()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("analyze", done.stderr)

    def test_a_missing_file_is_a_failure(self):
        self.fails_with(1, "c2r analyze: cannot open 'x': No such file or directory", "analyze", "x")

    def test_a_full_disk_is_a_failure(self):
        self.make_trace()
        for prefix, *words in (("c2r analyze", "analyze", "trace.safetensors"), ("c2r", "--help"),
                               ("c2r", "--version"), ("c2r plan", "plan", "--help")):
            with open("/dev/full", "w", encoding="ascii") as full:
                done = subprocess.run([C2R, *words], cwd=self.folder, stdout=full,
                                      stderr=subprocess.PIPE, text=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr),
                             (1, prefix + ": cannot write to standard output\n"))


class Outputs(CommandLine):
    def setUp(self):
        super().setUp()
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.succeed("analyze", "trace.safetensors", "-o", "counts.safetensors")

    def test_an_input_is_never_overwritten(self):
        os.link(self.folder / "trace.safetensors", self.folder / "same.safetensors")
        os.link(self.folder / "plan.json", self.folder / "front1.json")
        before = {path: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}
        for output, *words in (
                ("trace.safetensors", "analyze", "trace.safetensors"),
                ("./trace.safetensors", "plan", "trace.safetensors", "--cluster", "1x2"),
                ("trace.safetensors", "plan", "same.safetensors", "--cluster", "1x2"),
                ("counts.safetensors", "collaborators", "counts.safetensors", "--top-t", "3"),
                ("plan.json", "export", "plan.json", "--to", "eplb"),
                ("expert_ids.npy", *IMPORT),
                ("text.txt", "profile", "model", "--text", "text.txt"),
                ("model/config.json", "profile", "model", "--text", "text.txt")):
            done = self.run_c2r(*words, "-o", output)
            self.assertEqual((done.returncode, done.stdout), (2, ""), words)
            self.assertIn(f"--output '{output}' would overwrite the input '", done.stderr)
        self.fails_with(2, "c2r compare: --output 'front1.json' would overwrite the input 'front1.json'",
                        "compare", "trace.safetensors", "front1.json", "--pareto", "2", "--front-plans", "front")
        self.assertEqual(before, {path: path.read_bytes() for path in before})
        self.succeed("collaborators", "trace.safetensors", "--top-t", "3", "--config", "config.json",
                     "-o", "config.json")

    def test_what_cannot_be_written_is_said_before_any_input_is_read(self):
        for words in (["analyze", "x"], ["plan", "x", "--cluster", "1x2"], ["export", "x", "--to", "eplb"],
                      ["collaborators", "x", "--top-t", "3"], ["import", "x", "--from", "npy"]):
            self.fails_with(1, f"c2r {words[0]}: cannot write 'missing/y': No such file or directory",
                            *words, "-o", "missing/y")

    def test_an_analysis_that_fails_writes_nothing(self):
        for words in (["--ranks", "3"], ["--heat-map", "zzz"], ["--heat-map", "zzz", "--json"]):
            done = self.run_c2r("analyze", "trace.safetensors", *words, "-o", "s.safetensors")
            self.assertEqual(done.returncode, 2)
            self.assertFalse((self.folder / "s.safetensors").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
