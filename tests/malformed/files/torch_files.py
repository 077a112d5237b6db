"""Files of torch.save(), written without torch: 4 layers, of which the first is dense, 4 experts in 4 slots, top-2."""
import io
import struct
import warnings
import zipfile

LOCAL, ENTRY = b"PK\x03\x04", b"PK\x01\x02"
OPCODES = {True: b"\x88", False: b"\x89", None: b"N"}


class Raw(bytes):
    """Opcodes of a pickle, as they are."""


def op_global(module, name):
    return Raw(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


class Tensor:
    """A tensor with a storage of its own; what is given replaces what its elements say."""

    def __init__(self, elements, shape, code="i", kind="IntStorage", location="cpu", **changes):
        self.data = struct.pack(f"<{len(elements)}{code}", *elements)
        strides, size = [], 1
        for extent in reversed(shape):
            strides.insert(0, size)
            size *= extent
        self.fields = {"offset": 0, "shape": tuple(shape), "strides": tuple(strides), "kind": kind,
                       "location": location, "numel": len(elements), "key": None, **changes}


def pickle(value, storages):
    """Opcodes for a value, without a memo; appends the bytes of tensors to `storages`."""
    if isinstance(value, Raw):
        return value
    if value is None or isinstance(value, bool):
        return OPCODES[value]
    if isinstance(value, int):
        data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, Tensor):
        return pickle_tensor(value, storages)
    parts = [pickle(part, storages) for part in (sum(value.items(), ()) if isinstance(value, dict) else value)]
    begin, end = {dict: (b"}(", b"u"), list: (b"](", b"e"), tuple: (b"(", b"t")}[type(value)]
    return begin + b"".join(parts) + end


def pickle_tensor(tensor, storages):
    fields = tensor.fields
    key = fields["key"] or str(len(storages))
    storages.append(tensor.data)
    storage = ("storage", op_global("torch", fields["kind"]), key, fields["location"], fields["numel"])
    arguments = (Raw(pickle(storage, storages) + b"Q"), fields["offset"], fields["shape"], fields["strides"], False,
                 Raw(op_global("collections", "OrderedDict") + b")R"), *fields.get("more", ()))
    return op_global("torch._utils", "_rebuild_tensor_v2") + pickle(arguments, storages) + b"R"


