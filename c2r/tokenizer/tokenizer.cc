// Carries out a TokenizerSpec: encodes texts step by step, and decodes ids one by one.
#include "c2r/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/utf8.h"
#include "c2r/io/file.h"
#include "c2r/tokenizer/tokenizer_spec.h"

namespace c2r {
namespace {

std::string normalized(std::string_view text, const std::vector<Normalizer>& normalizers) {
  std::string result(text);
  for (const Normalizer& step : normalizers) {
    if (const auto* form = std::get_if<NormalForm>(&step)) {
      std::string out;
      append_normalized(result, *form, out);
      result = std::move(out);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!result.empty()) result.insert(0, prepend->text);
    } else {
      const auto& [from, to, is_at_start] = std::get<Replace>(step);
      if (!is_at_start) result = replace_all(result, from, to);
      if (is_at_start && result.starts_with(from)) result.replace(0, from.size(), to);
    }
  }
  return result;
}

std::string with_metaspace(std::string_view text, const Metaspace& metaspace, bool is_first) {
  std::string out = replace_all(text, " ", kMetaspace);
  const bool wants_prefix = metaspace.prefix == Metaspace::Prefix::kAlways ||
                            (metaspace.prefix == Metaspace::Prefix::kFirst && is_first);
  if (wants_prefix && (metaspace.prefixes_twice || !out.starts_with(kMetaspace))) {
    out.insert(0, kMetaspace);
  }
  return out;
}

// Whether kMetaspace is a token and occurs in the other tokens at their begin only. Then no merge
// crosses a position where kMetaspace follows another character, so the text can be cut there.
bool begins_words(const BpeModel& model) {
  const bool has_metaspace = std::ranges::find(model.tokens, kMetaspace) != model.tokens.end();
  return has_metaspace && std::ranges::all_of(model.tokens, [](std::string_view token) {
           while (token.starts_with(kMetaspace)) token.remove_prefix(kMetaspace.size());
           return token.find(kMetaspace) == std::string_view::npos;
         });
}

// The end of the first word of `text`, where kMetaspace follows another character.
std::size_t first_word_end(std::string_view text) {
  std::size_t at = 0;
  while (text.substr(at).starts_with(kMetaspace)) at += kMetaspace.size();
  return std::min(text.find(kMetaspace, at), text.size());
}

std::vector<AddedToken> tokens_where(const std::vector<AddedToken>& tokens, bool is_normalized) {
  std::vector<AddedToken> some;
  std::ranges::copy_if(tokens, std::back_inserter(some), [&](const AddedToken& token) {
    return token.is_normalized == is_normalized;
  });
  return some;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerSpec from)
      : spec(std::move(from)),
        is_byte_level(spec.model.is_byte_level),
        cuts_at_words(!is_byte_level && begins_words(spec.model)),
        raw_tokens(tokens_where(spec.added_tokens, false)),
        normalized_tokens(normalized_contents(tokens_where(spec.added_tokens, true))),
        user_defined(spec.user_defined),
        bpe(std::move(spec.model)) {}

  std::vector<AddedToken> normalized_contents(std::vector<AddedToken> tokens) const {
    for (AddedToken& token : tokens) token.content = normalized(token.content, spec.normalizers);
    return tokens;
  }

  TokenizerSpec spec;  // without the model, which was moved into bpe
  bool is_byte_level, cuts_at_words;
  AddedTokens raw_tokens, normalized_tokens, user_defined;
  Bpe bpe;
};

namespace {

// Encodes one text, with the matchers and the scratch memory for that.
template <class Impl>
class Encoder {
 public:
  Encoder(const Impl& impl, std::vector<TokenId>& ids) : impl_(impl), ids_(ids) {
    for (const Split& split : impl.spec.splits) matchers_.emplace_back(split.pattern);
  }

  void encode(std::string_view text) {
    for_text_between(impl_.raw_tokens, text, [&](std::string_view raw, bool is_first) {
      if (impl_.spec.normalizers.empty()) return encode_normalized(raw, is_first);
      encode_normalized(normalized(raw, impl_.spec.normalizers), is_first);
    });
  }

 private:
  // Appends the tokens whose texts occur in `text`, and calls `body` with the text between them.
  template <class Body>
  void for_text_between(const AddedTokens& tokens, std::string_view text, const Body& body) {
    for (const TextSection& section : tokens.sections(text)) {
      if (section.token != nullptr) {
        ids_.push_back(section.token->id);
      } else {
        body(text.substr(section.begin, section.end - section.begin), section.begin == 0);
      }
    }
  }

  void encode_normalized(std::string_view text, bool is_first) {
    for_text_between(impl_.normalized_tokens, text, [&](std::string_view plain, bool is_start) {
      if (!impl_.spec.metaspace) return cut(plain, 0);
      const std::string marked = with_metaspace(plain, *impl_.spec.metaspace, is_first && is_start);
      for_text_between(impl_.user_defined, marked,
                       [&](std::string_view rest, bool) { cut(rest, 0); });
    });
  }

