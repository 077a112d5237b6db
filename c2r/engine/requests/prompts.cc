// Reads prompts and checks that the model can continue them before any is continued.
#include "c2r/engine/requests/prompts.h"

#include "c2r/core/error.h"

namespace c2r {

std::vector<Prompt> read_prompts(const std::string& path, TextEncoder& encoder,
                                 const TextReader& read) {
  std::vector<Prompt> prompts;
  JsonLines lines(path, read);
  while (const auto line = lines.next()) {
    prompts.push_back({.tokens = encoder.tokens_of(*line, lines.place()),
                       .is_text = line->is_string(),
                       .place = lines.place()});
  }
  C2R_REQUIRE(!prompts.empty(), kInvalidArgument, "{}: there is no prompt", path);
  return prompts;
}

std::vector<GenerateRequest> generate_requests(std::span<const Prompt> prompts,
                                               std::int64_t max_new_tokens,
                                               const Sampling& sampling,
                                               const ModelConfig& config) {
  std::vector<GenerateRequest> requests;
  for (const Prompt& prompt : prompts) {
    requests.push_back(
        {.prompt = prompt.tokens, .max_new_tokens = max_new_tokens, .sampling = sampling});
    try {
      check_request(requests.back(), config);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", prompt.place, e.what());
    }
  }
  return requests;
}

}  // namespace c2r
