// Plans with everything that version 3 brought, and of the versions before it.
#include <gtest/gtest.h>

#include <limits>

#include "c2r/core/testing.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::full_plan;
using testing::small_plan;

// Everything that version 3 brought.
constexpr std::string_view kFullText = R"({
  "format": "c2r-plan",
  "version": 3,
  "model": "tiny",
  "num_experts": 4,
  "top_k": 2,
  "top_t": 2,
  "cluster": {
    "num_nodes": 1,
    "ranks_per_node": 2,
    "intra_node": {
      "bandwidth_bytes_per_s": 400000000000.0,
      "latency_s": 2e-06
    },
    "inter_node": {
      "bandwidth_bytes_per_s": 50000000000.0,
      "latency_s": 5e-06
    }
  },
  "layers": [
    {
      "layer_index": 1,
      "slots": [[0,3],[1,2]],
      "collaborators": [[3],[2],[1],[0]]
    },
    {
      "layer_index": 3,
      "slots": [[0,1,2],[2,3,0]],
      "collaborators": [[1,2],[2,3],[3,0],[0,1]]
    }
  ],
  "homes": {
    "sequences": [
      {
        "trace_hash": "0123456789abcdef",
        "ranks": [0,1,1]
      }
    ],
    "signature": {
      "layer_index": 3,
      "num_tokens": 2,
      "weights": [[1.0,1.0,0.0,0.0],[0.0,0.0,1.0,0.5]],
      "token_weights": {
        "ids": [5,9],
        "weights": [[0.5,-0.5],[0.0,0.25]],
        "of_others": [0.0,-0.25]
      }
    }
  },
  "predictions": [
    {
      "placement": "plan",
      "trace": "t.safetensors",
      "num_tokens": 10,
      "copy_mode": "per-rank",
      "replica_rule": "local-first",
      "homes": "uniform",
      "is_exact": true,
      "copies_per_token": [1.1,1.5],
      "wire_copies_per_token": [0.55,0.75],
      "inter_node_copies_per_token": [0.0,0.0],
      "imbalance": [1.0,1.25]
    },
    {
      "placement": "placement",
      "trace": "u.safetensors",
      "num_tokens": 4,
      "copy_mode": "per-rank",
      "replica_rule": "local-first",
      "homes": "signature",
      "is_exact": true,
      "imbalance": [1.5,1.0]
    }
  ],
  "provenance": {
    "c2r_version": "0.1.0",
    "method": "affinity",
    "seed": 7,
    "inputs": [
      {
        "role": "trace",
        "name": "t.safetensors",
        "part": "even",
        "hash": "0123456789abcdef"
      },
      {
        "role": "trace",
        "name": "u.safetensors"
      }
    ],
    "options": {
      "fit": "even",
      "max_imbalance": 1.1
    },
    "ended_by": "interrupt"
  }
}
)";

// The small plan as version 2 wrote it.
constexpr std::string_view kVersion2Text = R"({
  "format": "c2r-plan",
  "version": 2,
  "model": "tiny",
  "num_experts": 4,
  "top_k": 2,
  "top_t": 1,
  "cluster": {
    "num_nodes": 1,
    "ranks_per_node": 2,
    "intra_node": {
      "bandwidth_bytes_per_s": 400000000000.0,
      "latency_s": 2e-06
    },
    "inter_node": {
      "bandwidth_bytes_per_s": 50000000000.0,
      "latency_s": 5e-06
    }
  },
  "layers": [
    {
      "layer_index": 1,
      "slots": [[0,3],[1,2]],
      "collaborators": [[3],[2],[1],[0]]
    },
    {
      "layer_index": 3,
      "slots": [[0,1],[2,3]],
      "collaborators": [[1],[0],[3],[2]]
    }
  ],
  "predictions": [
    {
      "placement": "plan",
      "trace": "t.safetensors",
      "num_tokens": 10,
      "copy_mode": "per-rank",
      "replica_rule": "local-first",
      "homes": "uniform",
      "is_exact": true,
      "copies_per_token": [1.1,1.5],
      "wire_copies_per_token": [0.55,0.75],
      "inter_node_copies_per_token": [0.0,0.0],
      "imbalance": [1.0,1.25]
    }
  ],
  "provenance": {
    "c2r_version": "0.1.0",
    "method": "affinity",
    "seed": 7,
    "inputs": [
      {
        "role": "trace",
        "name": "t.safetensors, even",
        "hash": "0123456789abcdef"
      }
    ],
    "options": {
      "fit": "even",
      "max_imbalance": 1.1
    },
    "ended_by": "interrupt"
  }
}
)";

