// Plain annealing of a placement, with or without replicas, over all distinct token sets: what the
// optimizer's results are compared with. It shares no code with the library and must not be changed
// together with its search.
//
//   g++ -O2 -std=c++20 bench/plain_annealer.cc -o plain_annealer
//   plain_annealer NODES RANKS_PER_NODE RANK_COST NODE_COST MAX_IMBALANCE MILLION_VISITS SEED
//       [REDUNDANT_SLOTS] < sets.txt
//
// The input has a line "num_experts num_sets", and one for each set: its tokens, the number of its
// experts and the experts (bench/search_sweep.py writes it from a trace). Every rank has
// num_experts / ranks slots, rounded up, and REDUNDANT_SLOTS more. A set is served by the fewest
// ranks that host all its experts, of these by the fewest nodes, of these by the least loaded
// ranks.
//
// The energy is rank_cost x copies + node_cost x node copies + 10 x the larger cost x the loads
// above the bound. A move swaps two slots of different ranks, or gives the slot of a replicated
// expert to another one; its change is counted by serving all sets of both experts anew, and each
// set that is served is a visit. The temperature falls geometrically. A placement counts if it is
// within the bound when all sets are served anew, in their order and after all sets were served
// once. Prints the least cost per token of such a placement and its imbalance; "inf 0" if there is
// none.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

constexpr int kMostExperts = 8, kMostRanks = 64;  // of a set; bits of a RankSet
using RankSet = std::uint64_t;                    // bit r = rank r

struct Problem {
  int num_nodes = 1, ranks_per_node = 1;
  double rank_cost = 1, node_cost = 0, max_imbalance = 1.1;
  int redundant_slots = 0;  // of each rank
  int num_experts = 0;
  std::vector<std::vector<int>> experts = {};  // [num_sets]
  std::vector<std::int64_t> tokens = {};       // [num_sets]

  int num_ranks() const { return num_nodes * ranks_per_node; }
  int slots_per_rank() const {
    return (num_experts + num_ranks() - 1) / num_ranks() + redundant_slots;
  }
};

struct Found {
  double cost = INFINITY, imbalance = 0;  // per token; infinite if none within the bound was met
  std::vector<int> slots = {};            // [num_ranks x slots_per_rank], experts
};

class PlainAnnealer {
 public:
  PlainAnnealer(const Problem& problem, std::uint64_t seed)
      : problem_(problem),
        random_(seed),
        sets_of_(std::size_t(problem.num_experts)),
        slots_(std::size_t(problem.num_ranks() * problem.slots_per_rank()), -1),
        hosts_(std::size_t(problem.num_experts)),
        served_(problem.tokens.size()),
        loads_(std::size_t(problem.num_ranks())) {
    std::int64_t num_choices = 0;
    for (std::size_t set = 0; set < problem.tokens.size(); ++set) {
      for (const int e : problem.experts[set]) {
        sets_of_[std::size_t(e)].push_back(set);
        num_choices += problem.tokens[set];
      }
      num_tokens_ += problem.tokens[set];
    }
    mean_load_ = double(num_choices) / problem.num_ranks();
    fill_slots();
    serve_all();
  }

  Found run(double visits) {
    const double scale = mean_load_ * problem_.num_ranks() / problem_.num_experts * largest_cost();
    Found found;
    for (visits_ = 0; visits_ < visits;) {
      const double temperature = scale * 0.08 * std::pow(0.02, visits_ / visits);
      const double before = energy();
      ++visits_;
      if (!try_move()) continue;
      const double change = energy() - before;
      if (change > 0 &&
          std::exp(-change / temperature) < std::uniform_real_distribution<>()(random_)) {
        take_back();
      } else if (excess() == 0 && cost_ / double(num_tokens_) < found.cost) {
        serve_all();  // the order of moves chose other loads
        if (excess() == 0) found = {cost_ / double(num_tokens_), imbalance(), slots_};
      }
    }
    if (found.slots.empty()) return found;
    slots_ = found.slots;
    serve_all();
    return {cost_ / double(num_tokens_), imbalance(), slots_};
  }

 private:
  struct Served {
    RankSet ranks = 0;
    std::array<std::uint8_t, kMostExperts> rank_of{};  // of each expert of the set
  };

  static RankSet bit(int rank) { return RankSet{1} << rank; }
  int rank_of_slot(std::size_t slot) const { return int(slot) / problem_.slots_per_rank(); }
  RankSet& hosts(int e) { return hosts_[std::size_t(e)]; }
  double largest_cost() const { return std::max(problem_.rank_cost, problem_.node_cost); }
  double imbalance() const { return double(std::ranges::max(loads_)) / mean_load_; }
  double excess() const {
    double sum = 0;
    for (const std::int64_t load : loads_)
      sum += std::max(0.0, double(load) - problem_.max_imbalance * mean_load_);
    return sum;
  }
  double energy() const { return cost_ + 10 * largest_cost() * excess(); }

