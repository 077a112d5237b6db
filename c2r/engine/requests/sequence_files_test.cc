// Files become token sequences, score requests and prompts, each with its place.
#include "c2r/engine/requests/sequence_files.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/engine/requests/prompts.h"
#include "c2r/engine/requests/score_requests.h"
#include "c2r/model/model.h"

namespace c2r {
namespace {

using testing::error_of;
using Tokens = std::vector<TokenId>;

// A model with a tokenizer: nano-qwen-moe, whose texts are UTF-8 bytes and pairs of them.
class Files : public ::testing::Test {
 protected:
  static std::filesystem::path folder() {
    return std::filesystem::path(C2R_SOURCE_DIR) / "models" / "nano-qwen-moe";
  }
  static std::string file(const std::string& name, std::string_view text) {
    return testing::text_file(name, text).string();
  }
  Tokens encoded(const std::string& text) { return encoder_.tokens_of(Json(text), "text"); }

  Model model_{folder()};
  TextEncoder encoder_{folder(), model_.config()};
};

TEST_F(Files, GiveSequencesWithTheirPlaces) {
  const SequenceFiles files{
      .texts = {file("a.txt", "one two"),
                file("b.jsonl", "{\"text\": \"three\"}\n\n{\"text\": \"\"}\n")},
      .tokens = {file("c.jsonl", "[1, 2]\n[]\n")}};
  SequenceReader reader(files, encoder_);
  const auto expect_next = [&](const Tokens& tokens, const std::string& input,
                               std::optional<std::int64_t> line) {
    EXPECT_EQ(reader.next(), tokens);
    EXPECT_EQ(reader.place().input, input);
    EXPECT_EQ(reader.place().line, line);
  };
  expect_next(encoded("one two"), files.texts[0], {});
  expect_next(encoded("three"), files.texts[1], 1);
  expect_next(encoded(""), files.texts[1], 3);
  expect_next({TokenId{1}, TokenId{2}}, files.tokens[0], 1);
  expect_next({}, files.tokens[0], 2);
  EXPECT_FALSE(reader.next());
}

TEST_F(Files, AreReadByTheReaderThatTheCallerGives) {
  const SequenceFiles files{.tokens = {"-"}};
  SequenceReader reader(files, encoder_, [](const std::string& path) {
    EXPECT_EQ(path, "-");
    return std::string("[7]");
  });
  EXPECT_EQ(reader.next(), Tokens{TokenId{7}});
}

TEST_F(Files, GiveWindowsToScore) {
  const SequenceFiles files{.tokens = {file("c.jsonl", "[1, 2, 3]\n[]\n[4]\n")}};
  WindowRequests requests(files, encoder_, 2);
  const auto expect_next = [&](const Tokens& tokens, std::int64_t line, std::int64_t window_idx) {
    const auto next = requests.next();
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(next->request.tokens, tokens);
    EXPECT_EQ(next->request.first_scored, 1);
    EXPECT_EQ(next->place.line, line);
    EXPECT_EQ(next->window_idx, window_idx);
  };
  expect_next({TokenId{1}, TokenId{2}}, 1, 0);
  expect_next({TokenId{3}}, 1, 1);
  expect_next({}, 2, 0);
  expect_next({TokenId{4}}, 3, 0);
  EXPECT_FALSE(requests.next());
}

TEST_F(Files, GivePairsWhoseContinuationBeginsWithItsSpace) {
  const auto path = file("pairs.jsonl",
                         "{\"context\": \"The city \", \"continuation\": \"begins\"}\n"
                         "{\"context\": [1, 2], \"continuation\": [3]}\n");
  PairRequests requests(path, encoder_);
  const auto texts = requests.next(), ids = requests.next();
  ASSERT_TRUE(texts && ids);
  EXPECT_EQ(texts->request.tokens, encoded("The city begins"));
  EXPECT_EQ(texts->request.first_scored, std::ssize(encoded("The city")));
  EXPECT_EQ(ids->request.tokens, (Tokens{TokenId{1}, TokenId{2}, TokenId{3}}));
  EXPECT_EQ(ids->request.first_scored, 2);
  EXPECT_EQ(ids->place.line, 2);
  EXPECT_FALSE(requests.next());
}

// What lm-evaluation-harness 0.4.13 gives a model for these, by its TemplateLM.loglikelihood().
TEST_F(Files, GivePairsThatAreEncodedAsTheHarnessDoes) {
  const auto request = [&](const std::string& context, const std::string& continuation) {
    return parse_pair(Json{{"context", context}, {"continuation", continuation}}, encoder_, "pair");
  };
  // A token of both texts together spans the border: the context is encoded alone.
  const ScoreRequest mid_word = request("The ci", "ty begins at the river");
  const Tokens context = encoded("The ci"), whole = encoded("The city begins at the river");
  Tokens expected = context;
  expected.insert(expected.end(), whole.begin() + std::ssize(context), whole.end());
  ASSERT_NE(expected, whole);
  EXPECT_EQ(mid_word.tokens, expected);
  EXPECT_EQ(mid_word.first_scored, std::ssize(context));
  // U+00A0 and U+3000 are spaces, too.
  EXPECT_EQ(request("The\u00A0\u3000 ", "city").first_scored, std::ssize(encoded("The")));
  // Token 0 is eos_token, and there is no bos_token.
  const ScoreRequest empty = request("", "begins");
  EXPECT_EQ(empty.first_scored, 1);
  EXPECT_EQ(empty.tokens.front(), TokenId{0});
  EXPECT_EQ((Tokens{empty.tokens.begin() + 1, empty.tokens.end()}), encoded("begins"));
  EXPECT_EQ(request("", "<|endoftext|>begins"), empty);
  EXPECT_EQ(request(" \n", "begins").tokens.front(), TokenId{0});
}

TEST_F(Files, GivePairsWhoseContextIsCutOnTheLeft) {
  const std::int64_t positions = model_.config().max_positions;
  Json ids = Json::array();
  for (std::int64_t t = 0; t < positions + 5; ++t) ids.push_back(t);
  const auto request =
      parse_pair(Json{{"context", ids}, {"continuation", {7, 8}}}, encoder_, "pair");
  EXPECT_EQ(std::ssize(request.tokens), positions + 1);
  EXPECT_EQ(request.first_scored, positions - 1);
  EXPECT_EQ(request.tokens.front(), TokenId{6});
  EXPECT_EQ(request.tokens.back(), TokenId{8});
}

TEST_F(Files, GiveRollingWindowsThatScoreEachTokenOnce) {
  const SequenceFiles files{.tokens = {file("c.jsonl", "[1, 2, 3]\n[]\n")}};
  RollingRequests requests(files, encoder_, 2, 1);
  const auto first = requests.next(), second = requests.next(), empty = requests.next();
  ASSERT_TRUE(first && second && empty);
  EXPECT_EQ(first->request, (ScoreRequest{.tokens = {TokenId{0}, TokenId{1}, TokenId{2}}}));
  EXPECT_EQ(second->request,
            (ScoreRequest{.tokens = {TokenId{1}, TokenId{2}, TokenId{3}}, .first_scored = 2}));
  EXPECT_EQ(second->window_idx, 1);
  EXPECT_EQ(empty->place.line, 2);
  EXPECT_FALSE(empty->request.has_scored_tokens());
}

TEST_F(Files, GivePromptsAndTheRequestsToContinueThem) {
  const auto path = file("prompts.jsonl", "\"Hello\"\n\n[1, 2]\n");
  const auto prompts = read_prompts(path, encoder_);
  ASSERT_EQ(prompts.size(), 2U);
  EXPECT_TRUE(prompts[0].is_text);
  EXPECT_EQ(prompts[0].tokens, encoded("Hello"));
  EXPECT_FALSE(prompts[1].is_text);
  EXPECT_EQ(prompts[1].place, path + ":3");
  const auto requests = generate_requests(prompts, 4, {.seed = 9}, model_.config());
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].prompt.data(), prompts[1].tokens.data());
  EXPECT_EQ(requests[1].max_new_tokens, 4);
  EXPECT_EQ(requests[1].sampling.seed, 9U);
}

