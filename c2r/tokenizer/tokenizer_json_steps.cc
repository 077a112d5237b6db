// Reads the normalizer, pre-tokenizer, post-processor and decoder of tokenizer.json.
#include "c2r/tokenizer/tokenizer_json_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

// The pattern of GPT-2, by which the step ByteLevel cuts text.
constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

std::string type_of(const Json& step, std::string_view what, const std::string& place) {
  C2R_REQUIRE(step.is_object(), kInvalidFile, "{}: {} is {}, but must be an object", place, what,
              shown_value(step));
  return json_string(json_at(step, "type", place), fmt::format("{}.type", what), place);
}

[[noreturn]] void refuse_type(std::string_view type, std::string_view what, std::string_view known,
                              const std::string& place) {
  C2R_THROW(kUnsupported, "{}: {} has the type '{}', but c2r supports only {}", place, what,
            shown(type), known);
}

// Each step splits the pieces of the steps before it. Real tokenizers have up to a dozen steps.
constexpr std::size_t kMaxSteps = 64;

// Calls `body` on a step, or on each step of a Sequence, whose list has the name `list_key`.
template <class Body>
void for_steps(const Json& json, const char* list_key, std::string_view what,
               const std::string& place, const Body& body) {
  if (json.is_null()) return;
  if (type_of(json, what, place) != "Sequence") return body(json, what);
  json_check_keys(json, {"type", list_key}, what, place);
  const auto& steps = json_array(json_at(json, list_key, place), list_key, place);
  C2R_REQUIRE(steps.size() <= kMaxSteps, kUnsupported,
              "{}: {} has {} steps, but c2r supports at most {}", place, what, steps.size(),
              kMaxSteps);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    body(steps[i], fmt::format("{}.{}[{}]", what, list_key, i));
  }
}

// The value of {"String": "..."} or {"Regex": "..."}, depending on `kind`.
const std::string& pattern_of(const Json& step, const char* kind, std::string_view what,
                              const std::string& place) {
  const Json& pattern = json_at(step, "pattern", place);
  C2R_REQUIRE(pattern.is_object() && pattern.size() == 1 && pattern.contains(kind), kUnsupported,
              "{}: {}.pattern is {}, but c2r supports only a {}", place, what, shown_value(pattern),
              kind);
  return json_string(pattern[kind], fmt::format("{}.pattern", what), place);
}

// The text of a pattern that matches one text at the start, as transformers 5 writes it for LLaMA's
// old tokenizers: "\\A" and a text without ASCII punctuation, which could have another meaning.
std::optional<std::string> text_at_start(const Json& pattern) {
  const Json* const regex = json_find(pattern, "Regex");
  if (pattern.size() != 1 || regex == nullptr || !regex->is_string()) return std::nullopt;
  const std::string& text = regex->get_ref<const std::string&>();
  const auto is_plain = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || byte == ' ' || std::isalnum(byte) != 0;
  };
  if (!text.starts_with("\\A") || !std::all_of(text.begin() + 2, text.end(), is_plain)) {
    return std::nullopt;
  }
  return text.substr(2);
}

Replace read_replace(const Json& step, std::string_view what, const std::string& place) {
  json_check_keys(step, {"type", "pattern", "content"}, what, place);
  const Json& pattern = json_at(step, "pattern", place);
  const auto at_start = text_at_start(pattern);
  const bool is_string = pattern.is_object() && pattern.size() == 1 && pattern.contains("String");
  C2R_REQUIRE(at_start || is_string, kUnsupported,
              "{}: {}.pattern is {}, but c2r supports only a String, or a Regex of \\A and a text "
              "without punctuation",
              place, what, shown_value(pattern));
  Replace replace{.from = at_start ? *at_start : pattern_of(step, "String", what, place),
                  .to = json_string(json_at(step, "content", place), what, place),
                  .is_at_start = at_start.has_value()};
  C2R_REQUIRE(!replace.from.empty(), kInvalidFile, "{}: {}.pattern is empty", place, what);
  return replace;
}

void read_split(const Json& step, std::string_view what, const std::string& place,
                TokenizerSpec& spec) {
  json_check_keys(step, {"type", "pattern", "behavior", "invert"}, what, place);
  const std::string& behavior = json_string(json_at(step, "behavior", place), what, place);
  const bool is_inverted = json_flag(step, "invert", false, what, place);
  // With invert, "Removed" removes the text between the matches.
  const bool drops_gaps = behavior == "Removed" && is_inverted;
  C2R_REQUIRE(drops_gaps || behavior == "Isolated", kUnsupported,
              "{}: {} has the behavior '{}' with invert {}, but c2r supports only Isolated, and "
              "Removed with invert true",
              place, what, shown(behavior), is_inverted);
  spec.splits.push_back({SplitPattern(pattern_of(step, "Regex", what, place), place), !drops_gaps});
}

