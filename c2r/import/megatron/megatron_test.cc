// Tests of Megatron-Core's router traces: records, recomputed layers, cut-off files and logits.
#include <gtest/gtest.h>

#include <bit>
#include <fstream>

#include "c2r/core/half.h"
#include "c2r/import/testing_internal.h"

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

// 2 layers, 2 steps.
constexpr std::string_view kMegatron =
    R"({"step":0,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[0,1],[2,3]],"hs_offset":0}
{"step":0,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[4,5],[6,7]]}
{"step":0,"stage":"pre_dispatch","block":"mtp","layer":1,"mtp_idx":0,"rank":0,"num_tokens":2,"topk":2,"top_indices":[[0,1],[2,3]]}
{"step":1,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":0,"num_tokens":1,"topk":2,"top_indices":[[7,0]]}
{"step":1,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":0,"num_tokens":1,"topk":2,"top_indices":[[1,6]]}
)";

TEST(ImportMegatron, ConcatenatesStepsAndRanks) {
  const auto rank_0 = text_file("router_trace_rank0.jsonl", kMegatron);
  const auto rank_1 = text_file(
      "router_trace_rank1.jsonl",
      R"({"step":0,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":1,"num_tokens":1,"topk":2,"top_indices":[[3,4]]}
{"step":0,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":1,"num_tokens":1,"topk":2,"top_indices":[[5,6]]})");
  const auto request = request_for({rank_0, rank_1});
  const auto result = import_as("megatron", request);
  EXPECT_EQ(result.num_tokens, 4);
  EXPECT_EQ(result.num_skipped_records, 1);
  EXPECT_EQ(result.header.layer_indices, (Indices{1, 2}));
  const Trace trace(request.output);
  EXPECT_EQ(ids_of(trace, 0), "0 1 2 3 7 0 5 6");
  EXPECT_EQ(ids_of(trace, 1), "4 5 6 7 1 6 3 4");
  EXPECT_EQ(starts_of(trace), (Starts{0, 3}));
}

TEST(ImportMegatron, SkipsBlankLinesAndTakesLineEndsOfWindows) {
  std::string text = "\xef\xbb\xbf";
  for (const char c : kMegatron) text += c == '\n' ? std::string("\r\n\r\n") : std::string(1, c);
  const auto request = request_for({text_file("trace.jsonl", text)});
  EXPECT_EQ(import_as("megatron", request).num_tokens, 3);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 2 3 7 0");
}

TEST(ImportMegatron, JoinsPipelineStagesWhoseLayersAreNumberedThrough) {
  constexpr std::string_view kRecord =
      R"({{"step":0,"stage":"pre_dispatch","block":"decoder","layer":{},"rank":0,"num_tokens":1,"topk":1,"top_indices":[[{}]]}})";
  const auto request = request_for({text_file("rank1", fmt::format(kRecord, 2, 5)),
                                    text_file("rank0", fmt::format(kRecord, 1, 3))});
  EXPECT_EQ(import_as("megatron", request).num_tokens, 1);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "3");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "5");
}

TEST(ImportMegatron, NamesTheLineOfABrokenRecord) {
  const auto with = [](std::string_view from, std::string_view to) {
    std::string text(kMegatron);
    text.replace(text.find(from), from.size(), to);
    return error_of_text("megatron", text);
  };
  EXPECT_EQ(with("[2,3]", "[2,8]"),
            ":1, layer 1, token 1: an expert id is 8, but must be an integer in [0, 7]");
  EXPECT_EQ(with("[2,3]", "[2,2]"), ":1, layer 1, token 1: names expert 2 twice");
  EXPECT_EQ(with("[2,3]", "[2]"),
            ":1, layer 1, token 1: has 1 experts a token, but what was read before it has 2");
  EXPECT_EQ(with("\"num_tokens\":2", "\"num_tokens\":3"),
            ":1: num_tokens is 3, but top_indices has 2 rows");
  EXPECT_EQ(with("\"mtp\"", "\"vision\""), ":3: block is 'vision', but must be 'decoder' or 'mtp'");
  const std::string cut(kMegatron.substr(0, kMegatron.rfind('{')));
  EXPECT_EQ(error_of_text("megatron", cut),
            ": layer 2 has 2 tokens, but layer 1 has 3; if the recording was cut off, "
            "--drop-incomplete leaves its last step out");
}