TEST_F(Files, AreRefusedWithTheirPlace) {
  const auto error_of_tokens = [&](std::string_view text) {
    const SequenceFiles files{.tokens = {file("c.jsonl", text)}};
    return error_of([&] {
      SequenceReader reader(files, encoder_);
      while (reader.next()) {
      }
    });
  };
  const std::string place = testing::temporary_path("c.jsonl").string();
  EXPECT_EQ(error_of_tokens("[1]\n[2, -1]\n").substr(0, place.size() + 2), place + ":2");
  EXPECT_EQ(error_of_tokens("[1]\n7\n").substr(0, place.size() + 2), place + ":2");
  const SequenceFiles json{.texts = {"x.txt", "x.json.xz"}};
  EXPECT_EQ(error_of([&] { const SequenceReader reader(json, encoder_); }),
            "x.json: is JSON, not text; give {\"text\": \"...\"} a line in a file called *.jsonl");
  const auto prompts = file("prompts.jsonl", "[1]\n[]\n");
  EXPECT_EQ(error_of([&] {
              (void)generate_requests(read_prompts(prompts, encoder_), 4, {}, model_.config());
            }),
            prompts + ":2: the prompt has no token");
  const auto empty = file("empty.jsonl", "\n");
  EXPECT_EQ(error_of([&] { (void)read_prompts(empty, encoder_); }), empty + ": there is no prompt");
  EXPECT_EQ(error_of([] { check_utf8("a\xff", "text.txt"); }),
            "text.txt: is no text: at byte 1 there is no UTF-8 character");
}

}  // namespace
}  // namespace c2r
