"""config.json, and folders with a checkpoint of 1 layer and 2 experts."""
import json

from .containers import safetensors, tensor, without

CONFIG = {"model_type": "mixtral", "hidden_size": 4, "vocab_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "num_local_experts": 2, "num_experts_per_tok": 1,
          "intermediate_size": 3, "hidden_act": "silu"}
QWEN = {**without(CONFIG, "num_local_experts"), "model_type": "qwen2_moe", "num_experts": 2,
        "moe_intermediate_size": 3, "shared_expert_intermediate_size": 3, "norm_topk_prob": False}
QWEN3 = {**without(QWEN, "shared_expert_intermediate_size"), "model_type": "qwen3_moe"}
LLAMA_MOE = {**without(CONFIG, "num_local_experts", "num_experts_per_tok", "rope_theta"),
             "model_type": "llama_moe", "num_experts": 2, "num_selects": 1}
LISTS = [[[1], [0]]]


def model_config(base=CONFIG, without_key=None, **changes):
    return json.dumps(without({**base, **changes}, without_key))


def checkpoint_tensors():
    """Name and shape of each tensor of CONFIG."""
    shapes = {"lm_head.weight": [8, 4], "model.embed_tokens.weight": [8, 4],
              "model.norm.weight": [4]}
    layer = {"input_layernorm.weight": [4], "post_attention_layernorm.weight": [4],
             "block_sparse_moe.gate.weight": [2, 4]}
    layer |= {f"self_attn.{p}_proj.weight": [4, 4] for p in "qkvo"}
    for e in range(2):
        layer |= {f"block_sparse_moe.experts.{e}.w1.weight": [3, 4],
                  f"block_sparse_moe.experts.{e}.w2.weight": [4, 3],
                  f"block_sparse_moe.experts.{e}.w3.weight": [3, 4]}
    return {**shapes, **{f"model.layers.0.{name}": shape for name, shape in layer.items()}}


def shard(shapes, dtypes={}, fill={}):
    header, data = {}, b""
    for name, shape in shapes.items():
        dtype = dtypes.get(name, "F32")
        size = {"F32": 4, "BF16": 2, "I64": 8}[dtype]
        for extent in shape:
            size *= extent
        header[name] = tensor(dtype, shape, len(data), len(data) + size)
        data += bytes([fill.get(name, 0)]) * size
    return safetensors(header, data)


ALL_TENSORS = checkpoint_tensors()
FIRST = {n: s for n, s in ALL_TENSORS.items() if n < "model.layers"}
SECOND = {n: s for n, s in ALL_TENSORS.items() if n >= "model.layers"}


def write_model(write, name, files):
    write(f"model/{name}/config.json", json.dumps(CONFIG))
    for file, data in files.items():
        write(f"model/{name}/{file}", data)


def write_single(write, name, data):
    write_model(write, name, {"model.safetensors": data})


def index(**changes):
    where = {n: "a.safetensors" if n < "model.layers" else "b.safetensors" for n in ALL_TENSORS}
    where |= {n.replace("__", "."): file for n, file in changes.items()}
    return json.dumps({"weight_map": {n: file for n, file in where.items() if file is not None}})


