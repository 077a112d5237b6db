#!/usr/bin/env python3
"""Makes the small tokenizers that the tests compare with, and what Hugging Face gets from them.

  python3 -m venv build/venv && build/venv/bin/pip install 'transformers<5' sentencepiece protobuf
  build/venv/bin/python tools/make_tokenizer_fixtures.py tests/golden/tokenizers

Each folder gets a tokenizer, trained on the texts below, with the steps of a real family, and
expected.json: for each text its ids without and with template, and the ids decoded with and
without special tokens. Broken UTF-8 is stored as hex and decoded with errors="replace".
"""
import io
import json
import pathlib
import shutil
import sys

import sentencepiece
import transformers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

TEXTS = [
    "", " ", "a", "Hello, world!", " Hello  there,   General\n\n  Kenobi \t x  ", "\n", "   ",
    "I'll say it's we'Re DON'T they’ve", "In 2024, 1234567 of 3.14159 and ½ or ２３", "x = foo[i++] || bar->baz;\r\n\r\n}",
    "naïve café e\u0301 \ufb01n \u212bngstr\u00f6m", "\u1100\u1161\u11a8 한국어", "中文字符和日本語のテキスト、カタカナ。", "Привет, мир! Ελληνικά",
    "العربية עברית हिन्दी ไทย", "😀 👩‍👩‍👧 🇫🇷 🏳️‍🌈!", "a\u00a0b\u3000c\u180ed\u0085e\u2028f", "HTTPServer camelCase snake_case SCREAMING",
    "<|bos|>text<|eos|>", "one <mask> two<mask>three  <mask>", "subword sub word <sub>", "▁under▁score", "<s> <0x41> </s>",
    "the the the them then there " * 8, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
BROKEN = [b"caf\xc3", b"\xff\xfe x", b"\xe4\xb8 \xe4\xb8\xad \xed\xa0\x80", b"\xf0\x9f\x98ok\xf0\x9f\x98\x80\x80"]

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + "?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = ["\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
SPECIAL = [AddedToken("<|bos|>", special=True, normalized=False), AddedToken("<|eos|>", special=True, normalized=False)]
BOS_TEMPLATE = {"single": "<|bos|> $A", "special_tokens": [("<|bos|>", 0)]}


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(steps, normalizer=None, vocab_size=350, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    uses_regex = not steps
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def gpt2():
    tokenizer = byte_level([])
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False),
                          AddedToken("<sub>", rstrip=False, normalized=True),
                          AddedToken("word", single_word=True, normalized=True)])
    return tokenizer, {}


def qwen2():
    tokenizer = byte_level([split(QWEN2)], normalizers.NFC())
    return tokenizer, {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "bos_token": None,
                       "eos_token": "<|eos|>"}


def llama3():
    tokenizer = byte_level([split(LLAMA3)])
    trained = json.loads(tokenizer.to_str())
    trained["model"]["ignore_merges"] = True
    del trained["model"]["merges"][-15:]  # so that looking up differs from merging
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(**BOS_TEMPLATE)])
    return tokenizer, {}


def o200k():
    return byte_level([split(O200K, "removed", True)], normalizers.NFKC()), {}


def deepseek():
    tokenizer = byte_level([*map(split, DEEPSEEK)], normalizers.Sequence([]))
    tokenizer.post_processor = processors.TemplateProcessing(**BOS_TEMPLATE)
    return tokenizer, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True,
                       "add_eos_token": False, "bos_token": {"__type": "AddedToken", "content": "<|bos|>"},
                       "eos_token": "<|eos|>"}


def digits():
    return byte_level([split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s+$"),
                       pre_tokenizers.Digits(individual_digits=True)]), {}


def train_sentencepiece(folder, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=430, model_type="bpe",
        byte_fallback=True, character_coverage=0.99, normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2, **options)
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return str(folder / "tokenizer.model")


def write(folder, expected):
    cases = []
    for text in [*TEXTS, *BROKEN]:
        given = {"text": text} if isinstance(text, str) else {"hex": text.hex()}
        ids, template_ids, decode = expected(text if isinstance(text, str)
                                             else text.decode(errors="replace"))
        cases.append({**given, "ids": ids, "template_ids": template_ids,
                      "decoded": decode(template_ids, False), "decoded_skip": decode(template_ids, True)})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (folder / "expected.json").write_text(f"[\n{lines}\n]\n")


def write_json(folder, tokenizer, config):
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=True,
                                                      separators=(",", ":")) + "\n")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    write(folder, lambda text: (
        tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.encode(text).ids,
        lambda ids, skips: tokenizer.decode(ids, skip_special_tokens=skips)))


def write_llama(folder, model, config):
    """From tokenizer.model as transformers reads it, and the same as tokenizer.json."""
    slow, fast = (kind(vocab_file=model, **config)
                  for kind in (transformers.LlamaTokenizer, transformers.LlamaTokenizerFast))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         **config}, indent=1) + "\n")

    def expected(text):
        ids = fast.encode(text, add_special_tokens=False)
        # The two classes differ on a space in front, unless legacy; AutoTokenizer takes the fast one.
        if config["legacy"] or not text.startswith((" ", "▁")):
            assert ids == slow.encode(text, add_special_tokens=False), (folder, text)
        return (ids, fast.encode(text), lambda ids, skips: fast.backend_tokenizer.decode(
            ids, skip_special_tokens=skips))
    write(folder, expected)
    return fast


def as_transformers_5_saves(legacy):
    """The steps that transformers 5 writes for a legacy tokenizer.model: a Replace by a pattern, and Metaspace."""
    tokenizer = Tokenizer.from_file(str(legacy / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace(" ", "▁"), normalizers.Replace(Regex(r"\A▁"), "▁▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always", split=False)])
    return tokenizer


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1])
    shutil.rmtree(root, ignore_errors=True)
    for make in (gpt2, qwen2, llama3, o200k, deepseek, digits):
        write_json(root / make.__name__, *make())
    legacy = root / "llama_legacy"
    fast = write_llama(legacy, train_sentencepiece(legacy), {"legacy": True, "add_prefix_space": True})
    write_json(root / "llama_json", fast.backend_tokenizer, {})
    new = root / "llama"
    fast = write_llama(new, train_sentencepiece(new, user_defined_symbols=["<sub>"]),
                       {"legacy": False, "add_prefix_space": True, "add_eos_token": True})
    write_json(root / "llama_metaspace", fast.backend_tokenizer, {})
    write_json(root / "llama_transformers_5", as_transformers_5_saves(root / "llama_json"), {})


if __name__ == "__main__":
    main()
