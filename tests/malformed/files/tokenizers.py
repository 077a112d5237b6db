"""tokenizer.json, tokenizer.model (a protocol buffer) and tokenizer_config.json."""
import json
import struct

# GPT-2's alphabet: a printable character for each byte.
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_CHARACTERS = [*map(chr, PRINTABLE), *map(chr, range(0x100, 0x100 + 256 - len(PRINTABLE)))]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "\\p{L}+"}, "behavior": "Isolated", "invert": False}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}}
FALLBACK_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}]}
START = {"id": 256, "content": "<s>", "special": True}


def tokenizer_json(model=(), vocab=(), without=(), **changes):
    vocab = {**{c: i for i, c in enumerate(BYTE_CHARACTERS)}, **dict(vocab)}
    for token in without:
        del vocab[token]
    return json.dumps({"version": "1.0", "added_tokens": [START], "normalizer": {"type": "NFC"},
                       "pre_tokenizer": BYTE_LEVEL, "post_processor": TEMPLATE,
                       "decoder": {"type": "ByteLevel"},
                       "model": {"type": "BPE", "vocab": vocab, "merges": [], **dict(model)},
                       **changes}, ensure_ascii=False)


def llama_json(**changes):
    return json.dumps({
        "added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "replacement": "▁"},
        "decoder": FALLBACK_DECODER,
        "model": {"type": "BPE", "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2},
                  "merges": ["a b"]}, **changes}, ensure_ascii=False)