def broken_config(write):
    write("model_config/not_an_object", "[]")
    write("model_config/model_type_missing", model_config(without_key="model_type"))
    write("model_config/architecture_unknown", model_config(model_type="mamba"))
    write("model_config/architecture_deepseek", model_config(model_type="deepseek_v3"))
    write("model_config/architecture_gpt_oss", model_config(model_type="gpt_oss"))
    write("model_config/key_missing", model_config(without_key="hidden_size"))
    write("model_config/key_unknown", model_config(attention_logit_softcap=30.0))
    write("model_config/hidden_size_2_to_60", model_config(hidden_size=2**60))
    write("model_config/hidden_size_a_string", model_config(hidden_size="4"))
    write("model_config/num_layers_0", model_config(num_hidden_layers=0))
    write("model_config/heads_do_not_divide_hidden", model_config(num_attention_heads=3))
    write("model_config/kv_heads_do_not_divide_heads",
          model_config(num_attention_heads=4, num_key_value_heads=3))
    write("model_config/head_dim_odd", model_config(head_dim=3))
    write("model_config/sliding_window", model_config(sliding_window=8))
    write("model_config/layer_types", model_config(layer_types=["sliding_attention"]))
    write("model_config/rope_scaling",
          model_config(rope_scaling={"rope_type": "yarn", "factor": 4.0}))
    write("model_config/rope_scaling_a_number", model_config(rope_scaling=2))
    write("model_config/rope_parameters_unknown", model_config(
        without_key="rope_theta",
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "factor": 2.0}))
    write("model_config/rope_theta_differs", model_config(
        rope_scaling={"type": "default", "rope_theta": 5e5}))
    write("model_config/rope_scaling_unknown", model_config(
        rope_scaling={"type": "default", "factor": 2.0}))
    write("model_config/rope_partial", model_config(
        rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}))
    write("model_config/rope_theta_nan", model_config(rope_theta=float("nan")))
    write("model_config/attention_bias", model_config(attention_bias=True))
    write("model_config/hidden_act", model_config(hidden_act="gelu"))
    write("model_config/quantization", model_config(quantization_config={"quant_method": "fp8"}))
    write("model_config/quantization_unknown", model_config(quantization_config={"bits": 2}))
    write("model_config/quantization_of_mlx", model_config(quantization={"group_size": 64, "bits": 4}))
    write("model_config/eos_not_an_integer", model_config(eos_token_id=[1, "2"]))
    write("model_config/architecture_dense", model_config(model_type="llama"))
    write("model_config/keys_unknown", model_config(
        attention_logit_softcap=30.0, router_bias=True))
    write("model_config/sliding_window_without_switch",
          model_config(sliding_window=8, use_sliding_window=False))


def broken_config_of_experts(write):
    write("model_config/top_k_above_num_experts", model_config(num_experts_per_tok=3))
    write("model_config/num_experts_differ", model_config(num_experts=3))
    write("model_config/num_experts_missing", model_config(without_key="num_local_experts"))
    write("model_config/qwen3_shared_expert", model_config(QWEN3, shared_expert_intermediate_size=3))
    write("model_config/qwen3_without_qk_norm", model_config(QWEN3, use_qk_norm=False))
    write("model_config/norm_topk_prob_a_number", model_config(QWEN, norm_topk_prob=1))
    write("model_config/no_qkv_bias", model_config(QWEN, qkv_bias=False))
    write("model_config/no_moe_layer", model_config(QWEN, mlp_only_layers=[0]))
    write("model_config/mlp_only_layer_out_of_range", model_config(QWEN, mlp_only_layers=[1]))
    write("model_config/dense_size_missing", model_config(
        QWEN, without_key="intermediate_size", num_hidden_layers=2, mlp_only_layers=[0]))
    write("model_config/slices_uneven", model_config(LLAMA_MOE))
    write("model_config/slices_of_too_few_layers", model_config(LLAMA_MOE, size_experts=[]))
    write("model_config/slices_of_too_few_experts", model_config(LLAMA_MOE, size_experts=[[3]]))
    write("model_config/scales_of_too_few_layers",
          model_config(LLAMA_MOE, intermediate_size=4, score_scale_factor=[]))
    write("model_config/gate_network",
          model_config(LLAMA_MOE, intermediate_size=4, gate_network="linear"))
    write("model_config/top_t_alone", model_config(top_t=1))
    write("model_config/lists_alone", model_config(collaborative_list=LISTS))
    write("model_config/lists_of_too_few_layers", model_config(top_t=1, collaborative_list=[]))
    write("model_config/lists_of_too_few_experts",
          model_config(top_t=1, collaborative_list=[[[1]]]))
    write("model_config/list_too_short", model_config(top_t=1, collaborative_list=[[[], [0]]]))
    write("model_config/collaborator_out_of_range",
          model_config(top_t=1, collaborative_list=[[[2], [0]]]))
    write("model_config/expert_its_own_collaborator",
          model_config(top_t=1, collaborative_list=[[[0], [0]]]))