  // Each expert gets one slot, and the others get experts that their ranks lack.
  void fill_slots() {
    std::vector<int> order(std::size_t(problem_.num_experts));
    for (int e = 0; e < problem_.num_experts; ++e) order[std::size_t(e)] = e;
    std::ranges::shuffle(order, random_);
    const std::size_t per_rank = std::size_t(problem_.slots_per_rank());
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t rank = i % loads_.size();
      slots_[rank * per_rank + i / loads_.size()] = order[i];
      hosts(order[i]) |= bit(int(rank));
    }
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      while (slots_[slot] < 0) {
        const int e = int(random_() % std::uint64_t(problem_.num_experts));
        if (!is_on(e, slot)) slots_[slot] = e, hosts(e) |= bit(rank_of_slot(slot));
      }
    }
  }

  // Counts the placement anew: every set twice, and the loads of the second time.
  void serve_all() {
    std::ranges::fill(hosts_, RankSet{0});
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
      hosts(slots_[slot]) |= bit(rank_of_slot(slot));
    std::ranges::fill(loads_, 0);
    for (std::size_t set = 0; set < served_.size(); ++set) serve(set), add(set, 1);
    const std::vector<std::int64_t> first = loads_;
    cost_ = 0;
    for (std::size_t set = 0; set < served_.size(); ++set) serve(set), add(set, 1);
    for (std::size_t rank = 0; rank < first.size(); ++rank) loads_[rank] -= first[rank];
  }

  // Adds the loads and the cost of a set, or subtracts them if `sign` is -1.
  void add(std::size_t set, int sign) {
    const std::int64_t tokens = sign * problem_.tokens[set];
    const Served& served = served_[set];
    for (std::size_t i = 0; i < problem_.experts[set].size(); ++i)
      loads_[served.rank_of[i]] += tokens;
    cost_ += double(tokens) * (problem_.rank_cost * std::popcount(served.ranks) +
                               problem_.node_cost * num_nodes(served.ranks));
  }
  int num_nodes(RankSet ranks) const {
    if (problem_.num_nodes == 1) return 1;
    int count = 0;
    for (int node = 0; node < problem_.num_nodes; ++node) {
      const RankSet of_node = (bit(problem_.ranks_per_node) - 1)
                              << (node * problem_.ranks_per_node);
      count += (ranks & of_node) != 0;
    }
    return count;
  }

  // Chooses the ranks of a set, which must not be in the loads.
  void serve(std::size_t set) {
    ++visits_;
    const std::vector<int>& experts = problem_.experts[set];
    RankSet used = 0;
    for (const int e : experts)
      if (std::has_single_bit(hosts(e))) used |= hosts(e);
    best_ = 0;
    cover(experts, 0, used);
    served_[set].ranks = 0;
    for (std::size_t i = 0; i < experts.size(); ++i) {
      const int rank = least_loaded(hosts(experts[i]) & best_);
      served_[set].rank_of[i] = std::uint8_t(rank);
      served_[set].ranks |= bit(rank);
    }
  }
  // Tries all ways to add a host of each expert that `used` lacks, from the expert `first` on.
  void cover(const std::vector<int>& experts, std::size_t first, RankSet used) {
    while (first < experts.size() && (hosts(experts[first]) & used) != 0) ++first;
    if (first == experts.size()) return consider(experts, used);
    if (best_ != 0 && std::popcount(used) >= std::popcount(best_)) return;
    for (RankSet rest = hosts(experts[first]); rest != 0; rest &= rest - 1)
      cover(experts, first + 1, used | (rest & -rest));
  }
  void consider(const std::vector<int>& experts, RankSet used) {
    const auto quality = [&](RankSet ranks) {
      return std::tuple(std::popcount(ranks), num_nodes(ranks), load_of(experts, ranks));
    };
    if (best_ == 0 || quality(used) < quality(best_)) best_ = used;
  }
  std::int64_t load_of(const std::vector<int>& experts, RankSet used) {
    std::int64_t sum = 0;
    for (const int e : experts) sum += loads_[std::size_t(least_loaded(hosts(e) & used))];
    return sum;
  }
  int least_loaded(RankSet ranks) const {
    int best = std::countr_zero(ranks);
    for (; ranks != 0; ranks &= ranks - 1) {
      const int rank = std::countr_zero(ranks);
      if (loads_[std::size_t(rank)] < loads_[std::size_t(best)]) best = rank;
    }
    return best;
  }

  // @returns false if the two slots that were drawn allow no move
  bool try_move() {
    slot_ = random_() % slots_.size(), other_ = random_() % slots_.size();
    is_swap_ = random_() % 2 == 0;
    a_ = slots_[slot_], b_ = slots_[other_];
    if (a_ == b_ || is_on(b_, slot_)) return false;
    if (is_swap_ ? is_on(a_, other_) : std::has_single_bit(hosts(a_))) return false;
    cost_before_ = cost_, loads_before_ = loads_;
    before_.clear();
    for (const int e : {a_, b_}) {
      for (const std::size_t set : sets_of_[std::size_t(e)]) {
        const bool has_both = e == b_ && std::ranges::count(problem_.experts[set], a_) > 0;
        if (!has_both) before_.push_back({set, served_[set]});
      }
    }
    put(slot_, b_);
    if (is_swap_) put(other_, a_);
    for (const auto& [set, served] : before_) {
      add(set, -1);
      serve(set);
      add(set, 1);
    }
    return true;
  }
  void take_back() {
    put(slot_, a_);
    if (is_swap_) put(other_, b_);
    for (const auto& [set, served] : before_) served_[set] = served;
    cost_ = cost_before_, loads_ = loads_before_;
  }
  bool is_on(int e, std::size_t slot) { return (hosts(e) & bit(rank_of_slot(slot))) != 0; }
  void put(std::size_t slot, int e) {
    hosts(slots_[slot]) ^= bit(rank_of_slot(slot));
    hosts(e) ^= bit(rank_of_slot(slot));
    slots_[slot] = e;
  }

  const Problem& problem_;
  std::mt19937_64 random_;
  std::vector<std::vector<std::size_t>> sets_of_;  // [num_experts]
  std::vector<int> slots_;                         // [num_ranks x slots_per_rank], experts
  std::vector<RankSet> hosts_;                     // [num_experts]
  std::vector<Served> served_;                     // [num_sets]
  std::vector<std::int64_t> loads_;                // [num_ranks]
  std::size_t slot_ = 0, other_ = 0;               // of the last move, with their experts before
  int a_ = 0, b_ = 0;
  bool is_swap_ = false;
  std::vector<std::pair<std::size_t, Served>> before_;  // the sets that it served anew
  std::vector<std::int64_t> loads_before_;              // [num_ranks]
  double cost_before_ = 0;
  RankSet best_ = 0;  // that serve the set in hand, of those tried so far
  std::int64_t num_tokens_ = 0;
  double mean_load_ = 0, cost_ = 0, visits_ = 0;
};

