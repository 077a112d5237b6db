#!/usr/bin/env python3
"""c2r tokenize, inspect, profile, score, generate and permute-checkpoint."""
import json
import lzma
import pathlib
import struct
import subprocess
import unittest

import small_model
from command_line import C2R, CommandLine


SHIPPED_MODELS = [str(pathlib.Path(__file__).resolve().parents[2] / "models" / name)
                  for name in ("nano-qwen-moe", "nano-llama-moe")]


def text_of(ids, tokenizer):
    """What the ids of a byte-level tokenizer spell, without special tokens. A token is written with a
    character for each of its bytes: the printable ones stand for themselves, and for the others, in
    order, those from U+0100 on."""
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    tokenizer = json.loads(tokenizer.read_text())
    special = {token["id"] for token in tokenizer["added_tokens"]}
    spelled = {i: word for word, i in tokenizer["model"]["vocab"].items() if i not in special}
    return bytes(byte_of[c] for i in ids if i in spelled for c in spelled[i]).decode(errors="replace")


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


class ShippedModels(CommandLine):
    def test_they_write_the_same_on_one_rank_and_on_four(self):
        for model in SHIPPED_MODELS:
            words = ["generate", model, "--prompt", "The old man looked at the sea and", "--dtype", "f32",
                     "--max-new-tokens", "64"]
            done = self.run_c2r(*words)
            self.assertEqual(done.stderr, "c2r generate: of generation_config.json only eos_token_id is used, not "
                                          "do_sample true, temperature 0.8; see --temperature and --top-p\n")
            alone = done.stdout
            self.assertGreater(len(alone.split()), 20)
            self.succeed("profile", model, "--text", "text.txt", "-o", "trace.safetensors")
            self.succeed("plan", "trace.safetensors", "--cluster", "2x2", "--redundant-slots", "1",
                         "--effort", "0.1", "-o", "plan.json")
            for mode in ("per-expert", "per-rank", "per-node"):
                with self.subTest(model=model, mode=mode):
                    self.assertEqual(self.run_c2r(*words, "--plan", "plan.json", "--ranks", "4", "--threads", "1",
                                                  "--copy-mode", mode).stdout, alone)

    def test_they_have_learnt_english(self):
        english = "The old man looked at the sea and said that he would not go to the house again."
        for name, text in (("english", english), ("shuffled", " ".join(sorted(english.split())))):
            (self.folder / f"{name}.txt").write_text(text)
        for model in SHIPPED_MODELS:
            with self.subTest(model=model):
                scores = [float(self.succeed("score", model, "--text", f"{name}.txt").split()[-1])
                          for name in ("english", "shuffled")]
                self.assertLess(scores[0], 200)       # of 8192 tokens
                self.assertGreater(scores[1], 3 * scores[0])


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

    def test_a_profile_has_token_ids_if_asked_to(self):
        for words, has_token_ids in (((), False), (("--token-ids",), True)):
            self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "t.safetensors", *words)
            found = json.loads(self.succeed("inspect", "t.safetensors", "--json"))
            self.assertEqual(found["has_token_ids"], has_token_ids)

    def test_homes_are_chosen_by_token_ids(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "--window", "8", "--token-ids", "-o",
                     "ids.safetensors")
        make = ["plan", "ids.safetensors", "--cluster", "1x2", "-o", "plan.json"]
        by_ids = ["--homes", "signature", "--home-by", "token-ids"]
        rows = r"\nuniform .*\nprefix .*\nearlier turn .*\nfirst token ids .*\nall token ids .*\nall tokens "
        self.assertRegex(self.succeed(*make, *by_ids), rows)
        simulate = ["simulate", "plan.json", "ids.safetensors", "--homes", "signature"]
        simulated = json.loads(self.succeed(*simulate, "--json"))
        row = simulated["homes"]["rows"][4]
        self.assertEqual((row["homes"], row["wire_copies_per_token"]),
                         ("all token ids", simulated["steps"][-1]["wire_copies_per_token"]))
        self.fails_with(2, "c2r plan: --home-by is for --homes signature", *make, *by_ids[2:])
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "ids.safetensors")
        message = ("homes by token ids need a trace with them, but ids.safetensors has none; `c2r profile "
                   "--token-ids` records them")
        self.fails_with(2, f"c2r plan: {message}", *make, *by_ids)
        self.fails_with(2, f"c2r simulate: {message.replace(' has', ', all has')}", *simulate)

    def test_a_permuted_checkpoint_says_the_same(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "plan.json")
        self.succeed("permute-checkpoint", "tiny_model", "--plan", "plan.json", "-o", "permuted")
        before, after = (self.succeed("generate", folder, "--dtype", "f32", "--tokens",
                                      "[1,2,3]", "--max-new-tokens", "64")
                         for folder in ("tiny_model", "permuted"))
        self.assertEqual(before, after)

    def test_keys_without_a_value_are_no_lists_to_permute(self):
        self.succeed("profile", "tiny_model", "--tokens", "tokens.jsonl", "-o", "tiny.safetensors")
        self.succeed("plan", "tiny.safetensors", "--cluster", "1x2", "-o", "plan.json")
        config = self.folder / "tiny_model" / "config.json"
        keys = {"collaborative_list": None, "top_t": None, "size_experts": None}
        config.write_text(json.dumps({**json.loads(config.read_text()), **keys}))
        self.succeed("permute-checkpoint", "tiny_model", "--plan", "plan.json", "-o", "permuted")
        written = json.loads((self.folder / "permuted" / "config.json").read_text())
        self.assertEqual({key: written[key] for key in keys}, keys)

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

    def test_texts_are_what_their_names_say(self):
        text = (self.folder / "text.txt").read_text(encoding="utf-8")
        lines = "".join(json.dumps({"text": part}) + "\n" for part in (text, text))
        (self.folder / "lines.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
        (self.folder / "lines.ndjson").write_text(lines)
        for name in "lines.jsonl.xz", "lines.ndjson":
            self.assertIn(" in 2 sequences", self.succeed("profile", "model", "--text", name, "-o", "trace"))
        self.fails_with(2, 'c2r score: a.json: is JSON, not text; give {"text": "..."} a line in a file called '
                           "*.jsonl", "score", "model", "--text", "text.txt", "a.json")

    def test_what_is_no_text_is_refused(self):
        for name, data, what in (("a.txt.zst", b"\x28\xb5\x2f\xfd\xff", "not a complete zstd file: it is cut off"),
                                 ("a.txt", b"\x28\xb5\x2f\xfd\xff", "is compressed with zstd, not text; decompress it first"),
                                 ("b.txt", b"\x1f\x8b\xff", "is compressed with gzip, not text; decompress it first"),
                                 ("a.bin", b"ab\xc3\xa4\xff", "is no text: at byte 4 there is no UTF-8 character")):
            (self.folder / name).write_bytes(data)
            self.fails_with(1, f"c2r profile: {name}: {what}", "profile", "model", "--text", name, "-o", "trace")

    def test_standard_input_is_an_input(self):
        text = (self.folder / "text.txt").read_text(encoding="utf-8")
        for words, given in (["score", "model", "--text", "-"], text), \
                (["generate", "model", "--max-new-tokens", "5", "--prompts", "-"], '"Hello"\n'):
            done = subprocess.run([C2R, *words], cwd=self.folder, text=True, input=given, capture_output=True,
                                  timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.fails_with(2, "c2r score: standard input can be read once only",
                        "score", "model", "--text", "-", "--tokens", "-")
        self.fails_with(2, "c2r profile: --output: takes the name of a file, and '-' is none",
                        "profile", "model", "--text", "text.txt", "-o", "-")

    def test_scores_say_what_they_are_of(self):
        rows = [[1, 2, 3, 4, 5], [], [7], [8, 9]]
        (self.folder / "rows.jsonl").write_text("\n" + "".join(f"{json.dumps(row)}\n" for row in rows))
        scores = [json.loads(line) for line in self.succeed(
            "score", "tiny_model", "--tokens", "rows.jsonl", "--window", "3", "--json").splitlines()]
        self.assertEqual([(s["input"], s["line"], s["piece"], s["num_tokens"]) for s in scores],
                         [("rows.jsonl", *rest) for rest in ((2, 0, 2), (2, 1, 1), (3, 0, 0), (4, 0, 0), (5, 0, 1))])
        whole = json.loads(self.succeed("score", "model", "--text", "text.txt", "--json"))
        self.assertEqual((whole["input"], whole["line"], whole["piece"]), ("text.txt", None, 0))

    def test_pairs_are_scored_by_their_continuation(self):
        pair = {"context": "Hello, ", "continuation": "world!"}
        (self.folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
        (self.folder / "hello.txt").write_text("Hello,")
        (self.folder / "whole.txt").write_text("Hello, world!")
        count = [json.loads(self.succeed("tokenize", "model", name, "--json"))["num_tokens"]
                 for name in ("hello.txt", "whole.txt")]
        score = json.loads(self.succeed("score", "model", "--pairs", "pairs.jsonl", "--json"))
        self.assertEqual(score["num_tokens"], count[1] - count[0])

    def test_rolling_windows_score_every_token_once(self):
        (self.folder / "rows.jsonl").write_text("[1, 2, 3, 4, 5]\n")
        config = json.loads((self.folder / "model" / "tokenizer_config.json").read_text())
        words = json.loads((self.folder / "model" / "tokenizer.json").read_text())["added_tokens"]
        first = next(word["id"] for word in words if word["content"] == (config.get("bos_token") or config["eos_token"]))
        ids = [first, 1, 2, 3, 4, 5]
        windows = [(ids[:4], 1), (ids[2:6], 2)]  # of 3 tokens and the one that they predict
        pairs = [{"context": tokens[:first], "continuation": tokens[first:]} for tokens, first in windows]
        (self.folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        rolling, by_pair = ([json.loads(line) for line in self.succeed("score", "model", *words, "--json").splitlines()]
                            for words in (["--tokens", "rows.jsonl", "--window", "3", "--rolling", "1"],
                                          ["--pairs", "pairs.jsonl"]))
        self.assertEqual([s["num_tokens"] for s in rolling], [3, 2])
        self.assertEqual([s["log_likelihood"] for s in rolling], [s["log_likelihood"] for s in by_pair])
        self.fails_with(2, "c2r score: --rolling is for --text and --tokens; --pairs has windows of its own",
                        "score", "model", "--pairs", "pairs.jsonl", "--rolling", "1")
        self.fails_with(2, "c2r score: each token is to have 9 tokens before it, but that must be in [1, 3], the tokens "
                           "of a window", "score", "model", "--tokens", "rows.jsonl", "--window", "3", "--rolling", "9")

    def test_generated_text_is_what_its_ids_decode_to(self):
        (self.folder / "hello.txt").write_text("Hello")
        (self.folder / "prompts.jsonl").write_text('"Hello"\n')
        ids = json.loads(self.succeed("tokenize", "model", "hello.txt", "--json"))["ids"]
        words = ["generate", "model", "--max-new-tokens", "60", "--temperature", "1", "--seed", "9"]
        generated = [int(i) for i in self.succeed(*words, "--tokens", json.dumps(ids)).split()]
        self.assertEqual(len(generated), 60)
        self.assertIn(0, generated)  # a special token, of which no text is written
        text = text_of(generated, self.folder / "model" / "tokenizer.json")
        together = self.succeed(*words, "--prompts", "prompts.jsonl")
        self.assertEqual(json.loads(together), {"text": text})
        alone = self.succeed(*words, "--prompt", "Hello")
        self.assertEqual(alone, text.replace("\r", "\n") + "\n")  # whose line ends were read as such

    def test_a_text_ends_before_the_first_stop_text(self):
        words = ["generate", "model", "--max-new-tokens", "60", "--temperature", "1", "--seed", "9"]
        (self.folder / "prompts.jsonl").write_text('"Hello"\n')
        whole = json.loads(self.succeed(*words, "--prompts", "prompts.jsonl"))["text"]
        stop = whole[20:23]
        before = whole[:whole.index(stop)]
        words += ["--stop", "never there", "--stop", stop]
        self.assertEqual(json.loads(self.succeed(*words, "--prompts", "prompts.jsonl")), {"text": before})
        self.assertEqual(self.succeed(*words, "--prompt", "Hello"), before.replace("\r", "\n") + "\n")
        (self.folder / "hello.txt").write_text("Hello")
        ids = json.loads(self.succeed("tokenize", "model", "hello.txt", "--json"))["ids"]
        generated = [int(i) for i in self.succeed(*words, "--tokens", json.dumps(ids)).split()]
        text = text_of(generated, self.folder / "model" / "tokenizer.json")
        self.assertTrue(text.startswith(before + stop))
        self.assertNotIn(stop, text_of(generated[:-1], self.folder / "model" / "tokenizer.json"))
        self.fails_with(2, "c2r generate: --stop must not be empty", *words, "--stop", "", "--prompt", "Hello")

    def test_a_prompt_may_have_its_template_already(self):
        path = self.folder / "model" / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        token = tokenizer["added_tokens"][0]
        name = token["content"]
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {name: {"id": name, "ids": [token["id"]], "tokens": [name]}}}
        path.write_text(json.dumps(tokenizer))
        (self.folder / "hello.txt").write_text("Hello")
        words = ["generate", "model", "--max-new-tokens", "20", "--dtype", "f32"]
        texts = {}
        for template in ((), ("--no-template",)):
            ids = json.loads(self.succeed("tokenize", "model", "hello.txt", "--json", *template))["ids"]
            generated = self.succeed(*words, "--tokens", json.dumps(ids)).split()
            texts[template] = text_of(map(int, generated), self.folder / "model" / "tokenizer.json")
            self.assertEqual(self.succeed(*words, "--prompt", "Hello", *template),
                             texts[template].replace("\r", "\n") + "\n")
        self.assertNotEqual(*texts.values())

    def test_a_weight_that_is_not_finite_is_named(self):
        path = self.folder / "model" / "model.safetensors"
        whole = path.read_bytes()
        end = 8 + struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8:end])
        # The first makes the gate of its layer fail, the second the logits.
        for name in ("model.layers.0.self_attn.v_proj.weight", "lm_head.weight"):
            at = end + header[name]["data_offsets"][0] + 4 * 5
            path.write_bytes(whole[:at] + struct.pack("<f", float("nan")) + whole[at + 4:])
            message = f"model/model.safetensors: value 5 of tensor '{name}' is nan, but must be finite"
            self.fails_with(1, f"c2r score: {message}", "score", "model", "--text", "text.txt")
            self.fails_with(1, f"c2r generate: {message}", "generate", "model", "--prompt", "Hello",
                            "--max-new-tokens", "2")

    def test_a_folder_with_only_a_config_is_inspected(self):
        config = self.folder / "model" / "config.json"
        config.write_text(config.read_text().replace("{", '{"dtype": "float32",', 1))
        whole = json.loads(self.succeed("inspect", "model", "--json"))
        (self.folder / "model" / "model.safetensors").unlink()
        found = json.loads(self.succeed("inspect", "model", "--json"))
        self.assertEqual((whole.pop("has_weights"), found.pop("has_weights")), (True, False))
        self.assertEqual(found, whole)
        self.assertIn("no weights   the folder has no *.safetensors; c2r would run this model, with weights in ",
                      self.succeed("inspect", "model"))
        config.write_text(config.read_text().replace("{", '{"attention_sinks": 4,', 1))
        self.fails_with(1, "c2r inspect: model/config.json: the key 'attention_sinks' (value 4) is not known; remove "
                           "it if it has no influence on the results", "inspect", "model")

    def test_many_prompts_give_the_texts_that_each_gives_alone(self):
        prompts = ["Hello", [1, 2, 3], "Hello, world! 😀", [7], "a b c d e f"]
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
        words = ["generate", "model", "--max-new-tokens", "20", "--temperature", "1"]
        together = self.succeed(*words, "--prompts", "prompts.jsonl", "--batch", "3")
        for prompt, line in zip(prompts, together.splitlines(), strict=True):
            if isinstance(prompt, str):
                alone = {"text": self.succeed(*words, "--prompt", prompt).removesuffix("\n")}
            else:
                ids = self.succeed(*words, "--tokens", json.dumps(prompt)).split()
                alone = {"tokens": [int(i) for i in ids]}
            got = json.loads(line)
            if "text" in got:  # whose line ends were read as such
                got["text"] = got["text"].replace("\r\n", "\n").replace("\r", "\n")
            self.assertEqual(got, alone)

    def test_score_knows_the_greedy_text(self):
        line = {"context": self.expected["prompt"], "continuation": self.expected["greedy"]}
        (self.folder / "lines.jsonl").write_text(json.dumps(line) + "\n")
        score = json.loads(self.succeed("score", "tiny_model", "--dtype", "f32", "--pairs",
                                        "lines.jsonl", "--json"))
        self.assertTrue(score["is_greedy"])
        self.assertEqual(score["num_tokens"], 64)
        self.assertLess(score["log_likelihood"], 0)
        self.assertEqual(len(score["token_log_likelihoods"]), 64)
        self.assertAlmostEqual(sum(score["token_log_likelihoods"]), score["log_likelihood"], 9)

    def test_mistakes_are_explained(self):
        self.fails_with(1, "c2r inspect: 'x' is not a folder with a model", "inspect", "x")
        for name in ("org/some-model", "https://huggingface.co/org/some-model",
                     "https://huggingface.co/org/some-model/tree/main"):
            self.fails_with(1, f"c2r inspect: '{name}' is not a folder with a model; if it is a model of the "
                               "Hugging Face hub, get it first: hf download org/some-model --local-dir FOLDER",
                            "inspect", name)
        self.fails_with(2, "c2r generate: give one of --prompt, --tokens and --prompts", "generate", "model")
        (self.folder / "prompts.jsonl").write_text('"Hello"\n[]\n')
        self.fails_with(2, "c2r generate: prompts.jsonl:2: the prompt has no token", "generate", "model",
                        "--prompts", "prompts.jsonl", "--max-new-tokens", "9")
        self.fails_with(2, "c2r score: give --text, --tokens or both, or else --pairs", "score", "model")
        self.fails_with(2, "c2r profile: there is no file; give --text or --tokens",
                        "profile", "model", "-o", "trace.safetensors")
        self.fails_with(1, "c2r generate: --tokens: a token is 64, but must be an integer in "
                           "[0, 63]", "generate", "tiny_model", "--tokens", "[64]")
        self.fails_with(2, "c2r generate: the prompt has no token",
                        "generate", "tiny_model", "--tokens", "[]")
        self.fails_with(2, "c2r generate: --top-p is of draws, and needs a --temperature above 0",
                        "generate", "tiny_model", "--tokens", "[1]", "--top-p", "0.5")
        self.fails_with(2, "c2r score: --dtype takes bf16 or f32, not 'f16'",
                        "score", "tiny_model", "--tokens", "tokens.jsonl", "--dtype", "f16")
        (self.folder / "bad.jsonl").write_text("[1]\n[-1]\n")
        self.fails_with(1, "c2r profile: bad.jsonl:2: a token is -1, but must be an integer in "
                           "[0, 63]",
                        "profile", "tiny_model", "--tokens", "bad.jsonl", "-o", "profile")
        self.assertFalse((self.folder / "profile").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
