"""Model folders as transformers writes them: `c2r` takes the files and keys that transformers takes."""

import json
import pathlib
import shutil
import subprocess

import pytest
import safetensors.torch
import torch
from families import CONFIGS, VOCABULARY, random_model

import c2r

transformers = pytest.importorskip("transformers", minversion="5.23")
pytest.importorskip("c2r._c2r", reason="the program comes with the installed package: pip install .")

PROGRAM = pathlib.Path(c2r.__file__).with_name("c2r")
FAMILIES = [family for family in CONFIGS if family != "gpt_oss"]  # which the engine refuses by name
PROMPT = [3, 50, 7, 22, 9]


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def generate(folder, num_tokens=12):
    """The tokens that c2r writes after PROMPT, and what it says on standard error."""
    done = run(
        *("generate", folder, "--tokens", json.dumps(PROMPT), "--max-new-tokens", num_tokens),
        *("--dtype", "f32", "--threads", 1),
    )
    assert done.returncode == 0, done.stderr
    return [int(token) for token in done.stdout.split()], done.stderr


def generate_by_transformers(folder, num_tokens=12):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([PROMPT])
    found = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=num_tokens, do_sample=False)
    return found[0, len(PROMPT) :].tolist()


def change(path, **keys):
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.update(keys)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refuses(folder, *words):
    done = run("inspect", folder)
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr, done.stderr


def decided(model):
    """Projections so large that attention and experts decide about the next token."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and ("self_attn" in name or "experts" in name):
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each family as save_pretrained leaves it."""
    folder = tmp_path_factory.mktemp("models")
    for family in CONFIGS:
        decided(random_model(family)).save_pretrained(folder / family)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    def copy(family):
        return pathlib.Path(shutil.copytree(saved / family, tmp_path / family))

    return copy


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_save_pretrained_runs_as_it_is(saved, family):
    if family == "llama_moe":  # registered by c2r.hf.llama_moe, whose tests compare it
        assert run("inspect", saved / family).returncode == 0
    else:
        assert generate(saved / family)[0] == generate_by_transformers(saved / family)


def test_model_safetensors_counts_beside_the_index_of_other_shards(copied, tmp_path):
    folder = copied("qwen2_moe")
    new = generate_by_transformers(folder)
    decided(random_model("qwen2_moe", seed=1)).save_pretrained(tmp_path / "other", max_shard_size="100KB")
    shards = sorted((tmp_path / "other").glob("model*"))
    assert len(shards) > 2
    shutil.copy(tmp_path / "other" / "model.safetensors.index.json", folder)  # alone, as save_pretrained leaves it
    for is_complete in (False, True):
        if is_complete:
            for shard in shards:
                shutil.copy(shard, folder)
            assert generate(tmp_path / "other")[0] != new  # which file is taken matters
        found, said = generate(folder)
        assert found == generate_by_transformers(folder) == new
        assert "model.safetensors is used" in said
        assert ("model-00001-of-" in said) == is_complete


EOS = {
    "no_file": None,
    "none": {},
    "another": {"eos_token_id": 0},
    "several": {"eos_token_id": [0, 1]},
    "outside": {"eos_token_id": VOCABULARY + 5},
}


@pytest.mark.parametrize(("in_config", "in_generation"), [*((0, name) for name in EOS), ([0, 1], "no_file")])
def test_a_text_ends_at_the_tokens_of_generation_config(copied, in_config, in_generation):
    folder = copied("mixtral")
    free = generate_by_transformers(folder)
    first, second = free[6], free[3]  # what 0 and 1 stand for
    number = {0: first, 1: second}

    def ids(value):
        return [number[i] for i in value] if isinstance(value, list) else number.get(value, value)

    change(folder / "config.json", eos_token_id=ids(in_config))
    (folder / "generation_config.json").unlink()
    if EOS[in_generation] is not None:
        change(folder / "generation_config.json", **{key: ids(value) for key, value in EOS[in_generation].items()})
    expected = generate_by_transformers(folder)
    assert generate(folder)[0] == expected
    if in_config == 0 and in_generation == "several":
        assert len(expected) < len(free)


