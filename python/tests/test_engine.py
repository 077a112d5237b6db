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
    """ln P of each token but the first of each text, a list of token ids."""
    path = folder / "tokens.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    command = [PROGRAM, "score", folder, "--tokens", path, "--dtype", "f32", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        assert line["num_tokens"] == len(line["token_log_likelihoods"])
        assert line["log_likelihood"] == pytest.approx(sum(line["token_log_likelihoods"]), rel=1e-12)
    return [torch.tensor(line["token_log_likelihoods"], dtype=torch.float64) for line in lines]


@torch.no_grad()
def score_by_definition(model, texts):
    found = []
    for text in texts:
        log_probabilities = model(torch.tensor([text])).logits[0, :-1].double().log_softmax(-1)
        found.append(log_probabilities.gather(1, torch.tensor(text[1:]).unsqueeze(1)).squeeze(1))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("top_t", [4, [3, 6, 11]])
def test_a_saved_constrained_model_scores_every_token_as_the_model_does(family, top_t, tmp_path):
    model = random_model(family)
    with torch.no_grad():  # experts that matter, so that a missing constraint is seen
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                parameter.mul_(8)
    generator = torch.Generator().manual_seed(4)
    texts = [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in (2, 17, 33)]
    free = torch.cat(score_by_definition(model, texts))
    c2r.hf.constrain(model, random_lists(top_t))
    expected = score_by_definition(model, texts)
    model.save_pretrained(tmp_path)
    found = score(tmp_path, texts)
    assert [len(text) - 1 for text in texts] == list(map(len, found))
    bound = 1e-4 * float(torch.cat(expected).abs().max())
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=0, atol=bound)
    assert float((free - torch.cat(expected)).abs().max()) > 100 * bound  # the lists matter
