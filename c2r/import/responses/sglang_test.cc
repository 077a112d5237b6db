// The importer of what SGLang returns.
#include <gtest/gtest.h>

#include "c2r/import/testing_internal.h"
#include "c2r/io/base64.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::error_of_import;
using testing::error_of_text;
using testing::ids_of;
using testing::import_as;
using testing::request_for;
using testing::text_file;

using Indices = std::vector<std::int32_t>;

template <class T>
std::string base64(const std::vector<T>& ids) {
  return encode_base64(std::as_bytes(std::span(ids)));
}

// base64 of int32 [2, 3, 2]: layer 0 is dense; layers 1 and 2 choose {1, 2}, {3, 4}; {0, 5}, {6,
// 7}.
constexpr std::string_view kSglangIds =
    "AAAAAAAAAAABAAAAAgAAAAMAAAAEAAAAAAAAAAAAAAAAAAAABQAAAAYAAAAHAAAA";

TEST(ImportSglang, LeavesDenseLayersOut) {
  auto request = request_for({text_file(
      "response.json", fmt::format(R"({{"meta_info":{{"routed_experts":"{}"}}}})", kSglangIds))});
  request.num_hidden_layers = 3;
  request.top_k = 2;
  const auto result = import_as("sglang", request);
  EXPECT_EQ(result.num_tokens, 2);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 2}));
  EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2 0 5");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "3 4 6 7");

  request.layer_indices = {2};
  EXPECT_EQ(error_of([&] { (void)import_as("sglang", request); }),
            request.inputs[0].string() +
                ": layer 1 was taken to be dense, but has ids other than 0; name the MoE layers "
                "with layer_indices (c2r import --layers)");
}

// A response of 6 tokens, 8 layers, top-1, with experts in the odd layers; `counts` are more keys.
ImportRequest six_tokens(std::string_view counts) {
  std::vector<std::int32_t> ids;
  for (std::int32_t token = 0; token < 6; ++token) {
    for (std::int32_t layer = 0; layer < 8; ++layer) {
      ids.push_back(layer % 2 == 0 ? 0 : 1 + (token * 5 + layer) % 15);
    }
  }
  auto request = request_for(
      {text_file("response.json", fmt::format(R"({{"meta_info":{{"routed_experts":"{}"{}}}}})",
                                              base64(ids), counts))});
  request.num_experts = 16;
  request.top_k = 1;
  request.num_hidden_layers = 8;
  return request;
}

TEST(ImportSglang, ComparesRowsWithTheTokensOfTheResponse) {
  auto request = six_tokens(R"(,"prompt_tokens":3,"completion_tokens":4)");
  const auto result = import_as("sglang", request);
  EXPECT_EQ(result.num_tokens, 6);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 3, 5, 7}));
  std::filesystem::remove(request.output);

  // Half the layers would be twice the tokens.
  request.num_hidden_layers = 4;
  EXPECT_EQ(
      error_of_import("sglang", request),
      ": has 48 ids, but tokens 0 to 6 (3 of the prompt + 4 of the completion - 1) of 4 layers "
      "x 1 experts have 24; are num_hidden_layers and top_k right?");
  // The first 2 tokens were not asked for.
  request = six_tokens(R"(,"prompt_tokens":5,"completion_tokens":4,"routed_experts_start_len":2)");
  EXPECT_EQ(import_as("sglang", request).num_tokens, 6);

  std::vector<std::string> notes;
  request = six_tokens("");
  request.notes = &notes;
  (void)import_as("sglang", request);
  EXPECT_EQ(notes, (std::vector<std::string>{
                       "check --num-hidden-layers: 1 responses do not say how many tokens they "
                       "have, so it could not be compared"}));
  // The same number of ids a token: a layer and the dense one before it become one.
  request.num_hidden_layers = 4;
  request.top_k = 2;
  (void)import_as("sglang", request);
  EXPECT_EQ(notes.at(1), "check --num-hidden-layers and --top-k: in " + request.inputs[0].string() +
                             ", layer 0, choice 0 is expert 0 in all 6 tokens");
}