  // Applies the splits from the `level`-th on.
  void cut(std::string_view piece, std::size_t level) {
    if (level == matchers_.size()) return encode_piece(piece);
    std::size_t at = 0;
    while (const auto match = matchers_[level].next(piece, at)) {
      if (impl_.spec.splits[level].keeps_gaps && at < match->begin) {
        cut(piece.substr(at, match->begin - at), level + 1);
      }
      cut(piece.substr(match->begin, match->end - match->begin), level + 1);
      at = match->end;
    }
    if (impl_.spec.splits[level].keeps_gaps && at < piece.size()) cut(piece.substr(at), level + 1);
  }

  void encode_piece(std::string_view piece) {
    while (impl_.cuts_at_words && !piece.empty()) {
      const std::size_t end = first_word_end(piece);
      impl_.bpe.encode(piece.substr(0, end), scratch_, ids_);
      piece.remove_prefix(end);
    }
    if (!piece.empty()) impl_.bpe.encode(piece, scratch_, ids_);
  }

  const Impl& impl_;
  std::vector<TokenId>& ids_;
  std::vector<SplitPattern::Matcher> matchers_;
  Bpe::Scratch scratch_;
};

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const auto json = folder / "tokenizer.json", sentencepiece = folder / "tokenizer.model";
  const bool has_json = path_exists(json);
  C2R_REQUIRE(has_json || path_exists(sentencepiece), kInvalidFile,
              "{}: has neither tokenizer.json nor tokenizer.model", folder.string());
  TokenizerSpec spec = has_json ? read_tokenizer_json(json) : read_sentencepiece(sentencepiece);
  apply_tokenizer_config(folder / "tokenizer_config.json", !has_json, spec);
  return Tokenizer(std::move(spec));
}

Tokenizer::Tokenizer(TokenizerSpec spec) : impl_(std::make_unique<Impl>(std::move(spec))) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, Template applied) const {
  const bool has_template = applied == Template::kApply;
  std::vector<TokenId> ids;
  if (has_template) ids = impl_->spec.prefix;
  Encoder encoder(*impl_, ids);
  if (is_valid_utf8(text)) {
    encoder.encode(text);
  } else {
    encoder.encode(replace_broken_utf8(text));
  }
  if (has_template) ids.insert(ids.end(), impl_->spec.suffix.begin(), impl_->spec.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, SpecialTokens special) const {
  Stream stream(*this, special);
  std::string text;
  for (const TokenId id : ids) text += stream.push(id);
  return text + stream.finish();
}

Tokenizer::Stream::Stream(const Tokenizer& tokenizer, SpecialTokens special)
    : impl_(tokenizer.impl_.get()), special_(special) {}

std::string Tokenizer::Stream::push(TokenId id) {
  C2R_REQUIRE(id >= TokenId{}, kInvalidArgument, "{} is no token id", static_cast<int>(id));
  if (index(id) >= impl_->spec.decoded.size()) return {};
  const DecodedToken& token = impl_->spec.decoded[index(id)];
  if (token.is_special && special_ == SpecialTokens::kSkip) return {};
  std::string text;
  if (!impl_->is_byte_level && !token.is_fallback_byte) text = take_bytes() + token.bytes;
  if (impl_->is_byte_level || token.is_fallback_byte) held_ += token.bytes;
  if (impl_->is_byte_level) text = take_characters();
  return at_start(std::move(text));
}

std::string Tokenizer::Stream::finish() {
  return at_start(impl_->is_byte_level ? replace_broken_utf8(std::exchange(held_, {}))
                                       : take_bytes());
}

// Takes the bytes that later tokens cannot change: all but a last character that is cut off.
std::string Tokenizer::Stream::take_characters() {
  std::size_t whole = 0;
  while (whole < held_.size()) {
    const Utf8Unit unit = first_utf8_unit(std::string_view(held_).substr(whole));
    if (unit.kind == Utf8Kind::kCutOff) break;
    whole += unit.num_bytes;
  }
  std::string text = replace_broken_utf8(std::string_view(held_).substr(0, whole));
  held_.erase(0, whole);
  return text;
}

// Takes the run of fallback bytes that is held back. If the run is not valid UTF-8, each of its
// bytes becomes one U+FFFD: the rule of ByteFallback in Hugging Face's tokenizers.
std::string Tokenizer::Stream::take_bytes() {
  std::string run = std::exchange(held_, {});
  if (is_valid_utf8(run)) return run;
  std::string text;
  for (std::size_t i = 0; i < run.size(); ++i) text += kReplacementCharacter;
  return text;
}

// Removes the space that encoding puts before the first word, if `text` begins the output.
std::string Tokenizer::Stream::at_start(std::string text) {
  if (text.empty()) return text;
  const bool is_start = std::exchange(is_at_start_, false);
  if (is_start && impl_->spec.strips_leading_space && text[0] == ' ') text.erase(0, 1);
  return text;
}

std::int64_t Tokenizer::vocab_size() const {
  return std::ssize(impl_->spec.decoded);
}

std::optional<TokenId> Tokenizer::first_token() const {
  return impl_->spec.first_token;
}

}  // namespace c2r
