// Binds routing policies to Python.
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

// Makes a policy from keyword arguments. Router checks it once the number of experts is known.
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

using Routed = std::pair<nb::ndarray<nb::numpy, std::int32_t>, nb::ndarray<nb::numpy, float>>;

Routed route(const AnyArray& logits, const RoutingPolicy& policy) {
  const auto rows = float_matrix(logits, "logits");
  Routing routing;
  {
    const nb::gil_scoped_release released;
    C2R_REQUIRE(rows.cols() <= kMaxExperts, kInvalidArgument,
                "logits are of {} experts, but at most {} can be routed", rows.cols(), kMaxExperts);
    routing = Router(policy, static_cast<std::int32_t>(rows.cols())).route(rows);
  }
  return {to_numpy(std::move(routing.topk_idx)), to_numpy(std::move(routing.topk_weights))};
}

constexpr char kPolicyDoc[] =
    R"(Which experts a token gets, with which weights: c2r/routing/policy.h. Immutable.

Args:
  top_k: experts of a token, in [1, 32].
  scoring: softmax (Qwen-MoE, OLMoE, DeepSeek-V2; with ``norm_topk_prob`` Mixtral and Qwen3-MoE), softmax-over-chosen
    (LLaMA-MoE, gpt-oss) or sigmoid (DeepSeek-V3).
  norm_topk_prob: divide the weights by their sum.
  scale: a factor of every weight, last.
  selection_bias: float32 [num_experts], added to the sigmoid for choosing and not for weighing; sigmoid only.
  num_groups, top_groups: experts form so many groups, of which the best ``top_groups`` can be chosen from.
  group_score: what ranks a group: max, or with sigmoid also sum-of-best-two.
  top_t: T of the constraint C2R, in [top_k - 1, num_experts - 1]: a token's best expert is free, its others are the
    best among the first T collaborators of that expert. Together with ``collaborators``.
  collaborators: int32 [num_experts, at least top_t], row e the collaborators of expert e, best first.

Raises:
  TypeError: an array has another type or layout; nothing is converted silently.
  ValueError: a name is unknown, or one of top_t and collaborators is missing. What depends on the number of experts is
    checked by :func:`route`.

Source: Zhang et al., arXiv 2504.01337, section 3, for the constraint.

>>> lists = np.array([[1], [0], [3], [2]], np.int32)
>>> c2r.RoutingPolicy(2, top_t=1, collaborators=lists).top_k
2)";

constexpr char kRouteDoc[] =
    R"(Chooses experts for tokens by a policy. Equal logits go to the lower expert; the same bits on every machine.

Args:
  logits: float32 [num_tokens, num_experts], C-contiguous, in the host's memory; of NumPy or DLPack; not copied.
  policy: a :class:`RoutingPolicy`.

Returns:
  ``topk_idx`` int32 [num_tokens, top_k], best first, and ``topk_weights`` float32 [num_tokens, top_k].

Raises:
  TypeError: the logits have another type or layout; nothing is converted silently.
  ValueError: a logit is not finite, or the policy does not fit the number of experts.

Source: c2r/routing/policy.h; c2r/routing/policy_reference.h is the same, slow and obvious.

>>> logits = np.array([[1, 3, 2, 0]], np.float32)
>>> c2r.route(logits, c2r.RoutingPolicy(2))[0].tolist()
[[1, 2]]
>>> lists = np.array([[1], [0], [3], [2]], np.int32)
>>> c2r.route(logits, c2r.RoutingPolicy(2, top_t=1, collaborators=lists))[0].tolist()
[[1, 0]])";

}  // namespace

void add_routing(nb::module_& module) {
  nb::class_<RoutingPolicy>(module, "RoutingPolicy", kPolicyDoc)
      .def(nb::new_(&make_policy), nb::arg("top_k"), nb::kw_only(), nb::arg("scoring") = "softmax",
           nb::arg("norm_topk_prob") = false, nb::arg("scale") = 1.0F,
           nb::arg("selection_bias").noconvert() = nb::none(), nb::arg("num_groups") = 1,
           nb::arg("top_groups") = 1, nb::arg("group_score") = "max", nb::arg("top_t") = nb::none(),
           nb::arg("collaborators").noconvert() = nb::none())
      .def_ro("top_k", &RoutingPolicy::top_k, "Experts of a token.");
  module.def("route", &route, nb::arg("logits").noconvert(), nb::arg("policy"), kRouteDoc);
}

}  // namespace c2r::python
