// The importer of what vLLM returns; and of steps that decode.
#include <gtest/gtest.h>

#include "c2r/import/testing_internal.h"
#include "c2r/io/base64.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::error_of_import;
using testing::error_of_text;
using testing::ids_of;
using testing::import_as;
using testing::request_for;
using testing::starts_of;
using testing::text_file;

using Indices = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

TEST(ImportVllm, GivesThePromptToTheFirstChoice) {
  // The first prompt token was prefix-cached.
  auto request = request_for({text_file("response.json", R"({"id":"x",
      "prompt_routed_experts":[[[-1,-1],[-1,-1]],[[0,1],[2,3]]],
      "choices":[{"routed_experts":[[[4,5],[6,7]]]},{"routed_experts":[[[1,0],[3,2]],[[5,4],[7,6]]]},
                 {"routed_experts":null}]})")});
  request.layer_indices = {3, 4};
  const auto result = import_as("vllm", request);
  EXPECT_EQ(result.num_tokens, 4);
  EXPECT_EQ(result.num_sequences, 2);
  EXPECT_EQ(result.num_skipped_tokens, 1);
  EXPECT_EQ(result.header.layer_indices, (Indices{3, 4}));
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "0 1 4 5 1 0 5 4");
  EXPECT_EQ(ids_of(trace, 1), "2 3 6 7 3 2 7 6");
  EXPECT_EQ(starts_of(trace), (Starts{0, 2}));
}

TEST(ImportVllm, ReadsAListAlone) {
  for (const char* text : {"[[[0,1]],[[2,-1]]]", R"({"routed_experts":[[[0,1]],[[2,-1]]]})"}) {
    const auto request = request_for({text_file("a.json", text)});
    EXPECT_EQ(import_as("vllm", request).num_tokens, 2);
    EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 2 -") << "masked in part: kept";
  }
}

// Some versions have all hidden layers on the axis, with zeros in dense ones.
TEST(ImportVllm, LeavesDenseLayersOut) {
  auto request = request_for({text_file(
      "response.json", R"({"choices":[{"routed_experts":[[[0],[3]],[[0],[5]],[[-1],[-1]]]}]})")});
  auto result = import_as("vllm", request);
  EXPECT_EQ(result.header.layer_indices, (Indices{1}));
  EXPECT_EQ(result.num_tokens, 2);
  EXPECT_EQ(result.num_skipped_tokens, 1);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3 5");

  request.layer_indices = {1};
  request.num_hidden_layers = 2;
  EXPECT_EQ(import_as("vllm", request).header.layer_indices, (Indices{1}));
  request.layer_indices = {4, 9};  // the axis has MoE layers only, one of them always expert 0
  request.num_hidden_layers = 10;
  EXPECT_EQ(import_as("vllm", request).header.layer_indices, (Indices{4, 9}));
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 0");

  std::filesystem::remove(request.output);
  request.layer_indices = {0};
  request.num_hidden_layers.reset();
  EXPECT_EQ(error_of_import("vllm", request),
            ", choice 0: layer 1 was taken to be dense, but has ids other than 0; name the MoE "
            "layers with layer_indices (c2r import --layers)");
  request.layer_indices.clear();
  request.num_hidden_layers = 4;
  EXPECT_EQ(error_of_import("vllm", request),
            ", choice 0: has 2 layers, but num_hidden_layers is 4; a version of vLLM that counts "
            "MoE layers only needs their indices (c2r import --layers)");
}

