#!/usr/bin/env python3
"""Compares the token ids of c2r with those of Hugging Face's tokenizers and of SentencePiece.

  python3 -m venv build/venv && build/venv/bin/pip install tokenizers sentencepiece zstandard
  build/venv/bin/python tools/compare_tokenizers.py C2R MODEL... --text FILE... [--megabytes N]

C2R is the program; each MODEL is a folder with tokenizer.json, or else tokenizer.model (compared
with SentencePiece; leave out tokenizer_config.json, which SentencePiece does not know). Texts are
.txt files, or .jsonl and .jsonl.zst with the texts in their strings; N megabytes are taken of each.
Texts of our own come on top: scripts, emoji, spaces, and random and broken UTF-8, which the others
get as Python decodes it with errors="replace". Everything is encoded and decoded without template.

Prints, per model, how many texts differ and the speed of both in MB/s of CPU time, one thread.
Ours includes reading the texts and printing the ids; loading is left out. Exit status 1: a
difference, which is shown.
"""
import argparse
import io
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

BLOCKS = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x590, 0x6FF),
          (0x900, 0xD7F), (0xE00, 0xEFF), (0x1100, 0x11FF), (0x1E00, 0x206F), (0x20A0, 0x27BF),
          (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xFB00, 0xFDFF), (0xFE00, 0xFFEF),
          (0x10400, 0x1044F), (0x1D400, 0x1D4FF), (0x1F300, 0x1F6FF), (0x20000, 0x200FF)]
WORDS = ["don't", "I'LL", "it'S", "we’re", "\u017fun", "\u212aelvin", "x\u0301y", "e\u0301",
         "\u1100\u1161\u11a8", "\ufb01n", "\u00a0", "\u3000", "\u180e", "\u0085", "\u2028", "\r\n",
         "\n\n", "\t", "  ", "   ", "\u2581", "12345", "３４５", "½", "中文", "日本語", "한국어",
         "मनी", "العربية", "ไทย", "👩‍👩‍👧", "🇫🇷", "🏳️‍🌈", "<s>", "</s>", "<unk>", "<0x0A>",
         "<|endoftext|>", "<|im_start|>", "<｜begin▁of▁sentence｜>", "(a+b)*c;", "__init__", "foo/bar"]


def own_texts(count=3000):
    rng = random.Random(1)
    for i in range(count):
        parts = []
        for _ in range(rng.randrange(1, 40)):
            low, high = rng.choice(BLOCKS)
            parts.append(rng.choice(WORDS) if rng.random() < 0.4 else
                         "".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 9))))
            parts.append(rng.choice(["", " ", "  ", "\n"]))
        data = "".join(parts).encode()
        if i % 3 == 0:  # broken
            data = bytearray(data)
            for _ in range(rng.randrange(1, 20)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        yield bytes(data)
    yield b""
    yield b" " * 5000 + b"a" * 5000 + b"\n" * 5000 + "é".encode() * 5000


def strings_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_of(item)


def texts_of(path, limit):
    """Texts of the file as bytes, until they are `limit` bytes."""
    if path.suffix == ".txt":
        yield path.read_bytes()[:limit]
        return
    stream = path.open("rb")
    if path.suffix == ".zst":
        import zstandard
        stream = zstandard.ZstdDecompressor().stream_reader(stream)
    for line in io.TextIOWrapper(stream, encoding="utf-8"):
        for text in strings_of(json.loads(line)):
            data = text.encode(errors="replace")
            limit -= len(data)
            yield data
        if limit < 0:
            return


class HuggingFace:
    def __init__(self, path):
        import tokenizers
        self.name = "tokenizers " + tokenizers.__version__
        self.model = tokenizers.Tokenizer.from_file(str(path))
        self.model.no_truncation()
        self.model.no_padding()

    def encode(self, text):
        return self.model.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.model.decode(ids, skip_special_tokens=False)


class SentencePiece:
    def __init__(self, path):
        import sentencepiece
        self.name = "sentencepiece " + sentencepiece.__version__
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.encode = self.model.encode

    def decode(self, ids):
        return None  # special tokens and broken bytes differ, in the manner of tokenizers


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_c2r(c2r, model, files):
    """The results, and the CPU time without loading."""
    def once(names):
        start = cpu_seconds()
        done = subprocess.run([c2r, "tokenize", str(model), *names, "--json", "--no-template"],
                              stdout=subprocess.PIPE, check=True)
        return done.stdout, cpu_seconds() - start
    empty = files[0].parent / "empty"
    empty.write_bytes(b"")
    loading = min(once([str(empty)])[1] for _ in range(2))
    output, seconds = once([str(file) for file in files])
    return [json.loads(line) for line in output.splitlines()], seconds - loading


def compare(c2r, model, texts, files):
    has_json = (model / "tokenizer.json").exists()
    other = (HuggingFace if has_json else SentencePiece)(
        model / ("tokenizer.json" if has_json else "tokenizer.model"))
    ours, our_seconds = run_c2r(c2r, model, files)
    different, other_seconds, num_tokens = [], 0, 0
    for number, (text, our) in enumerate(zip(texts, ours, strict=True)):
        decoded = text.decode(errors="replace")
        start = time.process_time()
        ids = list(other.encode(decoded))
        other_seconds += time.process_time() - start
        back = other.decode(ids)
        num_tokens += len(ids)
        if ids != our["ids"] or (back is not None and back != our["text"]):
            different.append((number, decoded, ids, our, back))
    megabytes = sum(map(len, texts)) / 1e6
    print(f"{model.name}: {len(texts)} texts, {megabytes:.1f} MB, {num_tokens} tokens, "
          f"{len(different)} texts differ; c2r {megabytes / our_seconds:.1f} MB/s, "
          f"{other.name} {megabytes / other_seconds:.1f} MB/s", flush=True)
    for number, text, ids, our, back in different[:3]:
        at = next((i for i, (a, b) in enumerate(zip(ids, our["ids"])) if a != b), 0)
        print(f"  text {number}, token {at}: {other.name} {ids[at:at + 6]}, c2r "
              f"{our['ids'][at:at + 6]}; {other.decode(ids[max(0, at - 3):at + 5])!r}")
        if ids == our["ids"]:
            at = next((i for i, (a, b) in enumerate(zip(back, our["text"])) if a != b), 0)
            print(f"  decoded {back[at:at + 20]!r}, c2r {our['text'][at:at + 20]!r}")
    return not different


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("c2r")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--text", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--megabytes", type=float, default=4)
    arguments = parser.parse_args()
    texts = list(own_texts())
    for path in arguments.text:
        texts += texts_of(path, int(arguments.megabytes * 1e6))
    with tempfile.TemporaryDirectory() as folder:
        # Longer arguments than the system allows are avoided by joining short texts.
        joined, files = [], []
        for text in texts:
            if joined and len(joined) > 3100 and len(joined[-1]) < 20000:
                joined[-1] += b"\n" + text
            else:
                joined.append(text)
        for number, text in enumerate(joined):
            files.append(pathlib.Path(folder) / f"{number}.txt")
            files[-1].write_bytes(text)
        same = [compare(arguments.c2r, model, joined, files) for model in arguments.models]
    return int(not all(same))


if __name__ == "__main__":
    sys.exit(main())
