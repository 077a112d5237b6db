"""Preparing: split, overlap, tokens and order."""

import json
import lzma

import numpy as np
import pytest
import zstandard

from training import corpus as documents
from training.batches import Batches, Corpus, read_corpus, sequences, write_corpus
from training.held_out import held_out_sequences
from training.prepare import prepare


def test_the_split_is_by_content_and_takes_two_percent():
    texts = [f"document {i}" for i in range(20000)]
    held_out = [text for text in texts if documents.is_held_out(text)]
    # 400 expected; four standard deviations of a binomial are 4 * sqrt(20000 * 0.02 * 0.98) = 80.
    assert abs(len(held_out) - 400) < 80
    assert held_out == [text for text in texts if documents.is_held_out(text)]


@pytest.mark.parametrize("num_words, is_found", [(12, False), (13, True), (14, True)])
def test_a_run_of_13_words_counts_as_overlap_whatever_its_case_and_punctuation(num_words, is_found):
    runs = documents.WordRuns()
    evaluation = np.unique(runs.of(" ".join(f"word{i}" for i in range(30))))
    shared = ", ".join(f"Word{i}" for i in range(7, 7 + num_words))
    assert documents.overlaps(f"Before that, {shared}. And after it.", runs, evaluation) == is_found


def test_every_sequence_comes_once_an_epoch_in_an_order_that_the_seed_gives():
    tokens = {"low.train": np.arange(1000, dtype=np.uint16), "high.train": np.arange(2000, 2650, dtype=np.uint16)}
    corpus = Corpus(tokens, {"low": {}, "high": {}})
    batches = Batches(corpus, 16, 4, seed=7)
    epoch = np.concatenate([batches.at(step) for step in range(batches.steps_per_epoch)])
    rows = np.concatenate([sequences(part, 16) for part in tokens.values()])
    assert len(epoch) == len(rows) // 4 * 4
    assert len(set(epoch[:, 0])) == len(epoch) and set(epoch[:, 0]) <= set(rows[:, 0])

    again, other = Batches(corpus, 16, 4, seed=7), Batches(corpus, 16, 4, seed=8)
    later = batches.steps_per_epoch + 3
    assert np.array_equal(again.at(later), batches.at(later))
    assert not np.array_equal(again.at(0), again.at(batches.steps_per_epoch))
    assert not np.array_equal(again.at(0), other.at(0))


def test_sequences_share_no_target():
    rows = sequences(np.arange(11, dtype=np.uint16), 4)
    assert rows.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert len(sequences(np.arange(4, dtype=np.uint16), 4)) == 0


def test_a_damaged_corpus_is_named(tmp_path, corpus):
    write_corpus(tmp_path / "corpus.xz", corpus.tokens, json.dumps(corpus.facts))
    read = read_corpus(tmp_path / "corpus.xz")
    assert read.facts == corpus.facts and np.array_equal(read.tokens["ones.train"], corpus.tokens["ones.train"])
    content = (tmp_path / "corpus.xz").read_bytes()
    for damaged in (content[:-40], b"no corpus", lzma.compress(b"\0" * 100)):
        (tmp_path / "corpus.xz").write_bytes(damaged)
        with pytest.raises(ValueError, match="is no prepared corpus"):
            read_corpus(tmp_path / "corpus.xz")


def write_data(folder, texts):
    (folder / "corpora").mkdir(parents=True)
    (folder / "eval").mkdir()
    (folder / "eval" / "task.jsonl").write_text(json.dumps({"query": " ".join(f"secret{i}" for i in range(20))}) + "\n")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "corpora" / "code.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))


def test_preparing_twice_gives_the_same_bytes_and_leaves_evaluation_texts_out(tmp_path):
    texts = [f"{i} apples and {i * i} pears, " * 10 for i in range(400)]
    leaked = "so " * 60 + " ".join(f"secret{i}" for i in range(4, 18))
    write_data(tmp_path, [*texts, leaked, texts[3]])
    for name in "first", "second":
        prepare(tmp_path, tmp_path / name, ("code",), vocab_size=300)
    for name in "tokenizer.json", "corpus.xz":
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

    facts = read_corpus(tmp_path / "first" / "corpus.xz").facts["code"]
    assert (facts["overlapping"], facts["repeated"]) == (1, 1)
    num_held_out = sum(map(documents.is_held_out, texts))
    assert facts["held_out"]["documents"] == num_held_out > 0
    assert facts["train"]["documents"] == 400 - num_held_out


def test_held_out_sequences_take_turns_between_domains():
    tokens = {"a.held_out": np.arange(9, dtype=np.uint16), "b.held_out": np.arange(100, 105, dtype=np.uint16)}
    corpus = Corpus(tokens, {"a": {}, "b": {}})
    assert held_out_sequences(corpus, 7, 4) == [[0, 1, 2, 3], [100, 101, 102, 103]]
    assert held_out_sequences(corpus, 100, 4) == [[0, 1, 2, 3], [100, 101, 102, 103], [4, 5, 6, 7]]


def test_a_domain_has_held_out_sequences_at_even_and_odd_places_when_another_has_ended():
    sizes = {"a": 40, "b": 7, "c": 40, "d": 40, "e": 25}  # sequences; from turns of 5 on to 4, and to 3
    tokens = {f"{name}.held_out": np.full(4 * size + 1, at, np.uint16) for at, (name, size) in enumerate(sizes.items())}
    order = [row[0] for row in held_out_sequences(Corpus(tokens, {name: {} for name in sizes}), 10_000, 4)]
    assert order[:36] == [0, 1, 2, 3, 4] * 7 + [2]  # from then on, odd turns begin with the next one
    for at, size in enumerate(sizes.values()):
        assert order.count(at) == size
        assert abs(order[::2].count(at) - order[1::2].count(at)) <= 2