// A record of one token in a step and a layer, with what else is in it.
std::string megatron_record(std::int64_t step, std::int32_t layer, std::string_view ids,
                            std::string_view more = "") {
  return fmt::format(
      R"({{"step":{},"stage":"pre_dispatch","block":"decoder","layer":{},"rank":0,"num_tokens":1,"topk":2,"top_indices":[[{}]]{}}})"
      "\n",
      step, layer, ids, more);
}

// Two batches of a step, with a backward pass behind each, which computes layers 2 and 1 again; and
// a step whose choices are those of the first batch.
TEST(ImportMegatron, LeavesOutLayersThatWereComputedAgain) {
  const std::string first = megatron_record(0, 1, "0,1") + megatron_record(0, 2, "2,3");
  const std::string again = megatron_record(0, 2, "2,3") + megatron_record(0, 1, "0,1");
  const std::string second =
      megatron_record(0, 1, "1,0") + megatron_record(0, 2, "4,5") + megatron_record(0, 2, "4,5");
  const std::string next = megatron_record(1, 1, "0,1") + megatron_record(1, 2, "2,3");
  std::vector<std::string> notes;
  auto request = request_for({text_file("trace.jsonl", first + again + second + next)});
  request.notes = &notes;
  EXPECT_EQ(import_as("megatron", request).num_tokens, 3);
  EXPECT_EQ(ids_of(Trace(request.output), 0), "0 1 1 0 0 1");
  EXPECT_EQ(ids_of(Trace(request.output), 1), "2 3 4 5 2 3");
  EXPECT_EQ(notes, std::vector<std::string>{
                       "left out: 3 records that repeat one of the same step and layer, which was "
                       "computed again for the backward pass"});
}

TEST(ImportMegatron, DropsAnIncompleteLastStepOnRequest) {
  const std::string complete = megatron_record(0, 1, "0,1") + megatron_record(0, 2, "2,3");
  const std::string last = megatron_record(1, 1, "4,5") + megatron_record(1, 2, "6,7");
  const auto import_of = [&](const std::string& text, std::vector<std::string>& notes) {
    auto request = request_for({text_file("trace.jsonl", text)});
    request.drop_incomplete = true;
    request.notes = &notes;
    notes.clear();
    import_as("megatron", request);
    const std::string path = request.inputs[0].string();
    for (std::string& note : notes) {
      if (const auto at = note.find(path); at != std::string::npos)
        note.replace(at, path.size(), "F");
    }
    return ids_of(Trace(request.output), 0);
  };
  std::vector<std::string> notes;
  EXPECT_EQ(import_of(complete + last, notes), "0 1 4 5");
  EXPECT_EQ(notes, std::vector<std::string>());
  // In the middle of layer 2, and before it.
  EXPECT_EQ(import_of(complete + last.substr(0, last.size() - 4), notes), "0 1");
  EXPECT_EQ(notes, std::vector<std::string>{"left out: 1 records of an incomplete step at the end "
                                            "of F, and its last line"});
  EXPECT_EQ(import_of(complete + megatron_record(1, 1, "4,5"), notes), "0 1");
  EXPECT_EQ(notes,
            std::vector<std::string>{"left out: 1 records of an incomplete step at the end of F"});
  // In the middle of layer 1: nothing else of the step is there.
  EXPECT_EQ(import_of(complete + last.substr(0, 20), notes), "0 1");
  EXPECT_EQ(notes, std::vector<std::string>{"left out: 0 records of an incomplete step at the end "
                                            "of F, and its last line"});
}

TEST(ImportMegatron, SaysHowToImportWhatWasCutOff) {
  const std::string complete = megatron_record(0, 1, "0,1") + megatron_record(0, 2, "2,3");
  const std::string error = error_of_text("megatron", complete + "{\"step\":1");
  EXPECT_TRUE(error.starts_with(":3: not valid JSON") &&
              error.ends_with("; the file ends here: --drop-incomplete leaves its last step out"))
      << error;
  auto request = request_for({text_file("trace.jsonl", complete + "{\"step\":1\n")});
  request.drop_incomplete = true;  // but the line is complete
  EXPECT_TRUE(error_of_import("megatron", request).starts_with(":3: not valid JSON"));
  request.inputs = {text_file(
      "step.jsonl",
      megatron_record(0, 1, "0,1") + megatron_record(0, 1, "2,3") + megatron_record(0, 2, "2,3"))};
  EXPECT_EQ(error_of_import("megatron", request), ": has no record of a decoder layer");
}

