// Tests of collaborator lists as JSON.
#include "c2r/report/collaborators.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(CollaboratorsJson, NamesTheModelAndHasTheListsOfEachLayer) {
  Matrix<ExpertId> first(3, 1), second(3, 1);
  first(0, 0) = ExpertId{2};
  second(2, 0) = ExpertId{1};
  const Matrix<ExpertId> lists[] = {first, second};
  EXPECT_EQ(json_text(collaborators_json(
                {.model = "m", .num_experts = 3, .top_k = 2, .layer_indices = {1, 5}}, lists, 1)),
            R"({"model":"m","num_experts":3,"top_k":2,"top_t":1,"layer_indices":[1,5],)"
            R"("collaborators":[[[2],[0],[0]],[[0],[0],[1]]]})");
}

}  // namespace
}  // namespace c2r