TEST(ImportVllm, LeavesCachedTokensAndTheOtherPhaseOut) {
  // 3 tokens of the prompt, of which 2 were cached, and 3 generated, whose last was not routed.
  auto request = request_for({text_file(
      "response.json", R"({"choices":[{"routed_experts":[[[1]],[[2]],[[3]],[[4]],[[5]]]}],
          "usage":{"prompt_tokens":3,"completion_tokens":3,
                   "prompt_tokens_details":{"cached_tokens":2}}})")});
  std::vector<std::string> notes;
  request.notes = &notes;
  request.skip_cached = true;
  (void)import_as("vllm", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3 4 5");
  request.phase = Phase::kDecode;
  (void)import_as("vllm", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "4 5");
  request.skip_cached = false;
  request.phase = Phase::kPrefill;
  EXPECT_EQ(import_as("vllm", request).num_skipped_tokens, 2);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2 3");
  EXPECT_EQ(notes, (std::vector<std::string>{"left out: 2 cached tokens, which were not sent",
                                             "left out: 2 cached tokens, which were not sent",
                                             "left out: 1 tokens of the other phase",
                                             "left out: 2 tokens of the other phase"}));

  std::filesystem::remove(request.output);
  request.inputs = {text_file("silent.json", "[[[1]]]")};
  EXPECT_EQ(error_of_import("vllm", request),
            ": does not say how many tokens the prompt has, which --phase needs");
  request.phase.reset();
  request.skip_cached = true;
  EXPECT_EQ(error_of_import("vllm", request),
            ": does not say how many tokens were cached, which --skip-cached needs");
}

// Of 3 tokens, 2 layers, top-1, as newer versions return them.
TEST(ImportVllm, ReadsBase64OfAnArray) {
  for (const std::string_view dtype : {"|u1", "<u2", ">u2"}) {
    std::string bytes = fmt::format(
        "\x93NUMPY\x01{}{:c}{}{{'descr': '{}', 'fortran_order': False, 'shape': (3, 2, 1), }}\n",
        '\0', 63, '\0', dtype);
    for (const char id : {'\0', '\3', '\0', '\5', '\0', '\7'}) {
      if (dtype == ">u2") bytes += '\0';
      bytes += id;
      if (dtype == "<u2") bytes += '\0';
    }
    const auto request = request_for(
        {text_file("response.json", fmt::format(R"({{"choices":[{{"routed_experts":"{}"}}]}})",
                                                encode_base64(std::as_bytes(std::span(bytes)))))});
    EXPECT_EQ(import_as("vllm", request).header.layer_indices, (Indices{1}));
    EXPECT_EQ(ids_of(Trace(request.output), 0), "3 5 7") << dtype;
  }
}

TEST(ImportVllm, ReadsListsLinesFoldersAndCompressedFiles) {
  const std::string one = R"({"choices":[{"routed_experts":[[[1]]]}]})",
                    two = R"({"choices":[{"routed_experts":[[[2]],[[3]]]}]})";
  const auto ids_of_input = [](const std::filesystem::path& input) {
    const auto request = request_for({input});
    EXPECT_EQ(import_as("vllm", request).num_sequences, 2) << input;
    return ids_of(Trace(request.output), 0);
  };
  EXPECT_EQ(ids_of_input(text_file("list.json", "[" + one + "," + two + "]")), "1 2 3");
  EXPECT_EQ(ids_of_input(text_file("lines.jsonl", one + "\n\n" + two + "\n")), "1 2 3");
  const auto folder = testing::path_in_empty_folder("a.json").parent_path();
  write_text_file(folder / "b.json", two);
  write_text_file(folder / "a.jsonl", one);
  write_text_file(folder / "c.txt", "not read");
  EXPECT_EQ(ids_of_input(folder), "1 2 3");

  EXPECT_EQ(
      error_of_text("vllm", one + "\n{\n"),
      ":2: not valid JSON: parse error at line 1, column 2: syntax error while parsing object "
      "key - unexpected end of input; expected string literal");
  const auto empty = testing::path_in_empty_folder("a.json").parent_path();
  EXPECT_EQ(error_of_import("vllm", request_for({empty})),
            ": has no file whose name ends in .json or .jsonl");
}

// numpy.array([[[1, 2]], [[-1, -1]], [[300, 3]]], "int16") in base85, and in base64 as uint16.
TEST(ImportVllm, ReadsWhatDynamoAndPrimeRlPack) {
  const auto import_text = [](const std::string& text, bool skip_cached = false) {
    auto request = request_for({text_file("response.json", text)});
    request.num_experts = 512;
    request.skip_cached = skip_cached;
    const auto result = import_as("vllm", request);
    EXPECT_EQ(result.header.top_k, 2);
    return ids_of(Trace(request.output), 0);
  };
  const std::string dynamo =
      R"({"choices":[{"text":"x"}],"nvext":{"routed_experts":{"data":"0RRF3|NsC0ECB-m","shape":[3,1,2]}}})";
  EXPECT_EQ(import_text(dynamo), "1 2 300 3");
  const std::string prime = R"({"choices":[{"routed_experts":{"data":"AQACAAUABgAsAQMA",
      "shape":[3,1,2],"start":4,"dtype":"uint16"}}],"usage":{"prompt_tokens":6,
      "completion_tokens":2,"prompt_tokens_details":{"cached_tokens":5}}})";
  EXPECT_EQ(import_text(prime), "1 2 5 6 300 3");
  EXPECT_EQ(import_text(prime, /*skip_cached=*/true), "5 6 300 3");
}

