// Routing policies for Python.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/routing/policy.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"

namespace c2r::python {
namespace {

constexpr EnumName<Scoring> kScorings[] = {
    {Scoring::kSoftmax, "softmax"},
    {Scoring::kSoftmaxOverChosen, "softmax-over-chosen"},
    {Scoring::kSigmoid, "sigmoid"},
};
constexpr EnumName<GroupScore> kGroupScores[] = {
    {GroupScore::kMax, "max"},
    {GroupScore::kSumOfBestTwo, "sum-of-best-two"},
};

// The policy of keyword arguments, checked by Router once the number of experts is known.
RoutingPolicy make_policy(std::int32_t top_k, const std::string& scoring, bool norm_topk_prob,
                          float scale, const std::optional<AnyArray>& selection_bias,
                          std::int32_t num_groups, std::int32_t top_groups,
                          const std::string& group_score, std::optional<std::int32_t> top_t,
                          const std::optional<AnyArray>& collaborators) {
  RoutingPolicy policy{.scoring = parse_in(kScorings, "a scoring is", scoring),
                       .top_k = top_k,
                       .norm_topk_prob = norm_topk_prob,
                       .scale = scale,
                       .num_groups = num_groups,
                       .top_groups = top_groups,
                       .group_score = parse_in(kGroupScores, "a group score is", group_score)};
  if (selection_bias) {
    const auto bias = float_vector(*selection_bias, "selection_bias");
    policy.selection_bias.assign(bias.begin(), bias.end());
  }
  C2R_REQUIRE(top_t.has_value() == collaborators.has_value(), kInvalidArgument,
              "top_t and collaborators are given together or not at all");
  if (collaborators) {
    const auto lists = expert_matrix(*collaborators, "collaborators");
    Matrix<ExpertId> kept(lists.rows(), lists.cols());
    for (std::int64_t e = 0; e < lists.rows(); ++e) {
      std::ranges::copy(lists.row(e), kept.row(e).begin());
    }
    policy.constraint = {.top_t = *top_t, .collaborators = std::move(kept)};
  }
  return policy;
}

std::pair<nb::object, nb::object> route(const AnyArray& logits, const RoutingPolicy& policy) {
  const auto rows = float_matrix(logits, "logits");
  Routing routing;
  {
    const nb::gil_scoped_release released;
    C2R_REQUIRE(rows.cols() <= kMaxExperts, kInvalidArgument,
                "logits are of {} experts, but at most {} can be routed", rows.cols(), kMaxExperts);
    routing = Router(policy, static_cast<std::int32_t>(rows.cols())).route(rows);
  }
  return {nb::cast(to_numpy(std::move(routing.topk_idx))),
          nb::cast(to_numpy(std::move(routing.topk_weights)))};
}

}  // namespace

void add_routing(nb::module_& module) {
  nb::class_<RoutingPolicy>(module, "RoutingPolicy")
      .def(nb::new_(&make_policy), nb::arg("top_k"), nb::kw_only(), nb::arg("scoring") = "softmax",
           nb::arg("norm_topk_prob") = false, nb::arg("scale") = 1.0F,
           nb::arg("selection_bias").noconvert() = nb::none(), nb::arg("num_groups") = 1,
           nb::arg("top_groups") = 1, nb::arg("group_score") = "max", nb::arg("top_t") = nb::none(),
           nb::arg("collaborators").noconvert() = nb::none())
      .def_ro("top_k", &RoutingPolicy::top_k);
  module.def("route", &route, nb::arg("logits").noconvert(), nb::arg("policy"));
}

}  // namespace c2r::python
