// Plain annealing of a placement without replicas over all distinct token sets: what the
// optimizer's results are compared with. It shares no code with the library and must not be changed
// together with its search.
//
//   g++ -O2 -std=c++20 bench/plain_annealer.cc -o plain_annealer
//   plain_annealer NODES RANKS_PER_NODE RANK_COST NODE_COST MAX_IMBALANCE MILLION_VISITS SEED <
//   sets.txt
//
// The input has a line "num_experts num_sets", and one for each set: its tokens, the number of its
// experts and the experts. The energy is rank_cost x copies + node_cost x node copies + 10 x the
// loads above the bound. A move swaps two experts of different ranks; its change is counted by
// visiting all sets of both. The temperature falls geometrically. Prints the least cost per token
// of a placement within the bound, and its imbalance.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

struct Problem {
  int num_nodes = 1, ranks_per_node = 1;
  double rank_cost = 1, node_cost = 0, max_imbalance = 1.1;
  int num_experts = 0;
  std::vector<std::vector<int>> experts;  // [num_sets]
  std::vector<std::int64_t> tokens;       // [num_sets]

  int num_ranks() const { return num_nodes * ranks_per_node; }
};

struct Found {
  double cost = INFINITY,
         imbalance = 0;      // per token; infinite if no placement within the bound was met
  std::vector<int> rank_of;  // [num_experts]
};

class PlainAnnealer {
 public:
  PlainAnnealer(const Problem& problem, std::uint64_t seed)
      : problem_(problem),
        random_(seed),
        sets_of_(std::size_t(problem.num_experts)),
        rank_of_(std::size_t(problem.num_experts)),
        load_of_(std::size_t(problem.num_experts)),
        loads_(std::size_t(problem.num_ranks())),
        on_rank_(problem.tokens.size() * std::size_t(problem.num_ranks())),
        on_node_(problem.tokens.size() * std::size_t(problem.num_nodes)) {
    for (int e = 0; e < problem.num_experts; ++e)
      rank_of_[std::size_t(e)] = e % problem.num_ranks();
    std::ranges::shuffle(rank_of_, random_);
    for (std::size_t set = 0; set < problem.tokens.size(); ++set) {
      for (const int e : problem.experts[set]) {
        sets_of_[std::size_t(e)].push_back(set);
        load_of_[std::size_t(e)] += problem.tokens[set];
        enter(set, rank_of_[std::size_t(e)]);
      }
      num_tokens_ += problem.tokens[set];
    }
    for (int e = 0; e < problem.num_experts; ++e)
      loads_[std::size_t(rank_of_[std::size_t(e)])] += load_of_[std::size_t(e)];
    for (const std::int64_t load : loads_) mean_load_ += double(load) / problem.num_ranks();
  }

  Found run(double visits) {
    const double scale = mean_load_ * problem_.num_ranks() / problem_.num_experts *
                         std::max(problem_.rank_cost, problem_.node_cost);
    Found found;
    for (double done = 0; done < visits;) {
      const double temperature = scale * 0.08 * std::pow(0.02, done / visits);
      const int a = draw(), b = draw();
      const int from = rank_of_[std::size_t(a)], to = rank_of_[std::size_t(b)];
      if (from == to) continue;
      const double before = energy();
      swap(a, b);
      done += 2.0 * double(sets_of_[std::size_t(a)].size() + sets_of_[std::size_t(b)].size());
      const double change = energy() - before;
      if (change > 0 &&
          std::exp(-change / temperature) < std::uniform_real_distribution<>()(random_)) {
        swap(a, b);
      } else if (excess() == 0 && cost_ / double(num_tokens_) < found.cost) {
        found = {cost_ / double(num_tokens_), double(std::ranges::max(loads_)) / mean_load_,
                 rank_of_};
      }
    }
    return found;
  }

 private:
  int draw() { return int(random_() % std::uint64_t(problem_.num_experts)); }
  double excess() const {
    double sum = 0;
    for (const std::int64_t load : loads_)
      sum += std::max(0.0, double(load) - problem_.max_imbalance * mean_load_);
    return sum;
  }
  double energy() const { return cost_ + 10 * excess(); }

  void enter(std::size_t set, int rank) {
    const auto tokens = double(problem_.tokens[set]);
    if (on_rank_[set * std::size_t(problem_.num_ranks()) + std::size_t(rank)]++ == 0)
      cost_ += problem_.rank_cost * tokens;
    if (on_node_[set * std::size_t(problem_.num_nodes) +
                 std::size_t(rank / problem_.ranks_per_node)]++ == 0)
      cost_ += problem_.node_cost * tokens;
  }
  void leave(std::size_t set, int rank) {
    const auto tokens = double(problem_.tokens[set]);
    if (--on_rank_[set * std::size_t(problem_.num_ranks()) + std::size_t(rank)] == 0)
      cost_ -= problem_.rank_cost * tokens;
    if (--on_node_[set * std::size_t(problem_.num_nodes) +
                   std::size_t(rank / problem_.ranks_per_node)] == 0)
      cost_ -= problem_.node_cost * tokens;
  }
  void move(int e, int to) {
    const int from = rank_of_[std::size_t(e)];
    for (const std::size_t set : sets_of_[std::size_t(e)]) leave(set, from), enter(set, to);
    loads_[std::size_t(from)] -= load_of_[std::size_t(e)],
        loads_[std::size_t(to)] += load_of_[std::size_t(e)];
    rank_of_[std::size_t(e)] = to;
  }
  void swap(int a, int b) {
    const int rank_a = rank_of_[std::size_t(a)], rank_b = rank_of_[std::size_t(b)];
    move(a, rank_b);
    move(b, rank_a);
  }

  const Problem& problem_;
  std::mt19937_64 random_;
  std::vector<std::vector<std::size_t>> sets_of_;
  std::vector<int> rank_of_;
  std::vector<std::int64_t> load_of_, loads_;
  std::vector<std::uint8_t> on_rank_,
      on_node_;  // [num_sets, num_ranks], [num_sets, num_nodes]: experts there
  std::int64_t num_tokens_ = 0;
  double mean_load_ = 0, cost_ = 0;
};

#ifndef C2R_PLAIN_ANNEALER_WITHOUT_MAIN
int main(int argc, char** argv) {
  if (argc != 8) {
    std::fputs(
        "usage: plain_annealer NODES RANKS_PER_NODE RANK_COST NODE_COST MAX_IMBALANCE "
        "MILLION_VISITS SEED\n",
        stderr);
    return 2;
  }
  Problem problem{.num_nodes = std::atoi(argv[1]),
                  .ranks_per_node = std::atoi(argv[2]),
                  .rank_cost = std::atof(argv[3]),
                  .node_cost = std::atof(argv[4]),
                  .max_imbalance = std::atof(argv[5])};
  long num_sets = 0;
  if (std::scanf("%d %ld", &problem.num_experts, &num_sets) != 2) return 1;
  for (long set = 0; set < num_sets; ++set) {
    long tokens = 0;
    int size = 0;
    if (std::scanf("%ld %d", &tokens, &size) != 2) return 1;
    std::vector<int> experts(static_cast<std::size_t>(size));
    for (int& e : experts) {
      if (std::scanf("%d", &e) != 1 || e < 0 || e >= problem.num_experts) return 1;
    }
    problem.tokens.push_back(tokens);
    problem.experts.push_back(experts);
  }
  const Found found =
      PlainAnnealer(problem, std::strtoull(argv[7], nullptr, 10)).run(1e6 * std::atof(argv[6]));
  std::printf("%.6f %.6f\n", found.cost, found.imbalance);
}
#endif