// @returns false if the input is no problem that the annealer can solve
bool read_sets(Problem& problem) {
  long num_sets = 0;
  if (std::scanf("%d %ld", &problem.num_experts, &num_sets) != 2) return false;
  for (long set = 0; set < num_sets; ++set) {
    long tokens = 0;
    int size = 0;
    if (std::scanf("%ld %d", &tokens, &size) != 2 || size < 0 || size > kMostExperts) return false;
    std::vector<int> experts(static_cast<std::size_t>(size));
    for (int& e : experts) {
      if (std::scanf("%d", &e) != 1 || e < 0 || e >= problem.num_experts) return false;
    }
    problem.tokens.push_back(tokens);
    problem.experts.push_back(experts);
  }
  return problem.num_ranks() >= 1 && problem.num_ranks() <= kMostRanks &&
         problem.slots_per_rank() <= problem.num_experts;
}

int main(int argc, char** argv) {
  if (argc != 8 && argc != 9) {
    std::fputs(
        "usage: plain_annealer NODES RANKS_PER_NODE RANK_COST NODE_COST MAX_IMBALANCE "
        "MILLION_VISITS SEED [REDUNDANT_SLOTS]\n",
        stderr);
    return 2;
  }
  Problem problem{.num_nodes = std::atoi(argv[1]),
                  .ranks_per_node = std::atoi(argv[2]),
                  .rank_cost = std::atof(argv[3]),
                  .node_cost = std::atof(argv[4]),
                  .max_imbalance = std::atof(argv[5]),
                  .redundant_slots = argc == 9 ? std::atoi(argv[8]) : 0};
  if (!read_sets(problem)) {
    std::fputs(
        "plain_annealer: the input is not sets of at most 8 experts, or there are no ranks, "
        "over 64, or more slots on a rank than experts\n",
        stderr);
    return 1;
  }
  const Found found =
      PlainAnnealer(problem, std::strtoull(argv[7], nullptr, 10)).run(1e6 * std::atof(argv[6]));
  std::printf("%.6f %.6f\n", found.cost, found.imbalance);
}