void read_metaspace(const Json& step, std::string_view what, const std::string& place,
                    TokenizerSpec& spec) {
  json_check_keys(step,
                  {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"},
                  what, place);
  C2R_REQUIRE(json_at(step, "replacement", place) == kMetaspace, kUnsupported,
              "{}: {}.replacement is {}, but c2r supports only U+2581", place, what,
              shown_value(step["replacement"]));
  C2R_REQUIRE(!spec.metaspace && spec.splits.empty(), kUnsupported,
              "{}: {} is a Metaspace after another step, which c2r does not support", place, what);
  std::string scheme = json_flag(step, "add_prefix_space", true, what, place) ? "always" : "never";
  if (step.contains("prepend_scheme")) scheme = json_string(step["prepend_scheme"], what, place);
  C2R_REQUIRE(scheme == "always" || scheme == "first" || scheme == "never", kInvalidFile,
              "{}: {}.prepend_scheme is '{}', but must be always, first or never", place, what,
              shown(scheme));
  using Prefix = Metaspace::Prefix;
  spec.metaspace = {.prefix = scheme == "always"  ? Prefix::kAlways
                              : scheme == "first" ? Prefix::kFirst
                                                  : Prefix::kNever};
  if (json_flag(step, "split", true, what, place)) {
    spec.splits.push_back({SplitPattern("\u2581[^\u2581]*|[^\u2581]+", place)});
  }
}

// Returns whether the step makes the model byte-level.
bool read_pre_tokenizer_step(const Json& step, std::string_view what, const std::string& place,
                             TokenizerSpec& spec) {
  const std::string type = type_of(step, what, place);
  if (type == "Split") {
    read_split(step, what, place, spec);
  } else if (type == "Digits") {
    json_check_keys(step, {"type", "individual_digits"}, what, place);
    const bool is_each = json_flag(step, "individual_digits", false, what, place);
    spec.splits.push_back({SplitPattern(is_each ? "\\p{N}" : "\\p{N}+", place)});
  } else if (type == "Metaspace") {
    read_metaspace(step, what, place, spec);
  } else if (type == "ByteLevel") {
    json_check_keys(step, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, what, place);
    require_absent(step, "add_prefix_space", {false}, what, place);
    if (json_flag(step, "use_regex", true, what, place)) {
      spec.splits.push_back({SplitPattern(kGpt2Pattern, place)});
    }
    return true;
  } else {
    refuse_type(type, what, "Split, Digits, Metaspace, ByteLevel and Sequence", place);
  }
  return false;
}

void read_template(const Json& step, std::string_view what, const Vocabulary& vocabulary,
                   const std::string& place, TokenizerSpec& spec) {
  json_check_keys(step, {"type", "single", "pair", "special_tokens"}, what, place);
  bool is_after_text = false;
  for (const Json& item : json_array(json_at(step, "single", place), "single", place)) {
    if (item.is_object() && item.contains("Sequence")) {
      C2R_REQUIRE(!is_after_text, kUnsupported, "{}: {}.single has the text twice", place, what);
      is_after_text = true;
      continue;
    }
    const Json& name = json_at(json_at(item, "SpecialToken", place), "id", place);
    const Json& token =
        json_at(json_at(step, "special_tokens", place), json_string(name, what, place), place);
    auto& ids = is_after_text ? spec.suffix : spec.prefix;
    for (const Json& id : json_array(json_at(token, "ids", place), what, place)) {
      const auto max = static_cast<std::int64_t>(vocabulary.size()) - 1;
      ids.push_back(TokenId(static_cast<std::int32_t>(
          json_integer(id, 0, max, fmt::format("an id of {}", what), place))));
    }
  }
  C2R_REQUIRE(is_after_text, kInvalidFile, "{}: {}.single leaves out the text", place, what);
}

// Reads the steps that undo Metaspace and byte fallback, which must have the one usual order.
void read_fallback_decoder(const Json& json, const std::string& place, TokenizerSpec& spec) {
  std::vector<std::string> types;
  for_steps(json, "decoders", "decoder", place, [&](const Json& step, std::string_view what) {
    types.push_back(type_of(step, what, place));
    if (types.back() == "Replace") {
      const Replace replace = read_replace(step, what, place);
      C2R_REQUIRE(replace.from == kMetaspace && replace.to == " " && !replace.is_at_start,
                  kUnsupported,
                  "{}: {} replaces '{}' by '{}', but c2r supports only U+2581 by a space", place,
                  what, shown(replace.from), shown(replace.to));
    } else if (types.back() == "Strip") {
      const Json expected = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
      C2R_REQUIRE(step == expected, kUnsupported, "{}: {} is {}, but c2r supports only {}", place,
                  what, shown_value(step), expected.dump());
      spec.strips_leading_space = true;
    }
  });
  const std::string shown_types = fmt::format("{}", fmt::join(types, " "));
  const bool is_known = shown_types == "Replace ByteFallback Fuse" ||
                        shown_types == "Replace ByteFallback Fuse Strip";
  C2R_REQUIRE(is_known, kUnsupported,
              "{}: decoder has the steps '{}', but c2r supports only Replace ByteFallback Fuse, "
              "with or without Strip",
              place, shown(shown_types));
}

}  // namespace