def test_settings_of_generation_config_that_are_not_carried_out_are_named(copied):
    folder = copied("mixtral")
    change(folder / "generation_config.json", do_sample=True, top_p=0.8, repetition_penalty=1.1, temperature=1.0)
    said = generate(folder)[1]
    for setting in ("do_sample true", "top_p 0.8", "repetition_penalty 1.1"):
        assert setting in said
    assert "temperature 1" not in said and said.count("\n") == 1


def test_a_tied_output_matrix_must_be_the_embeddings(copied):
    folder = copied("qwen2_moe")
    change(folder / "config.json", tie_word_embeddings=True)
    refuses(folder, "tie_word_embeddings", "lm_head.weight", "model.embed_tokens.weight")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    text = generate(folder)[0]
    assert text == generate_by_transformers(folder)
    del tensors["model.embed_tokens.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert generate(folder)[0] == generate_by_transformers(folder) == text


def test_clipping_of_queries_and_keys_is_olmoes_alone(copied):
    for family in ("mixtral", "qwen2_moe", "qwen3_moe"):
        folder = copied(family)
        without = generate_by_transformers(folder)
        change(folder / "config.json", clip_qkv=0.1)
        assert generate_by_transformers(folder) == without
        refuses(folder, "clip_qkv")
    folder = copied("olmoe")
    change(folder / "config.json", clip_qkv=0.1)
    assert generate(folder)[0] == generate_by_transformers(folder)


def test_the_switch_of_windows_is_qwens_alone(copied):
    for family in ("qwen2_moe", "qwen3_moe"):  # transformers has no window either
        folder = copied(family)
        change(folder / "config.json", use_sliding_window=False, sliding_window=4, layer_types=None)
        assert generate(folder)[0] == generate_by_transformers(folder)
    folder = copied("mixtral")
    without = generate_by_transformers(folder)
    change(folder / "config.json", use_sliding_window=False, sliding_window=4)
    assert generate_by_transformers(folder) != without
    refuses(folder, "sliding_window is 4")


def test_a_theta_inside_rope_scaling_counts(copied):
    folder = copied("qwen2_moe")
    with_default = generate_by_transformers(folder)
    change(folder / "config.json", rope_parameters=None, rope_scaling={"rope_type": "default", "rope_theta": 50.0})
    assert generate(folder)[0] == generate_by_transformers(folder) != with_default
    change(folder / "config.json", rope_theta=10000.0)
    refuses(folder, "rope_theta is 10000, but in rope_scaling it is 50")


DEFAULTS = ("rope_parameters", "rms_norm_eps", "norm_topk_prob", "tie_word_embeddings", "decoder_sparse_step")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama_moe"])
def test_keys_that_are_absent_have_the_defaults_of_transformers(copied, family):
    folder = copied(family)
    change(folder / "config.json", **dict.fromkeys(DEFAULTS))
    assert generate(folder)[0] == generate_by_transformers(folder)


def test_keys_that_tools_leave_behind_do_not_matter(copied):
    folder = copied("qwen3_moe")
    expected = generate_by_transformers(folder)
    change(
        folder / "config.json", _attn_implementation_autoset=True, unsloth_version="2026.1", unsloth_fixed=True,
        experts_implementation="grouped_mm", gradient_checkpointing=True, num_experts=12, use_qk_norm=True,
        shared_expert_intermediate_size=0, chunk_size_feed_forward=0, bad_words_ids=[[1]], num_beams=1,
    )  # fmt: skip
    assert generate(folder)[0] == expected
    change(folder / "config.json", attention_multiplier=2.0, new_gate="x")
    refuses(folder, "attention_multiplier", "new_gate")
