"""The comparison with another implementation finds what differs."""

import json
import math
import shutil
import sys

import pytest
import torch

from training.batches import write_corpus
from training.check_engine import agrees, compare, main

ROWS = [[0, 1, 2, 0], [2, 2, 1]]


def logits_of(row: list[int]) -> torch.Tensor:
    """Token t is followed by t + 1 modulo 3, with a probability of 1 / (1 + 2 * 2^-4) = 8 / 9."""
    return torch.nn.functional.one_hot((torch.tensor(row) + 1) % 3, 3).float() * math.log(16)


LIKELY, UNLIKELY = math.log(8 / 9), math.log(1 / 18)
RIGHT = [LIKELY, LIKELY, LIKELY, UNLIKELY, UNLIKELY]


def test_right_log_probabilities_agree():
    worst, scale, num_tokens = compare(ROWS, RIGHT, logits_of)
    # The logits are float32, near 4: their sums are off by a few times 2^-22.
    assert worst < 2**-20 and scale == pytest.approx(math.log(16)) and num_tokens == 5
    assert agrees(worst, scale)


@pytest.mark.parametrize("at", range(5))
def test_one_wrong_log_probability_is_found(at):
    for wrong in (RIGHT[at] + 0.01, math.nan, -math.inf):
        worst, scale, _ = compare(ROWS, [*RIGHT[:at], wrong, *RIGHT[at + 1 :]], logits_of)
        assert math.isnan(worst) or worst > 0.009
        assert not agrees(worst, scale)


def test_logits_that_are_no_numbers_are_found():
    worst, scale, _ = compare(ROWS, RIGHT, lambda row: logits_of(row) * math.nan)
    assert not agrees(worst, scale)


@pytest.mark.parametrize(
    "program, message", [("missing", "there is no program"), ("false", "ended with 1 and no message")]
)
def test_an_engine_that_fails_is_one_line(program, message, corpus, tmp_path, monkeypatch, capsys):
    write_corpus(tmp_path / "corpus.xz", corpus.tokens, json.dumps(corpus.facts))
    found = shutil.which(program) or str(tmp_path / program)
    words = ["check_engine", str(tmp_path), "--c2r", found, "--corpus", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 1
    said = capsys.readouterr().err
    assert said.startswith("training.check_engine: ") and message in said and said.count("\n") == 1
