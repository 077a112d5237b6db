"""Documents of the corpora: reading, the split by hash, and the check against evaluation texts."""

import hashlib
import io
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

DOMAINS = ("novels", "textbooks", "technical", "code", "stories")
OVERLAP_WORDS = 13  # words of a shared run that count as overlap, as in the GPT-3 report (2005.14165, appendix C)
MIN_DOCUMENT_CHARACTERS = 200


def read_json_lines(path: pathlib.Path) -> Iterator[dict]:
    """The objects of a .jsonl or .jsonl.zst file, one a line."""
    if path.suffix == ".zst":
        import zstandard  # only preparing needs it; machines that train may lack it

        with path.open("rb") as file:
            yield from map(json.loads, io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8"))
    else:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def read_documents(corpora: pathlib.Path, domain: str) -> Iterator[str]:
    """The documents of a domain, in the order of its file.

    A line of `stories` holds thousands of stories: paragraphs are divided by two newlines, stories by one.
    """
    for line in read_json_lines(corpora / f"{domain}.jsonl.zst"):
        texts = re.split(r"(?<!\n)\n(?!\n)", line["text"]) if domain == "stories" else [line["text"]]
        yield from (text for text in texts if len(text) >= MIN_DOCUMENT_CHARACTERS)


def is_held_out(text: str) -> bool:
    """True for 2 % of all texts, by their content alone, so that a repeated text is always on one side."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 50 == 0


class WordRuns:
    """Hashes of every run of OVERLAP_WORDS words, lower case, without punctuation."""

    def __init__(self) -> None:
        self._hash_of: dict[str, int] = {}
        self._powers = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(OVERLAP_WORDS)], np.uint64)

    def _hash(self, word: str) -> int:
        if word not in self._hash_of:
            self._hash_of[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        return self._hash_of[word]

    def of(self, text: str) -> np.ndarray:
        """uint64 [max(0, num_words - OVERLAP_WORDS + 1)]: a polynomial of the word hashes modulo 2^64."""
        words = np.array([self._hash(word) for word in re.findall(r"\w+", text.lower())], np.uint64)
        if len(words) < OVERLAP_WORDS:
            return np.empty(0, np.uint64)
        return np.lib.stride_tricks.sliding_window_view(words, OVERLAP_WORDS) @ self._powers


def strings_in(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from strings_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from strings_in(member)


def evaluation_runs(folder: pathlib.Path, runs: WordRuns) -> np.ndarray:
    """uint64 [num_runs], sorted, unique: all runs of words in the evaluation files of `folder`."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} has no .jsonl files to keep the training text clear of")
    found = [runs.of(text) for file in files for line in read_json_lines(file) for text in strings_in(line)]
    return np.unique(np.concatenate(found))


def overlaps(text: str, runs: WordRuns, evaluation: np.ndarray) -> bool:
    """True if a run of OVERLAP_WORDS words of `text` is in `evaluation` (sorted, not empty)."""
    mine = runs.of(text)
    return bool((evaluation[np.searchsorted(evaluation, mine) % len(evaluation)] == mine).any())
