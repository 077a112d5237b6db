// Counts one token's choices with an installed libc2r, through its public headers only.
#include <c2r/collaboration/collaboration.h>
#include <c2r/collaboration/metrics.h>
#include <c2r/core/error.h>

#include <cstdio>

int main() {
  c2r::Matrix<c2r::ExpertId> topk_idx(1, 2);
  topk_idx(0, 0) = c2r::ExpertId{3}, topk_idx(0, 1) = c2r::ExpertId{1};
  c2r::CollaborationMatrix counts(4, 4);
  c2r::add_collaboration(topk_idx, counts);
  try {
    c2r::add_collaboration(c2r::Matrix<c2r::ExpertId>(1, 1, c2r::ExpertId{9}), counts);
  } catch (const c2r::Error& e) {
    std::printf("%s\n", e.what());
  }
  const auto metrics = c2r::layer_metrics(counts, true);
  std::printf("pairs %d, choices %d\n", int(counts(1, 3)), int(metrics.num_choices));
  return counts(1, 3) == 1 && metrics.num_choices == 2 ? 0 : 1;
}