TEST(ImportSglang, LeavesCachedTokensAndTheOtherPhaseOut) {
  auto request = six_tokens(
      R"(,"prompt_tokens":5,"completion_tokens":4,"routed_experts_start_len":2,"cached_tokens":4)");
  request.skip_cached = true;  // rows are of the positions 2 to 7; 2 and 3 were cached
  EXPECT_EQ(import_as("sglang", request).num_tokens, 4);
  request.phase = Phase::kPrefill;
  EXPECT_EQ(import_as("sglang", request).num_tokens, 1);
  request.phase = Phase::kDecode;
  EXPECT_EQ(import_as("sglang", request).num_tokens, 3);
}

TEST(ImportSglang, ReadsNarrowIdsAndLeavesPaddingOut) {
  const auto import_ids = [](const std::string& ids, std::string_view more) {
    auto request = request_for({text_file(
        "response.json",
        fmt::format(R"([{{"meta_info":{{"routed_experts":"{}"{}}}}},{{"meta_info":{{}}}}])", ids,
                    more))});
    request.num_hidden_layers = 2;
    request.top_k = 2;
    const auto result = import_as("sglang", request);
    EXPECT_EQ(result.header.layer_indices, (Indices{1}));
    EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2 7 3");
    return result.num_skipped_tokens;
  };
  const std::vector<std::uint8_t> u8 = {0, 0, 1, 2, 0, 0, 7, 3};
  const std::vector<std::uint16_t> u16(u8.begin(), u8.end());
  EXPECT_EQ(import_ids(base64(u8), R"(,"routed_experts_dtype":"uint8")"), 0);
  EXPECT_EQ(import_ids(base64(u16), R"(,"routed_experts_dtype":"uint16")"), 0);
  const std::vector<std::int32_t> padded = {0, 0, 1, 2, -1, -1, -1, -1, 0, 0, 7, 3};
  EXPECT_EQ(import_ids(base64(padded), R"(,"routed_experts_dtype":"int32")"), 1);
  // Padding after the tokens that the response states, but no other rows.
  const std::vector<std::int32_t> longer = {0, 0, 1, 2, 0, 0, 7, 3, -1, -1, -1, -1, -1, -1, -1, -1};
  EXPECT_EQ(import_ids(base64(longer), R"(,"prompt_tokens":2,"completion_tokens":1)"), 2);
  auto request = request_for({text_file(
      "response.json",
      fmt::format(
          R"({{"meta_info":{{"routed_experts":"{}","prompt_tokens":1,"completion_tokens":1}}}})",
          base64(longer)))});
  request.num_hidden_layers = 2;
  request.top_k = 2;
  EXPECT_EQ(error_of_import("sglang", request),
            ": has 16 ids, but tokens 0 to 1 (1 of the prompt + 1 of the completion - 1) of 2 "
            "layers x 2 experts have 4; are num_hidden_layers and top_k right?");
  std::filesystem::remove(testing::temporary_path("out.safetensors"));
  EXPECT_EQ(error_of_text("sglang", R"({"meta_info":{"routed_experts":null}})"),
            ": meta_info has no routed_experts; was return_routed_experts in the request?");
}

TEST(ImportSglang, ReadsTheOpenAiRoutes) {
  const auto error_of_response = [](const std::string& text, bool skip_cached = false) {
    auto request = request_for({text_file("response.json", text)});
    request.num_hidden_layers = 3;
    request.top_k = 2;
    request.skip_cached = skip_cached;
    const std::string error = error_of([&] { (void)import_as("sglang", request); });
    return error == "no error" ? ids_of(Trace(request.output), 0)
                               : error.substr(request.inputs[0].string().size());
  };
  constexpr std::string_view kUsage = R"("usage":{"prompt_tokens":2,"completion_tokens":1,
                                         "prompt_tokens_details":{"cached_tokens":1}})";
  const auto of_choice =
      fmt::format(R"({{"choices":[{{"text":"x","sgl_ext":{{"routed_experts":"{}"}}}}],{}}})",
                  kSglangIds, kUsage);
  EXPECT_EQ(error_of_response(of_choice), "1 2 0 5");
  EXPECT_EQ(error_of_response(of_choice, /*skip_cached=*/true), "0 5");
  for (const char* key : {"sglext", "nvext"}) {
    EXPECT_EQ(error_of_response(fmt::format(
                  R"({{"choices":[{{}}],"{}":{{"routed_experts":"{}"}}}})", key, kSglangIds)),
              "1 2 0 5");
  }
  EXPECT_EQ(
      error_of_response(fmt::format(
          R"({{"choices":[{{"sgl_ext":{{"routed_experts":"{}"}}}}],
                     "usage":{{"prompt_tokens":2,"completion_tokens":2}}}})",
          kSglangIds)),
      ": has 12 ids, but tokens 0 to 3 (2 of the prompt + 2 of the completion - 1) of 3 layers "
      "x 2 experts have 18; are num_hidden_layers and top_k right?");
  EXPECT_EQ(error_of_response(R"({"choices":[{"text":"x"}]})"),
            ": meta_info has no routed_experts; was return_routed_experts in the request?");
}

