#!/usr/bin/env python3
"""Tries every family and switch of c2r against the transformers that is installed, such as a new version.

    pip install torch transformers     # any version from 4.57 on
    tools/try_transformers.py build/release/c2r

For each row of the tables below a tiny random model is made with this setting, saved by save_pretrained, and run by both.
c2r must give each token of a text the log-likelihood that transformers gives it in f32, and must continue a prompt with
the same tokens, or refuse the folder in one line where the table says so. Then it tries random combinations of the
settings that run. Meant to run every night, or before the supported version is raised; exits with 1 if a row fails.
"""
import argparse
import copy
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402

VOCABULARY, NEW_TOKENS = 97, 12
TEXT = [3, 50, 7, 22, 9, 81, 15, 4, 60, 33, 2, 95, 41, 7, 7, 12]
COMMON = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts_per_tok": 3,
          "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SHARED = {"num_experts": 8, "moe_intermediate_size": 16}
FAMILIES = {
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_experts": 8},
    "qwen2_moe": {**SHARED, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**SHARED, "head_dim": 8},
}
RUNS, IS_REFUSED = True, False
# (settings, whether c2r runs them), for every family and for some
SETTINGS = [
    ({}, RUNS),
    ({"num_key_value_heads": 1}, RUNS), ({"num_key_value_heads": 4}, RUNS),
    ({"head_dim": 16}, RUNS),
    ({"tie_word_embeddings": True}, RUNS),
    ({"rms_norm_eps": 1e-2}, RUNS),
    ({"rope_theta": 50.0}, RUNS),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, RUNS),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, IS_REFUSED),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, IS_REFUSED),
    ({"hidden_act": "gelu"}, IS_REFUSED),
    ({"num_experts_per_tok": 1}, RUNS), ({"num_experts_per_tok": 8}, RUNS),
    ({"eos_token_id": 5}, RUNS), ({"eos_token_id": [5, 6]}, RUNS), ({"eos_token_id": VOCABULARY + 5}, RUNS),
    ({"output_router_logits": True, "router_aux_loss_coef": 0.5, "attention_dropout": 0.1, "use_cache": False}, RUNS),
]
SETTINGS_OF = {
    "mixtral": [({"sliding_window": 4}, IS_REFUSED), ({"sliding_window": 64}, RUNS), ({"router_jitter_noise": 0.1}, RUNS)],
    "olmoe": [({"norm_topk_prob": True}, RUNS), ({"clip_qkv": 0.5}, RUNS), ({"attention_bias": True}, IS_REFUSED)],
    "qwen2_moe": [({"norm_topk_prob": True}, RUNS), ({"decoder_sparse_step": 2}, RUNS), ({"mlp_only_layers": [0]}, RUNS),
                  ({"mlp_only_layers": [0, 2]}, RUNS), ({"shared_expert_intermediate_size": 40}, RUNS),
                  ({"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1}, RUNS),
                  ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, IS_REFUSED)],
    "qwen3_moe": [({"norm_topk_prob": True}, RUNS), ({"decoder_sparse_step": 2}, RUNS), ({"mlp_only_layers": [1]}, RUNS),
                  ({"attention_bias": True}, IS_REFUSED), ({"use_sliding_window": False, "sliding_window": 4}, RUNS)],
}
# How a model is saved.
FORMS = [{"dtype": torch.float32}, {"dtype": torch.bfloat16}, {"dtype": torch.float16},
         {"dtype": torch.float32, "max_shard_size": "40KB"}]
TOLERANCE = 2e-4  # of log-likelihoods: f32 sums of up to 32 products in another order, through 3 layers


def random_model(family, settings, seed):
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **{**COMMON, **FAMILIES[family], **settings})
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:  # so large that they decide about the next token
                parameter.mul_(60 if "gate.weight" in name else 8)
    return model


def save(model, form, folder):
    """Saves the model in the form. Returns it with the weights that it then has; its frequencies stay in f32."""
    saved = copy.deepcopy(model).to(form["dtype"])
    saved.save_pretrained(folder, **{key: form[key] for key in form if key != "dtype"})
    for parameter in model.parameters():
        parameter.data = parameter.data.to(form["dtype"]).float()
    return model


def by_transformers(model):
    """The log-likelihoods of TEXT after its first token, and the tokens after TEXT."""
    tokens = torch.tensor([TEXT])
    with torch.no_grad():
        scores = torch.log_softmax(model(tokens).logits[0, :-1].double(), -1)
        found = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=NEW_TOKENS, do_sample=False)
    return scores.gather(1, tokens[0, 1:, None])[:, 0].tolist(), found[0, len(TEXT):].tolist()


def by_c2r(program, folder):
    """The same, or the line that c2r refuses the folder with. Raises RuntimeError if it ends in another way."""
    tokens = folder / "tokens.jsonl"
    tokens.write_text(json.dumps(TEXT) + "\n")
    options = ["--dtype", "f32", "--threads", "1"]
    commands = [["score", folder, "--tokens", tokens, "--json"],
                ["generate", folder, "--tokens", json.dumps(TEXT), "--max-new-tokens", str(NEW_TOKENS)]]
    outputs = []
    for words in commands:
        done = subprocess.run([program, *map(str, words), *options], capture_output=True, text=True, check=False)
        if done.returncode == 1 and len(done.stderr.splitlines()) == 1:
            return done.stderr.strip()
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr}")
        outputs.append(done.stdout)
    return json.loads(outputs[0])["token_log_likelihoods"], [int(token) for token in outputs[1].split()]


def judge(program, family, settings, form, runs, seed):
    """What happened, and whether that is as it must be."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            model = save(random_model(family, settings, seed), form, folder)
            scores, text = by_transformers(model)
        except (TypeError, ValueError, KeyError, RuntimeError) as e:
            return f"this transformers cannot run it: {str(e).splitlines()[0][:100]}", True
        found = by_c2r(program, folder)
    if isinstance(found, str):
        return f"refused: {found.split(': ', 2)[-1]}", not runs
    difference = max(abs(one - other) for one, other in zip(found[0], scores, strict=True))
    is_equal = difference < TOLERANCE * max(1, *map(abs, scores)) and found[1] == text
    return f"{'equal' if is_equal else 'DIFFERENT'}, log-likelihoods within {difference:.1e}", is_equal and runs


def rows(num_combinations):
    """(family, settings, form, whether it runs)"""
    for family in FAMILIES:
        settings = SETTINGS + SETTINGS_OF[family]
        for one, runs in settings:
            yield family, one, FORMS[0], runs
        for form in FORMS[1:]:
            yield family, {}, form, RUNS
        shuffle = random.Random(family)
        running = [one for one, runs in settings if runs and "rope_parameters" not in one]
        for _ in range(num_combinations):
            merged = dict(itertools.chain.from_iterable(one.items() for one in shuffle.sample(running, 4)))
            if "mlp_only_layers" in merged:
                merged.pop("decoder_sparse_step", None)  # together they may leave no layer with experts
            yield family, merged, shuffle.choice(FORMS), RUNS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--combinations", type=int, default=20, metavar="N", help="random ones of each family")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    num_rows, failed = 0, 0
    for seed, (family, settings, form, runs) in enumerate(rows(options.combinations)):
        said, is_right = judge(options.program.resolve(), family, settings, form, runs, seed)
        num_rows, failed = num_rows + 1, failed + (not is_right)
        form_text = ", ".join(str(value).removeprefix("torch.") for value in form.values())
        print(f"{'' if is_right else 'FAILED '}{family}, {form_text}, {json.dumps(settings)}: {said}", flush=True)
    print(f"{num_rows} rows, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
