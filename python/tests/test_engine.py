"""Constrained checkpoints of transformers in c2r's engine: `c2r score` finds texts as likely as the model does."""

import json
import pathlib
import subprocess

import pytest
import torch
from families import CONFIGS, VOCABULARY, random_lists, random_model

import c2r
import c2r.hf

pytest.importorskip("transformers", minversion="5.23")
pytest.importorskip("c2r._c2r", reason="the program comes with the installed package: pip install .")

PROGRAM = pathlib.Path(c2r.__file__).with_name("c2r")
FAMILIES = [family for family in CONFIGS if family != "gpt_oss"]  # which the engine refuses by name


def score(folder, texts):
    """ln P of each text, a list of token ids."""
    path = folder / "tokens.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    command = [PROGRAM, "score", folder, "--tokens", path, "--dtype", "f32", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["log_likelihood"] for line in done.stdout.splitlines()]


@torch.no_grad()
def score_by_definition(model, texts):
    found = []
    for text in texts:
        log_probabilities = model(torch.tensor([text])).logits[0, :-1].double().log_softmax(-1)
        found.append(log_probabilities.gather(1, torch.tensor(text[1:]).unsqueeze(1)).sum().item())
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("top_t", [4, [3, 6, 11]])
def test_a_saved_constrained_model_scores_texts_as_the_model_does(family, top_t, tmp_path):
    model = random_model(family)
    model.config.eos_token_id = 1  # OLMoE's default lies outside a tiny vocabulary
    with torch.no_grad():  # experts that matter, so that a missing constraint is seen
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                parameter.mul_(8)
    generator = torch.Generator().manual_seed(4)
    texts = [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in (2, 17, 33)]
    free = score_by_definition(model, texts)
    c2r.hf.constrain(model, random_lists(top_t))
    expected = score_by_definition(model, texts)
    model.save_pretrained(tmp_path)
    largest = max(map(abs, expected))
    for found, wanted in zip(score(tmp_path, texts), expected, strict=True):
        assert abs(found - wanted) <= 1e-4 * largest
    assert max(abs(a - b) for a, b in zip(free, expected, strict=True)) > 1e-4 * largest  # the lists matter
