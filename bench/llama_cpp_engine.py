"""llama.cpp's side of bench/compare_engines.py: a GGUF file of random weights, and timing it."""
import ctypes
import pathlib
import time

import random_models as models

ARCHITECTURES = {"mixtral": "llama", "olmoe": "olmoe", "qwen2_moe": "qwen2moe"}
LAYER_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
               "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
               "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
               "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
               "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
               "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
               "mlp.shared_expert.up_proj": "ffn_up_shexp",
               "mlp.shared_expert.down_proj": "ffn_down_shexp",
               "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}


def gguf_tensors(config):
    """[(name, shape)] as llama.cpp wants them: the experts of a layer are one tensor."""
    hidden, width = config["hidden_size"], models.expert_width(config)
    experts, vocab = models.num_experts(config), config["vocab_size"]
    tensors = [("token_embd.weight", [vocab, hidden]), ("output_norm.weight", [hidden]),
               ("output.weight", [vocab, hidden])]
    for layer in range(config["num_hidden_layers"]):
        for name, shape in models.layer_tensors(config).items():
            stem, kind = name.rsplit(".", 1)
            shape = [shape[1]] if stem == "mlp.shared_expert_gate" else shape
            tensors.append((f"blk.{layer}.{LAYER_NAMES[stem]}.{kind}", shape))
        for part in ("gate", "up", "down"):
            shape = [experts, hidden, width] if part == "down" else [experts, width, hidden]
            tensors.append((f"blk.{layer}.ffn_{part}_exps.weight", shape))
    return tensors


def write_gguf(config, path):
    """Matrices are bf16; vectors and gates f32, which llama.cpp wants."""
    import gguf
    import numpy as np
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config["model_type"]])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(models.num_experts(config))
    writer.add_expert_used_count(models.top_k(config))
    if config["model_type"] == "qwen2_moe":
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_tokenizer_model("none")

    def is_f32(name, shape):
        return len(shape) == 1 or "ffn_gate_inp" in name

    tensors = gguf_tensors(config)
    for name, shape in tensors:
        if is_f32(name, shape):
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
        else:  # as bytes, of which gguf makes the shape
            writer.add_tensor_info(name, shape[:-1] + [2 * shape[-1]], np.dtype(np.uint8),
                                   2 * int(np.prod(shape)), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    values = models.RandomValues()
    for name, shape in tensors:
        tensor = values.tensor(shape, "norm" in name)
        if is_f32(name, shape):
            tensor = (tensor.astype(np.uint32) << 16).view(np.float32)
        writer.write_tensor_data(tensor)
    writer.close()


class Params(ctypes.Structure):
    """The first fields of llama_context_params, of which we set some, and room for the others."""
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32),
                ("n_ubatch", ctypes.c_uint32), ("n_seq_max", ctypes.c_uint32),
                ("others", ctypes.c_uint32 * 3), ("n_threads", ctypes.c_int32),
                ("n_threads_batch", ctypes.c_int32), ("rest", ctypes.c_char * 476)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)),
                ("embd", ctypes.c_void_p), ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
NO_LOG = LOG(lambda level, text, data: None)


def load_library():
    """llama.cpp's C interface, from xllamacpp, which brings it compiled for processors with AVX2."""
    import xllamacpp
    lib = ctypes.CDLL(str(next(pathlib.Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    lib.llama_context_default_params.restype = lib.llama_model_default_params.restype = Params
    lib.llama_batch_init.restype = Batch
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Params]
    lib.llama_init_from_model.argtypes = [ctypes.c_void_p, Params]
    lib.llama_get_memory.argtypes = lib.llama_synchronize.argtypes = [ctypes.c_void_p]
    lib.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    lib.llama_decode.argtypes = [ctypes.c_void_p, Batch]
    params = lib.llama_context_default_params()
    if (params.n_batch, params.n_ubatch, params.n_threads) != (2048, 512, 4):
        raise RuntimeError("this version of llama.cpp has other llama_context_params")
    return lib


class LlamaCpp:
    def __init__(self, path, num_threads, prompt_tokens, batch_sizes):
        self.lib = lib = load_library()
        lib.llama_log_set(NO_LOG, None)
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx = 2 * prompt_tokens * max(batch_sizes)
        params.n_batch = params.n_ubatch = prompt_tokens
        params.n_seq_max = max(batch_sizes)
        params.n_threads = params.n_threads_batch = num_threads
        self.context = lib.llama_init_from_model(self.model, params)
        self.batch = lib.llama_batch_init(prompt_tokens, 0, 1)

    def start(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def run(self, tokens, position):
        """Appends tokens[sequence] to each sequence; logits of the last of each."""
        n = 0
        for sequence, row in enumerate(tokens):
            for i, token in enumerate(row):
                self.batch.token[n], self.batch.pos[n] = token, position + i
                self.batch.n_seq_id[n], self.batch.seq_id[n][0] = 1, sequence
                self.batch.logits[n] = i == len(row) - 1
                n += 1
        self.batch.n_tokens = n
        begin = time.perf_counter()
        if self.lib.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.lib.llama_synchronize(self.context)
        return time.perf_counter() - begin
