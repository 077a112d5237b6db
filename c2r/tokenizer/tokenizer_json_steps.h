// Readers of the steps before and after the model in tokenizer.json, and checks of its settings.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/tokenizer/tokenizer_spec.h"
#include "c2r/tokenizer/vocabulary.h"

namespace c2r {

/// Each of the four fills its part of `spec` from the value of its key, which may be null.
/// @throws Error(kUnsupported) or Error(kInvalidFile), naming the key and its value
void read_normalizer(const Json& json, const std::string& place, TokenizerSpec& spec);
/// @returns whether the model is byte-level
bool read_pre_tokenizer(const Json& json, const std::string& place, TokenizerSpec& spec);
void read_post_processor(const Json& json, const Vocabulary& vocabulary, const std::string& place,
                         TokenizerSpec& spec);
/// Reads the model and the added tokens of `spec`, which must be filled before.
void read_decoder(const Json& json, const Vocabulary& vocabulary, const std::string& place,
                  TokenizerSpec& spec);

/// @returns object[key], or null if it is absent
const Json& json_or_null(const Json& object, const char* key);

/// @returns object[key] as true or false; `otherwise` if it is absent or null
/// @throws Error(kInvalidFile) if it is anything else
bool json_flag(const Json& object, const char* key, bool otherwise, std::string_view what,
               const std::string& place);

/// Checks that `object[key]` is absent, null or one of `harmless`.
/// @throws Error(kUnsupported), naming the key and the value
void require_absent(const Json& object, const char* key, std::initializer_list<Json> harmless,
                    std::string_view what, const std::string& place);

}  // namespace c2r
