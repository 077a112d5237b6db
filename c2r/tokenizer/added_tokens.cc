// Finds added tokens in a text by binary search among the sorted tokens.
#include "c2r/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "c2r/tokenizer/unicode.h"

namespace c2r {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::ranges::sort(tokens_, {}, &AddedToken::content);
  for (const AddedToken& token : tokens_) {
    begins_token_[static_cast<unsigned char>(token.content[0])] = true;
  }
}

// Narrows the range of sorted tokens byte by byte to those that agree with the text so far.
const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto begin = tokens_.begin(), end = tokens_.end();
  for (std::size_t depth = 0; depth < text.size(); ++depth) {
    const auto byte_at = [&](const AddedToken& token) {  // tokens that end here sort first
      return depth < token.content.size() ? static_cast<unsigned char>(token.content[depth]) : -1;
    };
    const auto byte = static_cast<unsigned char>(text[depth]);
    begin = std::partition_point(begin, end,
                                 [&](const AddedToken& token) { return byte_at(token) < byte; });
    end = std::partition_point(begin, end,
                               [&](const AddedToken& token) { return byte_at(token) == byte; });
    if (begin == end) break;
    if (begin->content.size() == depth + 1) longest = &*begin;
  }
  return longest;
}

std::vector<TextSection> AddedTokens::sections(std::string_view text) const {
  std::vector<TextSection> sections;
  std::size_t done = 0;  // the end of the last section
  const auto add_text = [&](std::size_t end) {
    if (done < end) sections.push_back({.begin = done, .end = end});
  };
  for (std::size_t at = 0; at < text.size();) {
    const bool may_begin = begins_token_[static_cast<unsigned char>(text[at])];
    const AddedToken* const token = may_begin ? longest_at(text.substr(at)) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->is_single_word &&
        (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) {
      continue;
    }
    if (token->strips_left) {
      begin = std::max(done, begin - trailing_space_bytes(text.substr(0, begin)));
    }
    if (token->strips_right) end += leading_space_bytes(text.substr(end));
    add_text(begin);
    sections.push_back({.begin = begin, .end = end, .token = token});
    done = end;
  }
  add_text(text.size());
  return sections;
}

}  // namespace c2r