std::string bf16_bytes(std::initializer_list<float> values) {
  std::string bytes;
  for (const float value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value) >> 16;
    bytes += {static_cast<char>(bits & 0xff), static_cast<char>(bits >> 8)};
  }
  return bytes;
}

// The logits of a record of 8 experts, the record's `n`th in the file.
std::string logits_fields(int n) {
  return fmt::format(R"(,"logit_offset":{},"logit_bytes":16,"logit_shape":[1,8])", 16 * n);
}

const std::string kLogits = bf16_bytes({7, 6, 5, 4, 3, 2, 1, -1}) +   // step 0, layer 1
                            bf16_bytes({0, 0, 8, 8, 8, 0, 0, 0.5}) +  // step 0, layer 2
                            bf16_bytes({1, 2, 3, 4, 5, 6, 7, 8}) +    // step 1, layer 1
                            bf16_bytes({0, 0, 0, 0, 0, 0, 1, 2});     // step 1, layer 2

std::string trace_with_logits() {
  return megatron_record(0, 1, "1,0", logits_fields(0)) +
         megatron_record(0, 2, "3,4", logits_fields(1)) +
         megatron_record(1, 1, "7,0", logits_fields(2)) +
         megatron_record(1, 2, "6,7", logits_fields(3));
}

TEST(ImportMegatron, KeepsLogitsAndCountsChoicesThatTheyDoNotExplain) {
  std::vector<std::string> notes;
  auto request = request_for({text_file("router_trace_rank0.jsonl", trace_with_logits())});
  request.notes = &notes;
  text_file("logits_rank0.bin", kLogits);
  import_as("megatron", request);
  const Trace trace(request.output);
  ASSERT_TRUE(trace.has_logits());
  EXPECT_EQ(trace.logits(0, 0, 2)(0, 2), 5);
  EXPECT_EQ(trace.logits(0, 0, 2)(1, 7), 8);
  EXPECT_EQ(trace.logits(1, 0, 1)(0, 7), 0.5);
  EXPECT_EQ(trace.logits(1, 1, 2)(0, 6), 1);
  // Expert 0 of step 1 in layer 1 has the lowest logit.
  EXPECT_EQ(notes, std::vector<std::string>{
                       "1 of 4 choices (of a token in a layer) are not the top-2 of their logits: "
                       "the router looked at more than the logits"});
}

TEST(ImportMegatron, LeavesLogitsOutThatSomeRecordsDoNotHave) {
  std::vector<std::string> notes;
  auto request = request_for({text_file("router_trace_rank0.jsonl", trace_with_logits())});
  request.notes = &notes;
  const auto logits = text_file("logits_rank0.bin", "");
  std::filesystem::remove(logits);
  import_as("megatron", request);
  EXPECT_FALSE(Trace(request.output).has_logits());
  EXPECT_EQ(notes,
            std::vector<std::string>{"left out: logits, for there is no " + logits.string()});
  notes.clear();
  text_file("logits_rank0.bin", kLogits);
  request.inputs = {text_file("trace.jsonl", megatron_record(0, 1, "1,0", logits_fields(0)) +
                                                 megatron_record(0, 2, "3,4"))};
  import_as("megatron", request);
  EXPECT_FALSE(Trace(request.output).has_logits());
  EXPECT_EQ(notes, std::vector<std::string>{"left out: logits, which 1 of 2 records of " +
                                            request.inputs[0].string() + " do not have"});
}

// The logits of a step are written after its records.
TEST(ImportMegatron, TakesAStepWithoutAllItsLogitsForIncomplete) {
  auto request = request_for({text_file("router_trace_rank0.jsonl", trace_with_logits())});
  const auto logits = text_file("logits_rank0.bin", kLogits.substr(0, kLogits.size() - 1));
  EXPECT_EQ(error_of_import("megatron", request),
            ":4: its logits end at byte 64 of " + logits.string() +
                ", which is shorter; if the recording was cut off, --drop-incomplete leaves its "
                "last step out");
  request.drop_incomplete = true;
  import_as("megatron", request);
  const Trace trace(request.output);
  EXPECT_TRUE(trace.has_logits());
  EXPECT_EQ(ids_of(trace, 0), "1 0");
  text_file("logits_rank0.bin", kLogits.substr(0, 20));  // lacks layer 2 of step 0, too
  EXPECT_EQ(error_of_import("megatron", request), ": step 0 lacks logits, which " +
                                                      logits.string() +
                                                      " does not have, but is not the last step");
}

}  // namespace
}  // namespace c2r
