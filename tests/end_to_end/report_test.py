#!/usr/bin/env python3
"""c2r report: a page that holds the numbers of the other commands, and figures of it."""
import html.parser
import json
import unittest
import xml.etree.ElementTree

from command_line import CommandLine


class Data(html.parser.HTMLParser):
    """The text of the element "report-data", and the tags that are open at the end."""

    def __init__(self):
        super().__init__()
        self.is_inside, self.text, self.open = False, "", []

    def handle_starttag(self, tag, attrs):
        self.is_inside = dict(attrs).get("id") == "report-data"
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
        self.is_inside = False

    def handle_data(self, data):
        if self.is_inside:
            self.text += data


class Reports(CommandLine):
    def setUp(self):
        super().setUp()
        self.make_trace()
        self.succeed("plan", "trace.safetensors", "--cluster", "1x2", "--fit", "even", "-o", "plan.json")

    def report(self, *words):
        return self.succeed("report", "trace.safetensors", "--plan", "plan.json", "--on", "odd",
                            "--hidden", "64", *words)

    def refuse(self, status, message, *words):
        done = self.run_c2r(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (status, "", 1), done.stderr)
        self.assertIn(message, done.stderr)

    def test_the_page_holds_what_the_other_commands_print(self):
        page = self.report()
        data = Data()
        data.feed(page)
        self.assertEqual(data.open, [])
        report = json.loads(data.text)
        self.assertEqual(report, json.loads(self.report("--json")))
        simulated = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", "--on", "odd",
                                            "--hidden", "64", "--json"))
        for step in [*report["steps"], *simulated["steps"]]:
            step.pop("trace")  # its name and part, in the words of each command
        self.assertEqual(report["steps"], simulated["steps"])

    def test_the_answer_is_about_the_engine(self):
        words = ["--engine", "sglang", "--backend", "deepep", "--hidden", "64", "--intermediate", "32",
                 "--hardware", "h100-ib400", "--batch-tokens", "64", "--json"]
        report = json.loads(self.succeed("report", "trace.safetensors", "--plan", "plan.json", *words))
        simulated = json.loads(self.succeed("simulate", "plan.json", "trace.safetensors", *words))
        for key in simulated["engine"]:
            self.assertEqual(report["engine"][key], simulated["engine"][key], key)
        self.assertEqual(report["resampled"], simulated["resampled"])
        self.assertEqual(report["resampled"]["num_sequences"], 3)
        self.assertIn("Your engine (SGLang, DeepEP normal) sends ", report["answer"]["sentence"])
        self.assertIn(" time at 32 tokens a rank (over resampled sequences it ", report["answer"]["sentence"])
        self.assertIn("3 sequences are too few", report["answer"]["sentence"])

    def test_the_analysis_is_that_of_the_counted_tokens(self):
        report = json.loads(self.succeed("report", "trace.safetensors", "--plan", "plan.json", "--json"))
        analysis = json.loads(self.succeed("analyze", "trace.safetensors", "--json"))
        for layer in analysis["layers"]:
            layer["fan_out"] = {}
            layer.pop("experts")
        self.assertEqual(report["analysis"]["layers"], analysis["layers"])

    def test_figures_are_pictures_of_their_own(self):
        compared = self.succeed("compare", "trace.safetensors", "plan.json", "--on", "odd", "--json")
        (self.folder / "compared.json").write_text(compared)
        for name in "waterfall layers loads drift front links sequence".split():
            picture = self.report("--compare", "compared.json", "--figure", name)
            self.assertTrue(xml.etree.ElementTree.fromstring(picture).tag.endswith("svg"), name)

    def write(self, name, *words):
        (self.folder / name).write_text(self.succeed(*words))
        return name

    def test_measurements_of_other_commands_are_shown(self):
        score = self.write("score.jsonl", "score", "tiny_model", "--tokens", "tokens.jsonl", "--json")
        bench = self.write("bench.json", "bench", "layer", "olmoe", "--ranks", "2", "--tokens", "4",
                           "--rounds", "1", "--json")
        simulated = self.write("simulated.json", "simulate", "plan.json", "trace.safetensors", "--constrained",
                               "trace.safetensors", "--json")
        words = ["--score", score, "--score", f"3={score}", "--constrained", f"3={simulated}", "--bench", bench]
        report = json.loads(self.report(*words, "--json"))
        lines = [json.loads(line) for line in (self.folder / score).read_text().splitlines()]
        unconstrained, three = report["constraint"]
        self.assertEqual((unconstrained["top_t"], three["top_t"]), (None, 3))
        self.assertEqual(three["score"]["num_tokens"], sum(line["num_tokens"] for line in lines))
        steps = json.loads((self.folder / simulated).read_text())["steps"]
        copies = steps[-1]["wire_copies_per_token"]
        self.assertAlmostEqual(three["traffic"]["wire_copies_per_token"], sum(copies) / len(copies))
        variants = json.loads((self.folder / bench).read_text())["variants"]
        self.assertEqual([one["name"] for one in report["measured"]["variants"]], [one["name"] for one in variants])
        for name in "constraint", "measured":
            picture = self.report(*words, "--figure", name)
            self.assertTrue(xml.etree.ElementTree.fromstring(picture).tag.endswith("svg"), name)
        self.assertIn('id="measured"', self.report(*words))

    def test_mistakes_are_said_in_one_line(self):
        words = ["report", "trace.safetensors", "--plan", "plan.json"]
        refuse = self.refuse
        refuse(2, "a figure of this report is waterfall, layers", *words, "--figure", "front")
        refuse(1, "not what `c2r compare --json` prints", *words, "--compare", "plan.json")
        refuse(1, "not what `c2r score --json` prints", *words, "--score", "plan.json")
        refuse(1, "not what `c2r bench layer --json`", *words, "--bench", "plan.json")
        refuse(1, "it has no step 'constraint'", *words, "--constrained", "3=plan.json")
        refuse(2, "--constrained takes T=FILE", *words, "--constrained", "plan.json")
        refuse(1, "cannot open", *words[:2], "--plan", "none.json")
        refuse(2, "would overwrite the input", *words, "-o", "plan.json")


if __name__ == "__main__":
    unittest.main()
