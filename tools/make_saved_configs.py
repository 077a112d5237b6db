#!/usr/bin/env python3
"""Writes tests/golden/models/*/transformers_5: the configs of the golden models as transformers 5 saves them.

Loads each folder of tests/golden/models with transformers 5, checks that it computes the logits and the greedy
tokens of expected.json, which transformers 4 has computed, saves it with save_pretrained, checks that the tensors
have not changed, and keeps config.json and generation_config.json.

  build/venv-torch/bin/python tools/make_saved_configs.py     # as tools/setup_torch.sh makes it
"""
import json
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
FAMILIES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]  # transformers has no LLaMA-MoE


def tensors_of(folder):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def check_results(model, expected):
    with torch.no_grad():
        prompt, text = torch.tensor([expected["prompt"]]), expected["prompt"] + expected["greedy"]
        logits = model(prompt).logits[0]
        wanted = torch.tensor(expected["logits"])
        assert (logits - wanted).abs().max() <= 1e-4 * wanted.abs().max()
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                               max_new_tokens=len(expected["greedy"]))[0].tolist()
        assert found == text


def save(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager")  # the grouped one refuses small widths
    check_results(model, json.loads((folder / "expected.json").read_text())["plain"])
    stored = tensors_of(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=next(iter(stored.values())).dtype)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        written = tensors_of(pathlib.Path(saved))
        assert written.keys() == stored.keys()
        assert all(torch.equal(written[name], stored[name]) for name in stored)
        target = folder / "transformers_5"
        target.mkdir(exist_ok=True)
        for name in ("config.json", "generation_config.json"):
            shutil.copyfile(pathlib.Path(saved) / name, target / name)


def main():
    assert transformers.__version__.startswith("5."), transformers.__version__
    for family in FAMILIES:
        save(FOLDER / family)


if __name__ == "__main__":
    main()
