// Reads tokenizer.model of SentencePiece, a protocol buffer (sentencepiece_model.proto). Only BPE
// models that do not normalize the text are supported, such as those of LLaMA and Mistral; other
// settings are refused with an error that names them.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/core/utf8.h"
#include "c2r/io/file.h"
#include "c2r/tokenizer/tokenizer_spec.h"
#include "c2r/tokenizer/vocabulary.h"

namespace c2r {
namespace {

// Finding the merges of a piece takes time quadratic in its length. Real pieces have some dozen
// bytes.
constexpr std::size_t kMaxPieceBytes = 1024;

// One field of a message: a number, or bytes.
struct Field {
  std::uint64_t number = 0;  // which field
  std::uint64_t value = 0;   // of a varint, or the bits of a fixed-size number
  std::string_view bytes;    // of text, bytes or a message
};

// Reads a message field by field (protobuf.dev/programming-guides/encoding).
class Message {
 public:
  Message(std::string_view bytes, std::string_view place) : rest_(bytes), place_(place) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t key = varint();
    Field field{.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        fail();
    }
    return field;
  }

 private:
  [[noreturn]] void fail() const {
    C2R_THROW(kInvalidFile, "{}: is not a SentencePiece model, or is cut off", place_);
  }
  std::string_view take(std::uint64_t num_bytes) {
    if (num_bytes > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, num_bytes);
    rest_.remove_prefix(num_bytes);
    return taken;
  }
  std::uint64_t fixed(std::size_t num_bytes) {
    std::uint64_t value = 0;
    for (std::size_t shift = 0; const char c : take(num_bytes)) {
      value |= std::uint64_t{static_cast<unsigned char>(c)} << shift;
      shift += 8;
    }
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view rest_, place_;
};

enum class PieceType : std::uint64_t {
  kNormal = 1,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};

struct ModelPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct Settings {
  std::uint64_t model_type = 1;  // Unigram
  bool is_suffix = false;        // treat_whitespace_as_suffix
  std::size_t charsmap_bytes = 0;
  bool has_rules = false;
  bool adds_prefix = true, removes_spaces = true, escapes_spaces = true;
};

ModelPiece read_piece(std::string_view bytes, std::string_view place) {
  ModelPiece piece;
  for (Message message(bytes, place); const auto field = message.next();) {
    if (field->number == 1) piece.text = field->bytes;
    if (field->number == 2)
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
    if (field->number == 3) piece.type = PieceType(field->value);
  }
  C2R_REQUIRE(PieceType::kNormal <= piece.type && piece.type <= PieceType::kByte, kInvalidFile,
              "{}: the piece '{}' has the type {}, but must have 1 to 6", place, shown(piece.text),
              std::uint64_t(piece.type));
  C2R_REQUIRE(!piece.text.empty() && is_valid_utf8(piece.text), kInvalidFile,
              "{}: the piece '{}' is empty or not UTF-8", place, shown(piece.text));
  C2R_REQUIRE(piece.text.size() <= kMaxPieceBytes, kInvalidFile,
              "{}: the piece '{}' has {} bytes, but may have {}", place, shown(piece.text),
              piece.text.size(), kMaxPieceBytes);
  C2R_REQUIRE(piece.score == piece.score, kInvalidFile, "{}: the piece '{}' has no score", place,
              shown(piece.text));
  return piece;
}

void read_trainer(std::string_view bytes, std::string_view place, Settings& settings) {
  for (Message message(bytes, place); const auto field = message.next();) {
    if (field->number == 3) settings.model_type = field->value;
    if (field->number == 24) settings.is_suffix = field->value != 0;
  }
}

void read_normalizer(std::string_view bytes, std::string_view place, Settings& settings) {
  for (Message message(bytes, place); const auto field = message.next();) {
    if (field->number == 2) settings.charsmap_bytes = field->bytes.size();
    if (field->number == 3) settings.adds_prefix = field->value != 0;
    if (field->number == 4) settings.removes_spaces = field->value != 0;
    if (field->number == 5) settings.escapes_spaces = field->value != 0;
    if (field->number == 6) settings.has_rules = !field->bytes.empty();
  }
}

void check_settings(const Settings& settings, std::string_view place) {
  const auto refuse = [&](bool is_wrong, std::string_view key, const auto& value) {
    C2R_REQUIRE(!is_wrong, kUnsupported, "{}: {} is {}, which c2r does not support", place, key,
                value);
  };
  refuse(settings.model_type != 2, "trainer_spec.model_type (2 is BPE)", settings.model_type);
  refuse(settings.is_suffix, "trainer_spec.treat_whitespace_as_suffix", true);
  refuse(settings.charsmap_bytes > 0, "normalizer_spec.precompiled_charsmap",
         fmt::format("{} bytes of rules", settings.charsmap_bytes));
  refuse(settings.has_rules, "normalizer_spec.normalization_rule_tsv", "set");
  refuse(settings.removes_spaces, "normalizer_spec.remove_extra_whitespaces", true);
  refuse(!settings.escapes_spaces, "normalizer_spec.escape_whitespaces", false);
}

// SentencePiece also merges characters that are no pieces themselves; trained models have no such
// pieces, so they are refused.
template <class Find>
void check_characters(std::string_view text, std::string_view place, const Find& find) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view character = rest.substr(0, first_utf8_unit(rest).num_bytes);
    C2R_REQUIRE(find(character), kUnsupported,
                "{}: the piece '{}' has the character '{}', which is no piece itself", place,
                shown(text), shown(character));
    rest.remove_prefix(character.size());
  }
}