def archive(entries, compression=zipfile.ZIP_STORED):
    """A zip archive of (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in entries:
            zipped.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def torch_file(value, byteorder="little", **options):
    """What torch.save(value) writes; `value` as Raw is the whole pickle."""
    storages = []
    data = value if isinstance(value, Raw) else b"\x80\x02" + pickle(value, storages) + b"."
    entries = [("archive/data.pkl", data), ("archive/byteorder", byteorder), ("archive/version", "3\n")]
    entries += [(f"archive/data/{key}", storage) for key, storage in enumerate(storages)]
    return archive(entries, **options)


MAP = [slot for _ in range(4) for slot in (0, 1, 2, 3)]
IDS = [-1] * 6 + [0, 1, -1, 2, 3, -1] * 3  # [4, 2, 3]


def slots(elements=None, shape=(4, 4), **changes):
    return Tensor(elements or MAP, shape, **changes)


def recorded(ids=None, shape=(4, 2, 3), **changes):
    record = {"forward_pass_id": 1, "rank": 0, "gatherer_key": "primary", "input_ids": [5, 6],
              "extend_seq_lens": [1, 1], "topk_ids_of_layer": Tensor(ids or IDS, shape),
              "global_physical_count": slots([0] * 4 + [1] * 12)}
    record.update(changes)
    return {key: value for key, value in record.items() if value is not ...}


def dump(*records, **changes):
    value = {"records": list(records) or [recorded()], "last_physical_to_logical_map": slots(), **changes}
    return torch_file({key: value for key, value in value.items() if value is not ...})


def per_pass(**changes):
    return recorded(topk_ids_of_layer=..., input_ids=..., extend_seq_lens=..., **changes)


def capture(ids=(0, 1, 2, 3)):
    """What FLAME-MoE saves of a layer: scores and indices of 2 tokens."""
    return torch_file((Tensor([0.5] * 4, (2, 2), "f", "FloatStorage"), Tensor(list(ids), (2, 2))))


def broken_archives(write):
    good = torch_file({"a": Tensor([1], (1,))})
    end = good.rindex(b"PK\x05\x06")
    write("torch/empty", b"")
    write("torch/no_zip", b"\x80\x02}.")
    write("torch/before_1_6", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    write("torch/cut_off", good[:-30])
    write("torch/directory_missing", good[:good.index(ENTRY)] + good[end:])
    write("torch/directory_beyond_the_end", good[:end + 16] + struct.pack("<I", 2**31) + good[end + 20:])
    write("torch/directory_of_65535_entries", good[:end + 8] + b"\xff" * 4 + good[end + 12:])
    write("torch/directory64_beyond_the_end",
          good[:end] + b"PK\x06\x07" + struct.pack("<IQI", 0, 2**63, 1) + good[end:])
    write("torch/no_pickle", archive([("archive/version", "3\n")]))
    write("torch/entry_twice", archive([("archive/data.pkl", b"\x80\x02}.")] * 2))
    write("torch/compressed", torch_file({"a": 0}, compression=zipfile.ZIP_DEFLATED))
    first = good.index(ENTRY)
    write("torch/encrypted", good[:first + 8] + b"\1" + good[first + 9:])
    write("torch/header_elsewhere", good[:first + 42] + struct.pack("<I", 1) + good[first + 46:])
    write("torch/names_differ", good.replace(b"archive/version", b"archive/VERSION", 1))
    write("torch/entry_reaches_into_the_directory",
          good[:first + 20] + struct.pack("<2I", 2**20, 2**20) + good[first + 28:])
    size = struct.pack("<I", 6)
    at = good.index(b"archive/byteorder", first) - 46
    write("torch/entries_overlap", good[:at + 20] + struct.pack("<2I", 60, 60) + good[at + 28:])
    assert good[at + 20:at + 24] == size
    write("torch/big_endian", torch_file({"a": 0}, byteorder="big"))


def broken_pickles(write):
    def program(name, opcodes):
        write(f"torch/pickle_{name}", torch_file(Raw(opcodes)))

    program("empty", b"")
    program("calls_system", b"\x80\x02cos\nsystem\n(X\x04\0\0\0lsXXtR.")
    program("calls_a_storage", b"\x80\x02ctorch\nIntStorage\n)R.")
    program("name_of_control_characters", b"\x80\x02c\x1b[31m\nx\n.")
    program("name_cut_off", b"\x80\x02ctorch")
    program("string_cut_off", b"\x80\x02X\xff\xff\xff\xff.")
    program("integer_cut_off", b"\x80\x02J\1")
    program("opcode_unknown", b"\x80\x02i")
    program("new_object", b"\x80\x02ccollections\nOrderedDict\n)\x81.")
    program("stack_empty", b"\x80\x02.")
    program("stack_too_short", b"\x80\x02N\x86.")
    program("no_mark", b"\x80\x02Nt.")
    program("marks_too_deep", b"\x80\x02" + b"(" * 1001)
    program("nothing_to_fill", b"\x80\x02(Ne.")
    program("fills_a_tuple", b"\x80\x02)Na.")
    program("fills_below_the_mark", b"\x80\x02](Na.")
    program("key_without_value", b"\x80\x02}(Nu.")
    program("memo_unknown", b"\x80\x02h\0.")
    program("memo_with_gaps", b"\x80\x02Nr\xff\xff\xff\xff.")
    program("build_of_a_list", b"\x80\x02]}b.")
    program("storage_unknown", b"\x80\x02(X\x06\0\0\0modulectorch\nIntStorage\nNNNtQ.")
    program("storage_without_class", b"\x80\x02(X\x07\0\0\0storageNX\1\0\0\x000NK\1tQ.")
    program("size_without_tuple", b"\x80\x02ctorch\nSize\n)R.")
    program("tensor_of_nothing", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.")
    program("ends_without_stop", b"\x80\x02}")
    program("sparse_tensor", b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.")
    program("quantized_tensor", b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.")
    program("complex_storage", b"\x80\x02ctorch\nComplexFloatStorage\n.")


def broken_tensors(write):
    def tensor(name, *arguments, **changes):
        write(f"torch/tensor_{name}", torch_file({"a": Tensor(*arguments, **changes)}))

    tensor("storage_missing", [1], (1,), key="7")
    tensor("storage_too_small", [1], (1,), numel=2)
    tensor("storage_of_2_to_62", [1], (1,), numel=2**62)
    tensor("storage_of_integers_beyond_64_bits", [1], (1,), numel=2**70)
    tensor("offset_negative", [1, 2], (1,), offset=-1)
    tensor("offset_beyond_the_end", [1, 2], (1,), offset=2)
    tensor("stride_negative", [1, 2], (2,), strides=(-1,))
    tensor("strides_overflow", [1, 2], (2,), strides=(2**63 - 1,), offset=1)
    tensor("expanded", [1], (2**40,), strides=(0,))
    tensor("extents_overflow", [1], (2**32, 2**32), strides=(0, 0))
    tensor("extent_negative", [1], (-1,))
    tensor("extent_without_stride", [1], (1,), strides=())
    tensor("negated", [1], (1,), more=({"neg": True},))


def broken_recordings(write):
    name = "import_sglang-recorder/"
    write(name + "a_tensor", torch_file(slots()))
    write(name + "no_map", dump(last_physical_to_logical_map=...))
    write(name + "no_records", dump(records=[]))
    write(name + "only_drafts", dump(recorded(gatherer_key="draft")))
    write(name + "map_of_floats", dump(last_physical_to_logical_map=Tensor([0.0], (1, 1), "f", "FloatStorage")))
    write(name + "map_without_layers", dump(last_physical_to_logical_map=Tensor([], (0, 4))))
    write(name + "map_negative", dump(last_physical_to_logical_map=slots([-1] * 16)))
    write(name + "ranks_differ", dump(recorded(), recorded(rank=1)))
    write(name + "mode_per_pass", dump(per_pass()))
    write(name + "layers_differ", dump(recorded(IDS[:18], (3, 2, 3))))
    write(name + "no_column", dump(recorded([], (4, 2, 0))))
    write(name + "ids_of_2_dimensions", dump(recorded(IDS, (4, 6))))
    for kind, code, storage in (("floats", "f", "FloatStorage"), ("bfloat16", "H", "BFloat16Storage"),
                                ("bools", "B", "BoolStorage")):
        write(name + f"ids_of_{kind}", dump(recorded(topk_ids_of_layer=Tensor([0] * 24, (4, 2, 3), code, storage))))
    write(name + "input_ids_differ", dump(recorded(input_ids=[5])))
    write(name + "slot_out_of_range", dump(recorded(IDS[:-1] + [4])))
    write(name + "slot_below_minus_1", dump(recorded(IDS[:-1] + [-2])))
    write(name + "expert_twice", dump(recorded(IDS[:-3] + [3, 3, -1])))
    write(name + "no_experts", dump(recorded([-1] * 24)))
    write(name + "more_than_32_experts", dump(recorded(input_ids=[5], extend_seq_lens=None, topk_ids_of_layer=Tensor(
        [-1] * 33 + [0] * 99, (4, 1, 33)))))
    write(name + "sequences_too_long", dump(recorded(extend_seq_lens=[1, 2])))
    write(name + "sequence_of_no_token", dump(recorded(extend_seq_lens=[0])))
    one = pickle(recorded(), [])
    shared = Raw(b"\x80\x02}(" + pickle("records", []) + b"](" + one + b"q\0" + b"h\0" * 99 + b"e" +
                 pickle("last_physical_to_logical_map", []) + pickle(slots(), [b"", b""]) + b"u.")
    write(name + "records_share_tensors", archive(
        [("a/data.pkl", shared), ("a/data/0", struct.pack("<24i", *IDS)), ("a/data/1", b"\0" * 64),
         ("a/data/2", struct.pack("<16i", *MAP))]))
    write("sglang_loads/torch_counts_of_floats",
          torch_file({"logical_count": Tensor([0.5], (1, 1), "f", "FloatStorage")}))
    write("sglang_loads/torch_counts_of_bfloat16",
          torch_file({"logical_count": Tensor([0x3f80], (1, 1), "H", "BFloat16Storage")}))
    write("sglang_loads/torch_count_negative", torch_file({"logical_count": Tensor([-1, 1], (1, 2))}))
    write("sglang_loads/torch_no_layers", torch_file({"logical_count": Tensor([], (0, 2))}))
    write("sglang_loads/torch_rank_missing", dump(per_pass(rank=1)))
    write("sglang_loads/torch_slots_differ", dump(per_pass(global_physical_count=slots([1] * 8, (4, 2)))))
    write("import_flame-moe/no_layers/notes.txt", "")
    write("import_flame-moe/one_tensor/2/a.pt", torch_file(slots()))
    write("import_flame-moe/id_out_of_range/2/a.pt", capture(ids=[0, 1, 2, 4]))
    write("import_flame-moe/indices_of_floats/2/a.pt", torch_file((Tensor([0.5] * 4, (2, 2), "f", "FloatStorage"),) * 2))
    write("sglang_placement/torch_list", torch_file([1]))
    write("sglang_placement/torch_loads", torch_file({"logical_count": slots()}))
    write("sglang_placement/torch_key_unknown", torch_file({"physical_to_logical_map": slots(), "x": 1}))
    write("sglang_placement/torch_map_of_3_dimensions", torch_file({"physical_to_logical_map": slots(shape=(4, 2, 2))}))
    write("sglang_placement/torch_expert_out_of_range",
          torch_file({"physical_to_logical_map": slots(MAP[:-1] + [4])}))


def write_broken(write):
    write("recognize/json_cut_off", '{"a": [1')
    write("recognize/array_cut_off", b"\x93NUMPY\1\0")
    write("recognize/torch_hostile", torch_file(Raw(b"\x80\x02cos\nsystem\n)R.")))
    write("recognize/torch_records_without_keys", torch_file({"records": [1]}))
    broken_archives(write)
    broken_pickles(write)
    broken_tensors(write)
    broken_recordings(write)


def write_well_formed(write):
    write("recognize/text", "a text")
    write("recognize/lines", '{"top_indices": []}\n{}\n')
    write("recognize/torch", dump())
    write("torch/containers", torch_file({"a": [1, -2, 2**70, 0.5, True, None, "x", (3, 4)], "b": {}}))
    write("torch/tensors", torch_file({"a": Tensor([1, 2, 3, 4], (2, 2), strides=(1, 2), location="cuda:0"),
                                       "b": Tensor([], (0, 2)), "c": Tensor([1], (1, 1), "q", "LongStorage")}))
    write("torch/state_dict", torch_file(Raw(
        b"\x80\x02ccollections\nOrderedDict\n)Rq\0}X\1\0\0\0_h\0sb.")))
    write("torch/bfloat16_and_half", torch_file({"a": Tensor([1], (1,), "H", "HalfStorage"),
                                                 "b": Tensor([1], (1,), "H", "BFloat16Storage")}))
    write("import_flame-moe/1/2/a.pt", capture())
    write("import_sglang-recorder/1", dump())
    write("import_sglang-recorder/draft_and_idle", dump(
        recorded(), recorded(gatherer_key="draft"), recorded([], (4, 0, 3), input_ids=[], extend_seq_lens=None)))
    write("sglang_loads/torch_stat", torch_file({"rank": 0, "logical_count": Tensor([0, 0, 1, 1], (1, 2, 2))}))
    write("sglang_loads/torch_floats",
          torch_file({"logical_count": Tensor([0, 0, 1, 1], (2, 2), "d", "DoubleStorage")}))
    write("sglang_loads/torch_per_pass", dump(per_pass()))
    write("sglang_loads/torch_per_token", dump())
    write("sglang_placement/torch_map", torch_file({"physical_to_logical_map": slots()}))