TEST(Plan, OfVersion3IsWrittenAsDocumented) {
  EXPECT_EQ(plan_to_text(full_plan()), kFullText);
  EXPECT_EQ(parse_plan(kFullText, "p.json"), full_plan());
}

// Their traces have the part at the end of the name, and no other key of version 3 is known.
TEST(Plan, OfVersion2IsRead) {
  EXPECT_EQ(parse_plan(kVersion2Text, "p.json"), small_plan());
  std::string text(kVersion2Text);
  text.replace(text.find(", even\""), 7, "\"");
  Plan plan = small_plan();
  plan.provenance.inputs[0].part.reset();
  EXPECT_EQ(parse_plan(text, "p.json"), plan);
}

TEST(Plan, OfVersion1IsReadWithoutOptions) {
  std::string text(kVersion2Text);
  text.replace(text.find("\"version\": 2"), 12, "\"version\": 1");
  const auto begin = text.find(",\n    \"options\""), end = text.find("\n  }\n}\n");
  text.erase(begin, end - begin);
  Plan plan = small_plan();
  plan.provenance.options.clear(), plan.provenance.ended_by.clear();
  EXPECT_EQ(parse_plan(text, "p.json"), plan);
}

// Each line replaces the first occurrence of `from` in the small plan of version 2.
TEST(Plan, OfAnOlderVersionHasNothingOfVersion3) {
  struct Case {
    std::string_view from, to, message;
  };
  for (const auto& [from, to, message] : {
           Case{"\"predictions\"", "\"homes\": {}, \"predictions\"",
                "p: the plan has the unknown key \"homes\"; the known ones are format, version, "
                "model, num_experts, top_k, top_t, cluster, layers, predictions, provenance"},
           Case{"\"hash\"", "\"part\": \"even\", \"hash\"",
                "p: an input has the unknown key \"part\"; the known ones are role, name, hash"},
           Case{"\"collaborators\": [[1],[0],[3],[2]]",
                "\"collaborators\": [[1,2],[2,3],[3,0],[0,1]]",
                "p: layer 3 has lists of 2 collaborators, but top_t is 1, and layers of a plan of "
                "version 2 have the same"},
           Case{"\"copies_per_token\": [1.1,1.5],\n", "",
                "p: the key 'copies_per_token' is missing"},
       }) {
    std::string text(kVersion2Text);
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    EXPECT_EQ(error_of([&] { parse_plan(text, "p"); }), message);
  }
}

