"""Files of the formats that hold others: safetensors, npy, JSON and CSV."""
import json
import lzma
import struct


def safetensors(header, data=b""):
    """A dict is padded, so that its data is aligned; text is taken as it is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    if not isinstance(header, str):
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


A = tensor("U8", [4], 0, 4)


def npy(descr="|u1", shape="(2, 2)", data=b"\0\1\2\3", header=None, version=(1, 0)):
    text = header or "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n" % (descr, shape)
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + data


def without(mapping, *keys):
    return {k: v for k, v in mapping.items() if k not in keys}


def broken_safetensors(write):
    write("safetensors/empty", b"")
    write("safetensors/short", b"\0" * 7)
    write("safetensors/header_cut_off", safetensors({"a": A})[:20])
    write("safetensors/header_of_2_to_60_bytes", struct.pack("<Q", 2**60) + b"{}")
    write("safetensors/header_not_json", safetensors("{'a': 1}"))
    write("safetensors/header_is_an_array", safetensors("[]"))
    write("safetensors/name_twice",
          safetensors('{"a": %s, "a": %s}' % ((json.dumps(tensor("U8", [0], 0, 0)),) * 2)))
    write("safetensors/tensor_is_a_number", safetensors({"a": 1}))
    write("safetensors/key_missing", safetensors({"a": {"dtype": "U8", "shape": [0], "x": 1}}))
    write("safetensors/dtype_unknown", safetensors({"a": tensor("F8_E9", [4], 0, 4)}, b"abcd"))
    write("safetensors/extent_negative", safetensors({"a": tensor("U8", [-1], 0, 0)}))
    write("safetensors/extent_of_2_to_60", safetensors({"a": tensor("F64", [2**60], 0, 0)}))
    write("safetensors/extents_overflow", safetensors({"a": tensor("U8", [2**40, 2**40], 0, 0)}))
    write("safetensors/offsets_are_three",
          safetensors({"a": {**A, "data_offsets": [0, 1, 4]}}, b"abcd"))
    write("safetensors/offsets_reversed", safetensors({"a": tensor("U8", [4], 4, 0)}, b"abcd"))
    write("safetensors/offsets_beyond_the_end",
          safetensors({"a": tensor("U8", [4], 4, 8)}, b"abcd"))
    write("safetensors/size_differs_from_shape",
          safetensors({"a": tensor("F32", [4], 0, 4)}, b"abcd"))
    write("safetensors/overlap", safetensors({"a": A, "b": tensor("U8", [4], 2, 6)}, b"abcdef"))
    write("safetensors/gap", safetensors({"a": A, "b": tensor("U8", [2], 6, 8)}, b"abcdefgh"))
    write("safetensors/data_left_over", safetensors({"a": A}, b"abcdef"))
    write("safetensors/data_cut_off", safetensors({"a": A}, b"ab"))
    write("safetensors/metadata_is_an_array", safetensors({"__metadata__": []}))
    write("safetensors/metadata_value_is_a_number", safetensors({"__metadata__": {"a": 1}}))


def broken_npy(write):
    write("npy/empty", b"")
    write("npy/magic_wrong", b"\x93NUMPX" + npy()[6:])
    write("npy/cut_off_before_the_length", npy()[:9])
    write("npy/header_cut_off", npy()[:40])
    write("npy/header_of_4_gib", b"\x93NUMPY\3\0\xff\xff\xff\xff{}")
    write("npy/version_4", npy(version=(4, 0)))
    write("npy/version_1_1", npy(version=(1, 1)))
    write("npy/header_not_a_dict", npy(header="[]\n"))
    write("npy/header_without_line_feed",
          npy(header="{'descr': '|u1', 'fortran_order': False, 'shape': ()}"))
    write("npy/header_goes_on",
          npy(header="{'descr': '|u1', 'fortran_order': False, 'shape': ()} {}\n"))
    write("npy/key_unknown", npy(header="{'descr': '|u1', 'order': 'C'}\n"))
    write("npy/key_twice", npy(header="{'descr': '|u1', 'descr': '|u1'}\n"))
    write("npy/key_missing", npy(header="{'descr': '|u1', 'shape': (4,)}\n"))
    write("npy/string_open", npy(header="{'descr: |u1}\n"))
    write("npy/dtype_complex", npy("<c8", "(2,)"))
    write("npy/dtype_structured", npy(header="{'descr': [('a', '|u1')], 'fortran_order': False}\n"))
    write("npy/fortran_order",
          npy(header="{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2)}\n"))
    write("npy/order_not_a_bool",
          npy(header="{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 2)}\n"))
    write("npy/shape_not_a_tuple", npy(shape="(4)"))
    write("npy/shape_negative", npy(shape="(-4,)"))
    write("npy/shape_without_comma", npy(shape="(2 2)"))
    write("npy/extent_of_2_to_60", npy("<i8", f"({2**60},)"))
    write("npy/extent_of_2_to_64", npy("<i8", f"({2**64},)"))
    write("npy/extents_overflow", npy("|u1", f"({2**40}, {2**40})"))
    write("npy/data_cut_off", npy(data=b"\0\1\2"))
    write("npy/data_left_over", npy(data=b"\0\1\2\3\4"))
    write("npy/xz_cut_off.npy.xz", lzma.compress(npy())[:-8])
    write("npy/xz_corrupt.npy.xz", lzma.compress(npy()).replace(b"NUMPY", b"NUMPX"))
    write("npy/xz_is_not.npy.xz", npy())


def broken_json(write):
    write("json/empty", "")
    write("json/cut_off", '{"a": [1, 2')
    write("json/two_values", "1 2")
    write("json/key_twice", '{"a": 1, "b": {"a": 1, "a": 2}}')
    write("json/too_deep", "[" * 200 + "]" * 200)
    write("json/not_utf8", b'"\xff"')
    write("json/number_too_large", "1e999")


def broken_csv(write):
    write("csv/empty", "")
    write("csv/field_missing", "a,b\n1,2\n3\n")
    write("csv/field_too_many", "a,b\n1,2,3\n")
    write("csv/quote_in_the_middle", 'a,b\n1,x"y\n')
    write("csv/quote_open", 'a,b\n1,"x\n')
    write("csv/text_after_quote", 'a,b\n"1"x,2\n')
    write("csv/carriage_return", "a,b\r1,2\n")


def write_broken(write):
    broken_safetensors(write)
    broken_npy(write)
    broken_json(write)
    broken_csv(write)


def write_well_formed(write):
    write("safetensors/1", safetensors({"__metadata__": {"a": "b"}, "a": A}, b"abcd"))
    write("npy/1", npy())
    write("npy/2", npy(version=(2, 0)))
    write("npy/compressed.npy.xz", lzma.compress(npy()))
    write("json/1", '{"a": [1, -2.5e3, "x\\u00e9", true, null, {}]}')
    write("csv/blank_lines", "\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\r\n".encode("latin-1"))
    write("csv/1", 'a,b\n1,"x ""y"",\r\nz"\r\n,\n')