TEST(ImportVllm, CountsResponsesWithoutIds) {
  std::vector<std::string> notes;
  auto request = request_for({text_file("a.json", R"({"choices":[{"routed_experts":[[[1]]]}]})"),
                              text_file("b.json", R"({"choices":[{"routed_experts":null}]})"),
                              text_file("c.json", R"({"error":"busy"})")});
  request.notes = &notes;
  EXPECT_EQ(import_as("vllm", request).num_tokens, 1);
  EXPECT_EQ(notes, (std::vector<std::string>{"left out: 2 responses without ids"}));
}

// As a client may save what it got of many requests.
TEST(ImportVllm, CountsEmptyResponsesAndNullInAList) {
  std::vector<std::string> notes;
  auto request = request_for({text_file("a.json", R"([null,
      {"choices":[{"routed_experts":[]}]}, {"choices":[{"routed_experts":[[[1]]]}]}, null,
      {"routed_experts":""}, {"choices":[]}])")});
  request.notes = &notes;
  EXPECT_EQ(import_as("vllm", request).num_tokens, 1);
  EXPECT_EQ(notes, (std::vector<std::string>{"left out: 5 responses without ids"}));
  request.inputs = {text_file("b.json", R"({"choices":[],"prompt_routed_experts":[[[1]],[[2]]]})")};
  EXPECT_EQ(import_as("vllm", request).num_tokens, 2) << "the prompt's";
}

TEST(ImportVllm, SaysWhatIsMissing) {
  EXPECT_EQ(error_of_text("vllm", R"({"id":"x"})"),
            ": has neither prompt_routed_experts, routed_experts nor choices; was the server "
            "started with --enable-return-routed-experts?");
  EXPECT_EQ(error_of_text("vllm", R"({"choices":[{"text":"x"},{"routed_experts":null}]})"),
            ", choice 0: has no routed_experts, not even null");
  EXPECT_EQ(error_of_text("vllm", R"({"choices":[{"routed_experts":null}]})"),
            ", choice 0: has no tokens to import");
  EXPECT_EQ(error_of_text("vllm", "[[[0],[1]],[[2]]]"),
            ": token 1 has 1 layers, but the ones before it have 2");
  EXPECT_EQ(error_of_text("vllm", "[[[0],[-2]]]"),
            ", layer 1, token 0: an expert id is -2, but must be an integer in [-1, 7]");
  EXPECT_EQ(error_of_text("vllm", "[[]]"), ": has 0 layers, but must have from 1 to 1024");
}

TEST(ImportOrdersInChaos, TellsThePhasesApart) {
  auto request = request_for({text_file("a", R"([{"0":[[1],[2]]},{"0":[[3]]},{"0":[[4]]}])")});
  request.phase = Phase::kPrefill;
  (void)import_as("orders-in-chaos", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "1 2");
  request.phase = Phase::kDecode;
  (void)import_as("orders-in-chaos", request);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3 4");
}

}  // namespace
}  // namespace c2r