// The same in the plan with homes.
TEST(Plan, SaysWhatIsWrongWithHomes) {
  struct Case {
    std::string_view from, to, message;
  };
  for (const auto& [from, to, message] : {
           Case{"\"sequences\": [", "\"sequence\": [",
                "p: homes has the unknown key \"sequence\"; the known ones are sequences, "
                "signature"},
           Case{"\"trace_hash\"", "\"trace\"",
                "p: homes of sequences has the unknown key \"trace\"; the known ones are "
                "trace_hash, ranks"},
           Case{"\"trace_hash\": \"0123", "\"trace_hash\": \"ABCD",
                "p: homes of sequences have the trace_hash 'ABCD456789abcdef', which is not 16 "
                "hexadecimal digits"},
           Case{"[0,1,1]", "[0,2,1]",
                "p: a sequence of the trace 0123456789abcdef has its home on rank 2, but there are "
                "ranks 0 to 1"},
           Case{"[0,1,1]", "[0,-1,1]",
                "p: a rank of homes is -1, but must be an integer in [0, 1023]"},
           Case{"[0,1,1]", "[]", "p: the homes of the trace 0123456789abcdef are of no sequence"},
           Case{"\"ranks\": [0,1,1]\n      }",
                "\"ranks\": [0]}, {\"trace_hash\": \"0123456789abcdef\", \"ranks\": [0]}",
                "p: the homes name the trace 0123456789abcdef twice"},
           Case{"\"layer_index\": 3,\n      \"num", "\"layer_index\": 2,\n      \"num",
                "p: the signature is of layer 2, which the plan does not have"},
           Case{"\"num_tokens\": 2", "\"num_tokens\": 0",
                "p: the signature looks at 0 tokens, but must look at 1 or more"},
           Case{"\"num_tokens\": 2", "\"tokens\": 2",
                "p: a signature has the unknown key \"tokens\"; the known ones are layer_index, "
                "num_tokens, weights, token_weights"},
           Case{"[[1.0,1.0,0.0,0.0],", "[[1.0,1.0,0.0],",
                "p: the signature's weights have a row of 3, but there are 4 experts"},
           Case{"[[1.0,1.0,0.0,0.0],", "[",
                "p: the signature has 1 x 4 weights, but the plan has 2 ranks and 4 experts"},
           Case{"[[1.0,1.0,0.0,0.0],", "[[1.0,\"x\",0.0,0.0],",
                "p: a weight is \"x\", but must be a number of at least -1.7976931348623157e+308"},
           Case{"\"of_others\"", "\"others\"",
                "p: token weights has the unknown key \"others\"; the known ones are ids, weights, "
                "of_others"},
           Case{"[5,9]", "[5,5]", "p: the ids of the token weights must ascend from 0 or more"},
           Case{"[5,9]", "[9,5]", "p: the ids of the token weights must ascend from 0 or more"},
           Case{"[5,9]", "[-5,9]",
                "p: an id of a token is -5, but must be an integer in [0, 2147483647]"},
           Case{"[5,9]", "[5,9,12]",
                "p: there are 2 x 2 token weights and 2 of other ids, but 3 ids and 2 ranks"},
           Case{"[0.5,-0.5]", "[0.5]", "p: the token weights have a row of 1, but of_others has 2"},
           Case{"[0.5,-0.5]", "[0.5,null]",
                "p: a weight is null, but must be a number of at least -1.7976931348623157e+308"},
           Case{"[[0.5,-0.5],[0.0,0.25]],\n        \"of_others\": [0.0,-0.25]",
                "[[0.5],[0.0]],\n        \"of_others\": [0.0]",
                "p: there are 2 x 1 token weights and 1 of other ids, but 2 ids and 2 ranks"},
       }) {
    std::string text(kFullText);
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    EXPECT_EQ(error_of([&] { parse_plan(text, "p"); }), message);
  }
  Plan plan = full_plan();
  plan.homes->sequences.clear();
  plan.homes->signature.reset();
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "the homes have neither sequences nor a signature");
  plan = full_plan();
  plan.homes->signature->weights(1, 3) = std::numeric_limits<double>::infinity();
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "the signature has the weight inf, but weights are finite");
  plan = full_plan();
  plan.homes->signature->token_weights->of_others[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }), "a token weight is not finite");
  plan.homes->signature->token_weights->of_others = {0};
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "there are 2 x 2 token weights and 1 of other ids, but 2 ids and 2 ranks");
}

// Weights of full_plan(): rank 0 has experts 0 and 1, rank 1 has 2 and, half, 3.
TEST(HomeOf, TakesTheRankWithTheLargestSumOverTheFirstTokens) {
  const HomeSignature signature = *full_plan().homes->signature;
  const auto home = [&](std::initializer_list<int> experts) {
    std::vector<ExpertId> ids;
    for (const int e : experts) ids.push_back(ExpertId{e});
    return home_of(signature, MatrixView<const ExpertId>(ids.data(), std::ssize(ids) / 2, 2));
  };
  EXPECT_EQ(home({0, 3, 2, -1}), RankId{1});                   // 1 to 1.5
  EXPECT_EQ(home({0, 3}), RankId{0});                          // 1 to 0.5
  EXPECT_EQ(home({0, 2}), RankId{0});                          // of equals the lowest
  EXPECT_EQ(home({0, 1, 0, 1, 2, 3, 2, 3, 2, 3}), RankId{0});  // only two tokens are looked at
  EXPECT_EQ(home({}), RankId{0});
  EXPECT_NE(error_of([&] { home({0, 4}); }), "");
}

}  // namespace
}  // namespace c2r