def steps(list_key, *steps_of_it):
    return {"type": "Sequence", list_key: list(steps_of_it)}


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """A number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=0.0, kind=1):
    text = text if isinstance(text, bytes) else text.encode()
    return field(1, field(1, text) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))


UNKNOWN = piece("<unk>", kind=2)
PIECES = (UNKNOWN + piece("<s>", kind=3) + piece("<0x0A>", kind=6) + piece("<x>", kind=4) +
          piece("▁a", -1) + piece("▁", -2) + piece("a", -3))
BPE_TRAINER = field(2, field(3, 2))
IDENTITY = field(3, field(1, b"identity") + field(4, 0))
SENTENCEPIECE = PIECES + BPE_TRAINER + IDENTITY


def broken_json_model(write):
    write("tokenizer_json/not_json", '{"model": ')
    write("tokenizer_json/is_an_array", "[]")
    write("tokenizer_json/key_unknown", tokenizer_json(truncate=1))
    write("tokenizer_json/model_missing", '{"version": "1.0"}')
    write("tokenizer_json/model_unigram", tokenizer_json({"type": "Unigram"}))
    write("tokenizer_json/model_key_unknown", tokenizer_json({"dropouts": 1}))
    write("tokenizer_json/dropout", tokenizer_json({"dropout": 0.1}))
    write("tokenizer_json/word_suffix", tokenizer_json({"end_of_word_suffix": "</w>"}))
    write("tokenizer_json/flag_is_a_number", tokenizer_json({"ignore_merges": 1}))
    write("tokenizer_json/vocab_is_an_array", tokenizer_json({"vocab": []}))
    write("tokenizer_json/id_negative", tokenizer_json(vocab={"ab": -1}))
    write("tokenizer_json/id_of_2_to_31", tokenizer_json(vocab={"ab": 2**31 - 1}))
    write("tokenizer_json/id_twice", tokenizer_json(vocab={"ab": 0}))
    write("tokenizer_json/byte_missing", tokenizer_json(without="a"))
    write("tokenizer_json/unknown_token_missing", tokenizer_json({"unk_token": "<unk>"}))
    write("tokenizer_json/merge_of_three", tokenizer_json({"merges": ["a b c"]}))
    write("tokenizer_json/merge_is_a_number", tokenizer_json({"merges": [1]}))
    write("tokenizer_json/merge_result_missing", tokenizer_json({"merges": [["a", "b"]]}))
    write("tokenizer_json/added_token_has_two_ids", tokenizer_json(
        added_tokens=[{"id": 256, "content": "a"}]))
    write("tokenizer_json/added_token_leaves_a_gap", tokenizer_json(added_tokens=[{**START, "id": 300}]))
    write("tokenizer_json/added_token_key_unknown",
          tokenizer_json(added_tokens=[{**START, "x": 1}]))


def broken_json_steps(write):
    """Of the normalizer and the pre-tokenizer."""
    write("tokenizer_json/normalizer_lowercase", tokenizer_json(normalizer={"type": "Lowercase"}))
    write("tokenizer_json/normalizer_is_text", tokenizer_json(normalizer="NFC"))
    write("tokenizer_json/replace_regex", tokenizer_json(normalizer=steps(
        "normalizers", {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"})))
    write("tokenizer_json/replace_grows", tokenizer_json(normalizer=steps("normalizers", *[
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 8}] * 3)))
    write("tokenizer_json/steps_too_many", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", *[SPLIT] * 64, BYTE_LEVEL)))
    write("tokenizer_json/replace_nothing", tokenizer_json(
        normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "b"}))
    write("tokenizer_json/pre_tokenizer_whitespace",
          tokenizer_json(pre_tokenizer={"type": "Whitespace"}))
    write("tokenizer_json/prefix_space", tokenizer_json(
        pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True}))
    write("tokenizer_json/step_after_byte_level", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", BYTE_LEVEL, SPLIT)))
    write("tokenizer_json/split_contiguous", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", {**SPLIT, "behavior": "Contiguous"}, BYTE_LEVEL)))
    write("tokenizer_json/pattern_wrong", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", {**SPLIT, "pattern": {"Regex": "(a"}}, BYTE_LEVEL)))
    write("tokenizer_json/pattern_of_text", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", {**SPLIT, "pattern": {"String": " "}}, BYTE_LEVEL)))
    write("tokenizer_json/metaspace_of_underscores", llama_json(
        pre_tokenizer={"type": "Metaspace", "replacement": "_"}))
    write("tokenizer_json/metaspace_scheme", llama_json(
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}))


def broken_json_output(write):
    """Of the post-processor and the decoder."""
    write("tokenizer_json/template_without_text", tokenizer_json(
        post_processor={**TEMPLATE, "single": TEMPLATE["single"][:1]}))
    write("tokenizer_json/template_with_text_twice", tokenizer_json(
        post_processor={**TEMPLATE, "single": TEMPLATE["single"][1:] * 2}))
    write("tokenizer_json/template_token_missing", tokenizer_json(
        post_processor={**TEMPLATE, "special_tokens": {}}))
    write("tokenizer_json/template_id_too_large", tokenizer_json(
        post_processor={**TEMPLATE, "special_tokens": {"<s>": {"ids": [257]}}}))
    write("tokenizer_json/post_processor_bert",
          tokenizer_json(post_processor={"type": "BertProcessing"}))
    write("tokenizer_json/decoder_null", tokenizer_json(decoder=None))
    write("tokenizer_json/decoder_wordpiece", llama_json(decoder={"type": "WordPiece"}))
    write("tokenizer_json/decoder_strips_two", llama_json(decoder=steps(
        "decoders", *FALLBACK_DECODER["decoders"],
        {"type": "Strip", "content": " ", "start": 2, "stop": 0})))


def broken_sentencepiece(write):
    write("sentencepiece/empty", b"")
    write("sentencepiece/cut_off", SENTENCEPIECE[:-1])
    write("sentencepiece/text", b"IQ== 0\nIg== 1\n")
    write("sentencepiece/length_of_2_to_60", varint(1 << 3 | 2) + varint(2**60))
    write("sentencepiece/unigram", PIECES + IDENTITY)
    write("sentencepiece/no_unknown_piece", BPE_TRAINER + IDENTITY + piece("a"))
    write("sentencepiece/two_unknown_pieces", SENTENCEPIECE + piece("<unk2>", kind=2))
    write("sentencepiece/piece_twice", SENTENCEPIECE + piece("a", -4))
    write("sentencepiece/piece_too_long", SENTENCEPIECE + piece("a" * 1025))
    write("sentencepiece/piece_empty", SENTENCEPIECE + piece(""))
    write("sentencepiece/piece_not_utf8", SENTENCEPIECE + piece(b"\xff"))
    write("sentencepiece/piece_type", SENTENCEPIECE + piece("b", kind=7))
    write("sentencepiece/piece_unused", SENTENCEPIECE + piece("b", kind=5))
    write("sentencepiece/score_is_nan", SENTENCEPIECE + piece("b", float("nan")))
    write("sentencepiece/byte_names_none", SENTENCEPIECE + piece("<0xZZ>", kind=6))
    write("sentencepiece/character_missing", SENTENCEPIECE + piece("ab", -4))
    write("sentencepiece/normalizer",
          PIECES + BPE_TRAINER + field(3, field(2, b"abcd") + field(4, 0)))
    write("sentencepiece/removes_spaces", PIECES + BPE_TRAINER)


def broken_config(write):
    write("tokenizer_config/is_an_array", "[]")
    write("tokenizer_config/token_is_a_number", '{"bos_token": 1}')
    write("tokenizer_config/token_missing", '{"eos_token": "<eos>"}')
    write("tokenizer_config/no_bos_token", '{"bos_token": null}')
    write("tokenizer_config/splits_special_tokens", '{"split_special_tokens": true}')
    write("tokenizer_config/id_not_a_number", '{"added_tokens_decoder": {"x": {"content": "<a>"}}}')
    write("tokenizer_config/id_of_2_to_60",
          '{"added_tokens_decoder": {"1152921504606846976": {"content": "<a>"}}}')
    write("tokenizer_config/token_has_another_id",
          '{"added_tokens_decoder": {"1": {"content": "<s>"}}}')
    write("tokenizer_config/id_leaves_a_gap", '{"added_tokens_decoder": {"3": {"content": "<a>"}}}')
    write("tokenizer_config/flag_is_text", '{"bos_token": "<s>", "legacy": "no"}')


def write_broken(write):
    broken_json_model(write)
    broken_json_steps(write)
    broken_json_output(write)
    broken_sentencepiece(write)
    broken_config(write)


def write_well_formed(write):
    write("tokenizer_json/byte_level", tokenizer_json({"merges": [["a", "b"]]}, {"<s>": 256, "ab": 257}))
    write("tokenizer_json/splits", tokenizer_json(
        pre_tokenizer=steps("pretokenizers", SPLIT, {"type": "Digits", "individual_digits": True},
                            BYTE_LEVEL)))
    write("tokenizer_json/llama", llama_json())
    write("sentencepiece/1", SENTENCEPIECE)
    write("tokenizer_config/1",
          '{"bos_token": "<s>", "eos_token": {"content": "</s>"}, '
          '"add_eos_token": true, "legacy": false, '
          '"added_tokens_decoder": {"2": {"content": "<a>", "lstrip": true}}}')