TEST(ImportSglang, CountsResponsesAndChoicesWithoutIds) {
  std::vector<std::string> notes;
  const std::string text = fmt::format(
      R"([null, {{"error":"busy"}}, {{"meta_info":null}}, {{"meta_info":{{"routed_experts":""}}}},
          {{"choices":[{{"sgl_ext":{{"routed_experts":"{}"}}}}, {{"sgl_ext":null}}]}}])",
      kSglangIds);
  auto request = request_for({text_file("responses.json", text)});
  request.num_hidden_layers = 3;
  request.top_k = 2;
  request.notes = &notes;
  EXPECT_EQ(import_as("sglang", request).num_tokens, 2);
  EXPECT_EQ(notes.back(), "left out: 5 responses without ids");
  request.inputs = {text_file("responses.json", R"([null])")};
  EXPECT_EQ(error_of_import("sglang", request), ", value 0: has no meta_info, as responses have");
}

TEST(ImportSglang, FollowsTheSchema) {
  const auto response = [](std::string_view num_layers, std::string_view more) {
    return fmt::format(R"([{{"meta_info":{{"input_expert_ids":"{}","output_expert_ids":null,
        "expert_ids_schema":{{"dtype":"int32","layout":"row_major","id_space":"logical_global",
        "num_layers":{},"top_k":2,"moe_layer_ids":[1,2],"input_num_rows":2{}}}}}}}])",
                       kSglangIds, num_layers, more);
  };
  const auto request = request_for({text_file("response.json", response("3", ""))});
  EXPECT_EQ(import_as("sglang", request).header.layer_indices, (Indices{1, 2}));
  EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2 0 5");
  std::filesystem::remove(request.output);

  // Only MoE layers on the axis: the same bytes are 3 rows.
  EXPECT_EQ(error_of_text("sglang", response("2", "")),
            ", value 0: input_expert_ids has 3 rows, but input_num_rows is 2");
  std::string physical = response("3", "");
  physical.replace(physical.find("logical_global"), 14, "physical");
  EXPECT_EQ(
      error_of_text("sglang", physical),
      ", value 0, expert_ids_schema: id_space is 'physical', but only 'logical_global' is read");
}

TEST(ImportSglang, SaysWhatItNeeds) {
  const std::string text = fmt::format(R"({{"meta_info":{{"routed_experts":"{}"}}}})", kSglangIds);
  EXPECT_EQ(
      error_of_text("sglang", text),
      ": does not say how many layers and experts a token has; give num_hidden_layers and top_k "
      "(c2r import --num-hidden-layers, --top-k)");
  EXPECT_EQ(error_of_text("sglang", R"({"meta_info":{}})"),
            ": meta_info has no routed_experts; was return_routed_experts in the request?");
  const auto with_ids = [](std::string_view ids) {
    auto request = request_for({text_file(
        "response.json", fmt::format(R"({{"meta_info":{{"routed_experts":"{}"}}}})", ids))});
    request.num_hidden_layers = 1;
    request.top_k = 1;
    return error_of_import("sglang", request);
  };
  EXPECT_EQ(with_ids("AAAA"),
            ", routed_experts: has 3 bytes, which are not whole rows of 1 layers x 1 integers of 4 "
            "bytes");
  EXPECT_EQ(with_ids("AA"), ", routed_experts: has 2 base64 digits, which is not a multiple of 4");
  EXPECT_EQ(with_ids("AAAA*A=="), ", routed_experts: '*' at 4 is not a base64 digit");
  EXPECT_EQ(with_ids("CAAAAA=="), ", layer 0, token 0: expert 8 is not in [0, 7]");
  EXPECT_EQ(with_ids("AAAAAA=="),
            ": every id is 0, so no layer is an MoE layer; name the MoE layers with layer_indices "
            "(c2r import --layers)");
}

}  // namespace
}  // namespace c2r