// SentencePiece merges two neighbours whenever the result is a piece, by descending score, then
// from the left (its bpe_model.cc). So each way to cut a piece into two pieces is a merge, and the
// merges are ranked by the piece's score.
std::vector<BpeMerge> merges_of(const std::vector<ModelPiece>& pieces, const Vocabulary& vocabulary,
                                std::string_view place) {
  std::vector<float> scores;
  scores.reserve(pieces.size());
  for (const ModelPiece& piece : pieces) scores.push_back(piece.score);
  std::ranges::sort(scores, std::ranges::greater{});
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

  const auto normal = [&](std::string_view text) {
    const auto id = vocabulary.find(text);
    return id && pieces[index(*id)].type == PieceType::kNormal ? id : std::nullopt;
  };
  std::vector<BpeMerge> merges;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string_view text = pieces[id].text;
    if (pieces[id].type != PieceType::kNormal) continue;
    check_characters(text, place, normal);
    const auto rank =
        std::ranges::lower_bound(scores, pieces[id].score, std::ranges::greater{}) - scores.begin();
    for (std::size_t at = first_utf8_unit(text).num_bytes; at < text.size();
         at += first_utf8_unit(text.substr(at)).num_bytes) {
      const auto left = normal(text.substr(0, at)), right = normal(text.substr(at));
      if (!left || !right) continue;
      merges.push_back({.left = *left,
                        .right = *right,
                        .merged = TokenId(static_cast<std::int32_t>(id)),
                        .rank = static_cast<std::int32_t>(rank)});
    }
  }
  return merges;
}

// Adds the text of a piece to the model, and the text that its id is decoded to.
void add_piece(const ModelPiece& piece, TokenId id, std::string_view place, TokenizerSpec& spec) {
  std::string text;  // what the text has for it
  DecodedToken decoded{.bytes = replace_all(piece.text, kMetaspace, " ")};
  switch (piece.type) {
    case PieceType::kNormal:
      text = piece.text;
      break;
    case PieceType::kUnknown:
      C2R_REQUIRE(!spec.model.unknown, kInvalidFile, "{}: has two unknown pieces, {} and {}", place,
                  index(*spec.model.unknown), index(id));
      spec.model.unknown = id;
      decoded.is_special = true;
      break;
    case PieceType::kControl:
      decoded.is_special = true;
      break;
    case PieceType::kByte: {
      const auto byte = fallback_byte(piece.text);
      C2R_REQUIRE(byte, kInvalidFile, "{}: the piece '{}' is of type byte, but names none", place,
                  shown(piece.text));
      decoded = {.bytes = std::string(1, static_cast<char>(*byte)), .is_fallback_byte = true};
      spec.model.byte_tokens[*byte] = id;
      break;
    }
    case PieceType::kUserDefined:
      spec.user_defined.push_back({.id = id, .content = piece.text});
      break;
    case PieceType::kUnused:
      C2R_THROW(kUnsupported, "{}: the piece '{}' is of type unused, which c2r does not support",
                place, shown(piece.text));
  }
  spec.model.tokens.push_back(std::move(text));
  spec.decoded.push_back(std::move(decoded));
}

}  // namespace

TokenizerSpec read_sentencepiece(const std::filesystem::path& path) {
  const std::string place = path.string(), bytes = read_text_file(path);
  Settings settings;
  std::vector<ModelPiece> pieces;
  for (Message model(bytes, place); const auto field = model.next();) {
    if (field->number == 1) pieces.push_back(read_piece(field->bytes, place));
    if (field->number == 2) read_trainer(field->bytes, place, settings);
    if (field->number == 3) read_normalizer(field->bytes, place, settings);
  }
  C2R_REQUIRE(!pieces.empty(), kInvalidFile, "{}: is not a SentencePiece model: it has no pieces",
              place);
  check_settings(settings, place);
  C2R_REQUIRE(std::ssize(pieces) < kMaxVocabSize, kUnsupported,
              "{}: has {} pieces, but c2r supports fewer than {}", place, pieces.size(),
              kMaxVocabSize);

  TokenizerSpec spec;
  spec.model.byte_tokens.fill(kNoToken);
  spec.model.fuses_unknown = true;
  Vocabulary vocabulary(place);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const TokenId id{static_cast<std::int32_t>(i)};
    vocabulary.add(pieces[i].text, id);
    add_piece(pieces[i], id, place, spec);
  }
  C2R_REQUIRE(spec.model.unknown, kInvalidFile, "{}: has no unknown piece", place);
  spec.model.merges = merges_of(pieces, vocabulary, place);
  using Prefix = Metaspace::Prefix;
  spec.metaspace = {.prefix = settings.adds_prefix ? Prefix::kAlways : Prefix::kNever,
                    .prefixes_twice = true};
  spec.strips_leading_space = settings.adds_prefix;
  return spec;
}

}  // namespace c2r
