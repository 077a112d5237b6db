// What a file is taken for by its content, one file for each format.
#include "c2r/import/recognize.h"

#include <gtest/gtest.h>

#include "c2r/import/import.h"
#include "c2r/import/testing_internal.h"

namespace c2r {
namespace {

using testing::text_file;

std::string format_of_text(std::string_view text) {
  const auto recognized = recognize_input(text_file("input", text));
  EXPECT_FALSE(recognized.what.empty());
  if (!recognized.format.empty()) {
    EXPECT_NE(find_import_format(recognized.format), nullptr) << recognized.format;
    return recognized.format;
  }
  return "? " + recognized.what;
}

std::string array_of_bytes(std::string_view shape, std::size_t size,
                           std::string_view dtype = "|u1") {
  const std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", dtype, shape);
  return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' + header +
         std::string(size, '\0');
}

TEST(RecognizeInput, KnowsTextsByTheirKeys) {
  EXPECT_EQ(format_of_text(R"({"text":"x","meta_info":{"routed_experts":""}})"), "sglang");
  EXPECT_EQ(format_of_text(R"([{"meta_info":{}}])"), "sglang");
  EXPECT_EQ(format_of_text(R"({"choices":[{"sgl_ext":{}}]})"), "sglang");
  EXPECT_EQ(format_of_text(R"({"choices":[],"nvext":{"routed_experts":"AAAA"}})"), "sglang");
  EXPECT_EQ(format_of_text(R"({"choices":[],"nvext":{"routed_experts":{}}})"), "vllm");
  EXPECT_EQ(format_of_text(R"([[{"0":null,"1":[[0]]}],[{"0":null,"1":[[1]]}]])"),
            "orders-in-chaos");
  EXPECT_EQ(format_of_text(R"({"choices":[]})"), "vllm");
  EXPECT_EQ(format_of_text(R"([null,{"meta_info":{}}])"), "sglang") << "of a request that failed";
  EXPECT_EQ(format_of_text("\xef\xbb\xbf{\"choices\":[]}"), "vllm") << "with a byte order mark";
  EXPECT_EQ(format_of_text("\xef\xbb\xbflayer,expert,count\r\n"), "table-loads");
  EXPECT_EQ(format_of_text(R"([[[0,1]]])"), "vllm");
  EXPECT_EQ(format_of_text("{\"step\":0,\"top_indices\":[[0]]}\n{\"step\":1,\"cut"), "megatron");
  EXPECT_EQ(format_of_text(R"([{"0":null,"1":[[3]]}])"), "orders-in-chaos");
  EXPECT_EQ(format_of_text("Layer ID,Batch Number,Token,Activated Expert IDs\n"), "moe-beyond");
  EXPECT_EQ(format_of_text("token,layer,expert\n"), "table");
  EXPECT_EQ(format_of_text("layer,expert,count\r\n"), "table-loads");
  EXPECT_EQ(format_of_text("{\"layer\":0,\"token\":0,\"expert\":1}\n{}\n"), "table");
  EXPECT_EQ(format_of_text(R"({"record_type":"eplb_load_stats","expert_load":[]})"), "vllm-loads");
  EXPECT_EQ(format_of_text(R"({"logical_count":[[1]]})"), "sglang-loads");
  EXPECT_EQ(format_of_text(R"({"physical_to_logical_map":[]})"), "sglang-placement");
  EXPECT_EQ(format_of_text(R"({"physical_to_logical_map":[],"logical_to_physical_map":[]})"),
            "eplb-placement");
  EXPECT_EQ(format_of_text(R"({"moe_layer_count":1})"), "vllm-ascend-placement");
  EXPECT_EQ(format_of_text(R"({"num_slots":4,"initial_global_assignments":{}})"),
            "vllm-41141-placement");
  EXPECT_EQ(format_of_text("[0, 1]"), "vllm-49572-placement");
  EXPECT_EQ(format_of_text("# ours\nnum_slots: 2\ninitial_global_assignments:\n  3: [0, 1]\n"),
            "tensorrt-llm-placement");
}

TEST(RecognizeInput, KnowsArraysByTheirShapes) {
  EXPECT_EQ(format_of_text(array_of_bytes("(2, 3, 8)", 48)), "npy");
  EXPECT_EQ(format_of_text(array_of_bytes("(1, 64, 64)", 4096)), "coactivation");
  EXPECT_EQ(format_of_text(array_of_bytes("(1, 8, 8)", 64)), "coactivation") << "symmetric";
  EXPECT_EQ(format_of_text(array_of_bytes("(2, 3, 64)", 384)), "omni-infer-placement");
  EXPECT_EQ(format_of_text(array_of_bytes("(2, 3)", 6)), "? an array of U8 [2, 3]");
  // Two ranks, one layer, 4 experts, of which the last is on both.
  std::string pattern = array_of_bytes("(2, 1, 4)", 0) + std::string("\1\0\0\1\0\1\1\1", 8);
  EXPECT_EQ(format_of_text(pattern), "omni-infer-placement");
  pattern[pattern.size() - 2] = '\0';
  EXPECT_EQ(format_of_text(pattern), "npy") << "no rank holds expert 2";
}

TEST(RecognizeInput, KnowsIdsInFloatsAndInBigEndianArrays) {
  EXPECT_EQ(format_of_text(array_of_bytes("(2, 3, 8)", 192, ">i4")), "npy");
  EXPECT_EQ(format_of_text(array_of_bytes("(1, 64, 64)", 8192, ">u2")), "coactivation");
  const auto one_of = [](std::string_view dtype, std::string_view last) {
    std::string array = array_of_bytes("(1, 1, 2)", 2 * last.size(), dtype);
    array.replace(array.size() - last.size(), last.size(), last);
    return format_of_text(array);
  };
  EXPECT_EQ(one_of("<f2", {"\0\x3c", 2}), "npy") << "0 and 1";
  EXPECT_EQ(one_of(">f4", {"\xbf\x80\0\0", 4}), "npy") << "0 and -1";
  EXPECT_EQ(one_of("<f2", {"\0\x38", 2}), "? an array of F16 [1, 1, 2]") << "0 and 0.5: weights";
  EXPECT_EQ(one_of("<f2", {"\0\x7e", 2}), "? an array of F16 [1, 1, 2]") << "NaN";
  EXPECT_EQ(format_of_text(array_of_bytes("(1, 1, 64)", 256, "<f4")),
            "? an array of F32 [1, 1, 64]");
}

TEST(RecognizeInput, KnowsTorchFilesAndFolders) {
  const auto folder = std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "torch";
  const auto format = [&](const char* name) { return recognize_input(folder / name).format; };
  EXPECT_EQ(format("stat.pt"), "sglang-loads");
  EXPECT_EQ(format("per_pass_0.pt"), "sglang-loads");
  EXPECT_EQ(format("per_token_0.pt"), "sglang-recorder");
  EXPECT_EQ(format("map.pt"), "sglang-placement");
  EXPECT_EQ(format("flame"), "flame-moe");
  EXPECT_EQ(recognize_input(folder / "flame" / "2" / "0-0.pt").what,
            "a torch file of a pair, as FLAME-MoE captures a layer; give the folder of the step, "
            "with --from flame-moe");
}

TEST(RecognizeInput, SaysWhatAnythingElseLooksLike) {
  EXPECT_EQ(format_of_text(""), "? an empty file");
  EXPECT_EQ(format_of_text("hello\nworld"), "? text that begins with 'hello'");
  EXPECT_EQ(format_of_text(R"({"a":1,"b":2,"c":3,"d":4,"e":5})"),
            "? JSON with the keys a, b, c, d, ...");
  EXPECT_EQ(format_of_text("{}"), "? JSON of an empty object");
  EXPECT_EQ(format_of_text(std::string("ab\0c", 4)), "? a binary file that begins with 'ab\\x00c'");
  EXPECT_EQ(format_of_text("\x80\x04\x95"),
            "? a pickle, which c2r does not open: save what it holds with numpy.save()");
  EXPECT_EQ(format_of_text(R"({"format":"c2r-plan"})"), "? a plan of c2r, which needs no import");
}

}  // namespace
}  // namespace c2r
