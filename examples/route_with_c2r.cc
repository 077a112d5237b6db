// Routes a batch with C2R: a token's best expert is chosen freely, the others among the
// collaborators of that expert that a plan lists.
//   route_with_c2r PLAN              a plan with top_t, of `c2r plan --top-t`
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "c2r/plan/plan.h"
#include "c2r/routing/policy.h"

namespace {

c2r::Router router_of(const c2r::Plan& plan, const c2r::PlanLayer& layer) {
  return {{.scoring = c2r::Scoring::kSoftmax,
           .top_k = plan.top_k,
           .norm_topk_prob = true,
           .constraint = {{.top_t = static_cast<int>(layer.collaborators.cols()),
                           .collaborators = layer.collaborators}}},
          plan.num_experts};
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: route_with_c2r PLAN");
  const c2r::Plan plan = c2r::read_plan(argv[1]);
  if (!plan.top_t) throw std::runtime_error("the plan has no lists: make it with --top-t");
  const c2r::Router router = router_of(plan, plan.layers[0]);
  // One token for each expert, whose gate prefers it and then the experts with the highest ids.
  c2r::Matrix<float> logits(plan.num_experts, plan.num_experts);
  for (int token = 0; token < plan.num_experts; ++token) {
    for (int e = 0; e < plan.num_experts; ++e) logits(token, e) = static_cast<float>(e);
    logits(token, token) = static_cast<float>(plan.num_experts);
  }
  const c2r::Routing routing = router.route(logits);
  for (std::int64_t token = 0; token < routing.topk_idx.rows(); ++token) {
    for (const c2r::ExpertId e : routing.topk_idx.row(token))
      std::printf("%d ", static_cast<int>(e));
    std::printf("\n");
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