def broken_checkpoints(write):
    write("model/no_config/model.safetensors", shard(ALL_TENSORS))
    write("model/not_a_folder", "")
    write("model/file.gguf", "GGUF")
    write("model/gguf/model-q4.gguf", "GGUF")
    write("model/adapter/adapter_config.json", "{}")
    write("model/hub_cache/snapshots/0123/config.json", "{}")
    write_model(write, "no_weights", {})
    write_model(write, "bin", {"pytorch_model.bin": ""})
    write_model(write, "other_name", {"consolidated.safetensors": shard(ALL_TENSORS)})
    write_model(write, "gguf_beside_config", {"model-q4.gguf": "GGUF"})
    write_model(write, "adapter_beside_config", {"adapter_config.json": "{}", "adapter_model.safetensors": ""})
    write_single(write, "file_of_quantizer", shard(ALL_TENSORS))
    write("model/file_of_quantizer/hf_quant_config.json", "{}")
    write_single(write, "generation_config_a_list", shard(ALL_TENSORS))
    write("model/generation_config_a_list/generation_config.json", "[]")
    write_single(write, "generation_eos_text", shard(ALL_TENSORS))
    write("model/generation_eos_text/generation_config.json", json.dumps({"eos_token_id": "</s>"}))
    write("model/tied_but_stored/config.json", model_config(tie_word_embeddings=True))
    write("model/tied_but_stored/model.safetensors", shard(ALL_TENSORS, fill={"lm_head.weight": 1}))
    write_single(write, "shard_truncated", shard(ALL_TENSORS)[:-1])
    write_single(write, "tensor_missing",
                 shard({n: s for n, s in ALL_TENSORS.items() if n != "model.norm.weight"}))
    write_single(write, "tensor_left_over", shard({**ALL_TENSORS, "model.layers.1.x": [1]}))
    write_single(write, "dtype_integer", shard(ALL_TENSORS, {"lm_head.weight": "I64"}))
    write_single(write, "shape_wrong", shard({**ALL_TENSORS, "lm_head.weight": [4, 8]}))
    write_model(write, "index_not_json", {"model.safetensors.index.json": "{"})
    write_model(write, "index_without_map", {"model.safetensors.index.json": "{}"})
    write_model(write, "index_leads_away",
                {"model.safetensors.index.json": index(lm_head__weight="../a.safetensors")})
    write_model(write, "index_has_a_zero_byte", {
        "model.safetensors.index.json": index(lm_head__weight="b.safetensors\0x"),
        "a.safetensors": shard(FIRST), "b.safetensors": shard(SECOND)})
    write_model(write, "index_names_a_missing_shard", {
        "model.safetensors.index.json": index(), "a.safetensors": shard(FIRST)})
    write_model(write, "index_names_the_wrong_shard", {
        "model.safetensors.index.json": index(lm_head__weight="b.safetensors"),
        "a.safetensors": shard(FIRST), "b.safetensors": shard(SECOND)})
    write_model(write, "tensor_in_two_shards", {
        "model.safetensors.index.json": index(), "a.safetensors": shard(FIRST),
        "b.safetensors": shard({**SECOND, "lm_head.weight": [8, 4]})})


def write_broken(write):
    broken_config(write)
    broken_config_of_experts(write)
    broken_checkpoints(write)


def write_well_formed(write):
    write("model_config/mixtral", model_config(sliding_window=None, eos_token_id=2))
    write("model_config/qwen2", model_config(
        QWEN, use_sliding_window=False, sliding_window=8, num_hidden_layers=2, mlp_only_layers=[1],
        top_t=1, collaborative_list=LISTS))
    write("model_config/llama_moe",
          model_config(LLAMA_MOE, size_experts=[[1, 2]], score_scale_factor=[4.0]))
    write("model_config/rope_parameters", model_config(
        without_key="rope_theta", rope_parameters={"rope_type": "default", "rope_theta": 1e4}))
    write("model_config/rope_scaling_default", model_config(
        rope_scaling={"type": "default", "rope_theta": 1e4}))
    write("model_config/qwen3_variant", model_config(
        QWEN3, "norm_topk_prob", num_experts=None, num_local_experts=2, use_qk_norm=True,
        shared_expert_intermediate_size=0, sliding_window=8, eos_token_id=[1, 99]))
    write_single(write, "single", shard(ALL_TENSORS, {"lm_head.weight": "BF16"}))
    write("model/tied/config.json", model_config(tie_word_embeddings=True))
    write("model/tied/model.safetensors", shard(ALL_TENSORS))
    write("model/tied_under_the_other_name/config.json", model_config(tie_word_embeddings=True))
    write("model/tied_under_the_other_name/model.safetensors",
          shard({n: s for n, s in ALL_TENSORS.items() if n != "model.embed_tokens.weight"}))
    write_model(write, "single_beside_index", {
        "model.safetensors.index.json": index(), "model.safetensors": shard(ALL_TENSORS)})
    write_model(write, "index_lacks_a_tensor", {
        "model.safetensors.index.json": index(lm_head__weight=None),
        "a.safetensors": shard(FIRST), "b.safetensors": shard(SECOND)})
    write_model(write, "sharded", {
        "model.safetensors.index.json": index(), "a.safetensors": shard(FIRST),
        "b.safetensors": shard(SECOND)})
