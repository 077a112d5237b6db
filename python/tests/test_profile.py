"""Profiles of models of transformers: what is in the trace, and that nothing else is."""

import numpy as np
import pytest
import torch
from families import NUM_EXPERTS, NUM_LAYERS, TOP_K, VOCABULARY, random_lists, random_model

import c2r.hf

transformers = pytest.importorskip("transformers", minversion="5.23")
pytest.importorskip("c2r._c2r", reason="traces are written by the extension module: pip install .")


class LetterTokenizer:
    """A token for each letter."""

    def __call__(self, text, truncation, max_length):
        assert truncation
        return {"input_ids": [ord(letter) % VOCABULARY for letter in text][:max_length]}


TEXTS = ["collaboration", "", "of", "experts in a mixture", "x"]


def choices_alone(model, text):
    """What each layer chooses for a text on its own. [NUM_LAYERS][num_tokens, TOP_K]"""
    seen = []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda module, inputs, output: seen.append(output[2].numpy()))
        for layer in model.model.layers
    ]
    model(torch.tensor([[ord(letter) % VOCABULARY for letter in text]]))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("is_constrained", [False, True])
def test_a_trace_holds_the_tokens_of_each_text_without_padding(tmp_path, is_constrained):
    model = random_model("olmoe")
    if is_constrained:
        c2r.hf.constrain(model, random_lists(4))
    trace = c2r.hf.profile(model, LetterTokenizer(), TEXTS, tmp_path / "t.safetensors", max_length=15, batch_size=3)
    assert (trace.header.num_experts, trace.header.top_k, trace.header.num_layers) == (NUM_EXPERTS, TOP_K, NUM_LAYERS)
    lengths = [min(len(text), 15) for text in TEXTS if text]
    assert trace.num_tokens == sum(lengths)
    np.testing.assert_array_equal(trace.sequence_starts, np.cumsum([0, *lengths[:-1]]))
    for layer in range(NUM_LAYERS):
        expected = np.concatenate([choices_alone(model, text[:15])[layer] for text in TEXTS if text])
        np.testing.assert_array_equal(np.sort(trace.topk_idx(layer)), np.sort(expected))


def test_weights_are_recorded_on_request_and_the_mode_is_kept(tmp_path):
    model = random_model("olmoe").train()
    trace = c2r.hf.profile(model, LetterTokenizer(), TEXTS, tmp_path / "t.safetensors", weights=True)
    assert trace.has_weights and model.training
    # float16 keeps 11 bits
    assert np.all(trace.topk_weights(0) > 0) and np.all(trace.topk_weights(0).sum(1) < 1 + TOP_K * 2.0**-11)


def test_texts_are_read_as_they_are_needed(tmp_path):
    model, num_read, num_seen = random_model("olmoe"), 0, []

    def texts():
        nonlocal num_read
        for _ in range(20):
            num_read += 1
            yield "experts"

    model.register_forward_hook(lambda *call: num_seen.append(num_read))
    c2r.hf.profile(model, LetterTokenizer(), texts(), tmp_path / "t.safetensors", batch_size=4)
    assert num_seen == [4, 8, 12, 16, 20]


def test_nothing_is_left_after_an_error(tmp_path):
    def texts():
        yield "some"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        c2r.hf.profile(random_model("olmoe"), LetterTokenizer(), texts(), tmp_path / "t.safetensors", batch_size=1)
    with pytest.raises(ValueError, match="there are no tokens to profile"):
        c2r.hf.profile(random_model("olmoe"), LetterTokenizer(), ["", ""], tmp_path / "t.safetensors")
    assert list(tmp_path.iterdir()) == []
