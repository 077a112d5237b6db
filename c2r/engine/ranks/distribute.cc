// Scatters one round of work items; a last integer of each says whether there is a round at all, or
// whether rank 0 has failed to make one.
#include "c2r/engine/ranks/distribute.h"

#include <algorithm>
#include <exception>

#include "c2r/core/error.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

std::optional<WorkItem> checked(std::optional<WorkItem> item) {
  C2R_REQUIRE(!item || !item->empty(), kInvalidArgument,
              "a work item is empty, but must have at least one integer");
  return item;
}

// The last integer of what a rank is sent.
constexpr std::int32_t kIsEnd = 0, kIsRound = 1, kHasFailed = 2;

// The next items, one a rank, each with its last integer.
std::vector<WorkItem> items_of_round(std::int32_t ep_size,
                                     const std::function<std::optional<WorkItem>()>& next) {
  std::vector<WorkItem> items;
  while (std::ssize(items) < ep_size) {
    auto item = checked(next());
    if (!item) break;
    items.push_back(std::move(*item));
  }
  const std::int32_t status = items.empty() ? kIsEnd : kIsRound;
  items.resize(static_cast<std::size_t>(ep_size));
  for (WorkItem& item : items) item.push_back(status);
  return items;
}

}  // namespace

WorkItem work_item_of(std::span<const TokenId> tokens) {
  WorkItem item(tokens.size());
  std::ranges::transform(tokens, item.begin(),
                         [](TokenId token) { return static_cast<std::int32_t>(token); });
  return item;
}

std::vector<TokenId> tokens_of(std::span<const std::int32_t> work_item) {
  std::vector<TokenId> tokens(work_item.size());
  std::ranges::transform(work_item, tokens.begin(), [](std::int32_t id) { return TokenId{id}; });
  return tokens;
}

std::optional<WorkItem> distribute(Transport* transport,
                                   const std::function<std::optional<WorkItem>()>& next) {
  if (transport == nullptr) return checked(next());
  std::vector<WorkItem> items;
  std::exception_ptr failure;
  if (transport->rank() == RankId{0}) {
    try {
      items = items_of_round(transport->ep_size(), next);
    } catch (...) {
      failure = std::current_exception();
      items.assign(static_cast<std::size_t>(transport->ep_size()), {kHasFailed});
    }
  }
  WorkItem mine = scatter<std::int32_t>(*transport, items, "the next sequences");
  const std::int32_t status = mine.back();
  mine.pop_back();
  if (status == kHasFailed) {
    agree_on_errors(*transport, "failure of the input", [&] {
      if (failure) std::rethrow_exception(failure);
    });
  }
  return status == kIsRound ? std::optional(std::move(mine)) : std::nullopt;
}

}  // namespace c2r