const Json& json_or_null(const Json& object, const char* key) {
  static const Json null;
  const Json* const value = json_find(object, key);
  return value == nullptr ? null : *value;
}

bool json_flag(const Json& object, const char* key, bool otherwise, std::string_view what,
               const std::string& place) {
  const Json& value = json_or_null(object, key);
  if (value.is_null()) return otherwise;
  return json_boolean(value, fmt::format("{}.{}", what, key), place);
}

void require_absent(const Json& object, const char* key, std::initializer_list<Json> harmless,
                    std::string_view what, const std::string& place) {
  const Json& value = json_or_null(object, key);
  C2R_REQUIRE(value.is_null() || std::ranges::find(harmless, value) != harmless.end(), kUnsupported,
              "{}: {}.{} is {}, which c2r does not support", place, what, key, shown_value(value));
}

void read_normalizer(const Json& json, const std::string& place, TokenizerSpec& spec) {
  constexpr double kMaxGrowth = 64;  // of a text
  double growth = 1;
  for_steps(json, "normalizers", "normalizer", place, [&](const Json& step, std::string_view what) {
    const std::string type = type_of(step, what, place);
    if (type == "NFC" || type == "NFKC") {
      json_check_keys(step, {"type"}, what, place);
      spec.normalizers.emplace_back(type == "NFC" ? NormalForm::kNfc : NormalForm::kNfkc);
    } else if (type == "Prepend") {
      json_check_keys(step, {"type", "prepend"}, what, place);
      spec.normalizers.emplace_back(
          Prepend{json_string(json_at(step, "prepend", place), what, place)});
    } else if (type == "Replace") {
      const Replace replace = read_replace(step, what, place);
      growth *= std::max(
          1.0, static_cast<double>(replace.to.size()) / static_cast<double>(replace.from.size()));
      C2R_REQUIRE(growth <= kMaxGrowth, kUnsupported,
                  "{}: {} could make a text over {} times as long", place, what, kMaxGrowth);
      spec.normalizers.emplace_back(replace);
    } else {
      refuse_type(type, what, "NFC, NFKC, Prepend, Replace and Sequence", place);
    }
  });
}

bool read_pre_tokenizer(const Json& json, const std::string& place, TokenizerSpec& spec) {
  bool is_byte_level = false;
  for_steps(json, "pretokenizers", "pre_tokenizer", place,
            [&](const Json& step, std::string_view what) {
              C2R_REQUIRE(!is_byte_level, kUnsupported,
                          "{}: {} comes after ByteLevel, which c2r does not support", place, what);
              is_byte_level = read_pre_tokenizer_step(step, what, place, spec);
            });
  C2R_REQUIRE(!is_byte_level || !spec.metaspace, kUnsupported,
              "{}: pre_tokenizer has both Metaspace and ByteLevel, which c2r does not support",
              place);
  return is_byte_level;
}

void read_post_processor(const Json& json, const Vocabulary& vocabulary, const std::string& place,
                         TokenizerSpec& spec) {
  for_steps(json, "processors", "post_processor", place,
            [&](const Json& step, std::string_view what) {
              const std::string type = type_of(step, what, place);
              if (type == "TemplateProcessing") {
                read_template(step, what, vocabulary, place, spec);
              } else if (type != "ByteLevel") {  // which moves offsets only
                refuse_type(type, what, "TemplateProcessing, ByteLevel and Sequence", place);
              }
            });
}

void read_decoder(const Json& json, const Vocabulary& vocabulary, const std::string& place,
                  TokenizerSpec& spec) {
  const bool is_byte_level = spec.model.is_byte_level;
  if (is_byte_level) {
    C2R_REQUIRE(
        !json.is_null() && type_of(json, "decoder", place) == "ByteLevel", kUnsupported,
        "{}: decoder is {}, but c2r supports only ByteLevel after a ByteLevel pre_tokenizer", place,
        shown_value(json));
  } else {
    read_fallback_decoder(json, place, spec);
  }
  spec.decoded.resize(vocabulary.size());
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.text(id);
    const auto byte = is_byte_level ? std::nullopt : fallback_byte(text);
    spec.decoded[id] = {.bytes = is_byte_level ? bytes_of_byte_level(text).value_or(text)
                                 : byte        ? std::string(1, static_cast<char>(*byte))
                                               : replace_all(text, kMetaspace, " "),
                        .is_fallback_byte = byte.has_value()};
  }
  for (const AddedToken& token : spec.added_tokens) {
    spec.decoded[index(token.id)].is_special = token.is_special;
  }
}

}  // namespace c2r
