// Scores requests at homes that a plan's signature chooses by the experts of their first tokens, or
// by the ids of all their tokens. Then no token runs before its home is known: prefixes are empty.
//
// Outline of score_window():
//   1. run_prefixes(): requests go to the ranks in turn; each runs the first tokens of its requests
//      and keeps their keys and values.
//   2. choose_homes(): rank 0 gathers scores of homes and lengths, balances the window as
//      assign_homes() does, and tells all ranks.
//   3. move_sequences(): tokens, keys and values move to the homes.
//   4. run_rests(): each rank runs the rest of the sequences that it is the home of.
//   5. joined(): rank 0 joins the scores of both parts in the order of the requests.
#include <algorithm>
#include <cstring>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/engine/score_internal.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/token_homes.h"
#include "c2r/transport/collectives.h"

namespace c2r::internal {
namespace {

// A request of which the first tokens have run.
struct PartlyRun {
  WorkItem item;
  std::vector<std::byte> cache;  // KvCache::save() of these tokens
};

// The scored tokens of one part of several requests, on this rank.
struct PartScores {
  std::vector<Score> scores;  // [num_sequences]
  std::vector<double> log_likelihoods;
};

// A request of the window, known on all ranks.
struct WindowSequence {
  RankId home{0};
  std::int64_t item_size = 0;  // integers of its work item
};

// The tokens of a work item that run: all but the last, which is only predicted.
std::int64_t num_run_of(std::int64_t item_size) {
  return item_size - 2;
}
std::int64_t num_prefix_of(const Engine& engine, std::int64_t item_size) {
  const HomeSignature& signature = *engine.home_signature();
  return signature.token_weights ? 0 : std::min(signature.num_tokens, num_run_of(item_size));
}

// Runs tokens [begin, end) of a request and scores what they predict.
void run_part(Engine& engine, const ScoreRequest& request, std::int64_t begin, std::int64_t end,
              KvCache& cache, PartScores& part, const RoutingObserver& on_routing = {}) {
  StateScorer scorer(engine, request, &part.log_likelihoods);
  const std::span<const TokenId> tokens = request.tokens;
  engine.prefill(
      cache, tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
      [&](std::int64_t first, MatrixView<const float> states) {
        scorer.add(begin + first, states);
      },
      on_routing);
  part.scores.push_back(scorer.total());
}

// The first part of a window on this rank.
struct Prefixes {
  std::vector<PartlyRun> sequences;
  std::vector<double> home_scores;  // [num_sequences, ep_size]
  PartScores part;
  bool has_ended = false;  // there was no request at all

  void add(WorkItem item, std::span<const double> scores, std::vector<std::byte> cache) {
    home_scores.insert(home_scores.end(), scores.begin(), scores.end());
    sequences.push_back({std::move(item), std::move(cache)});
  }
};

void run_prefix(Engine& engine, WorkItem item, Prefixes& prefixes) {
  const ScoreRequest request = request_of(item);
  const std::int64_t num_tokens = num_prefix_of(engine, std::ssize(item));
  KvCache cache = engine.make_cache(num_tokens);
  std::vector<ExpertId> chosen;  // [num_tokens, top_k]
  run_part(engine, request, 0, num_tokens, cache, prefixes.part,
           [&](std::int64_t moe_layer, const Routing& routing) {
             if (moe_layer != engine.home_layer()) return;
             const auto choices = routing.topk_idx.all();
             chosen.insert(chosen.end(), choices.begin(), choices.end());
           });
  const MatrixView<const ExpertId> topk_idx(chosen.data(), num_tokens, engine.config().top_k);
  prefixes.add(std::move(item), sequence_scores(*engine.home_signature(), topk_idx), cache.save());
}

// With token weights nothing runs before the home is known.
void add_unrun(const TokenWeights& weights, WorkItem item, Prefixes& prefixes) {
  const ScoreRequest request = request_of(item);
  const auto num_run = static_cast<std::size_t>(num_run_of(std::ssize(item)));
  prefixes.part.scores.emplace_back();
  prefixes.add(std::move(item), token_scores(weights, std::span(request.tokens).first(num_run)),
               {});
}

Prefixes run_prefixes(Engine& engine, const std::function<std::optional<WorkItem>()>& next) {
  Prefixes prefixes;
  for (std::int64_t round = 0; round < kSequencesPerRank; ++round) {
    auto item = distribute(engine.transport(), next);
    if (!item) {
      prefixes.has_ended = round == 0;
      break;
    }
    const auto& token_weights = engine.home_signature()->token_weights;
    if (!item->empty() && token_weights) {
      add_unrun(*token_weights, *std::move(item), prefixes);
    } else if (!item->empty()) {
      run_prefix(engine, *std::move(item), prefixes);
    }
    engine.finish_passes();
  }
  return prefixes;
}

// @returns the window in the order of the requests: request i was on rank i mod ep_size
std::vector<WindowSequence> choose_homes(Engine& engine, const Prefixes& prefixes) {
  Transport& transport = *engine.transport();
  const std::int64_t ep_size = transport.ep_size();
  std::vector<std::int64_t> sizes;
  for (const PartlyRun& sequence : prefixes.sequences) sizes.push_back(std::ssize(sequence.item));
  const auto all_sizes = gather<std::int64_t>(transport, sizes, "lengths of sequences");
  const auto all_scores = gather<double>(transport, prefixes.home_scores, "scores of homes");
  std::vector<std::vector<std::int64_t>> told;  // the home and the size of each, to all ranks
  if (transport.rank() == RankId{0}) {
    std::int64_t num_sequences = 0;
    for (std::size_t r = 0; r < all_sizes.size(); ++r) {
      num_sequences += std::ssize(all_sizes[r]);
      C2R_REQUIRE(std::ssize(all_scores[r]) == std::ssize(all_sizes[r]) * ep_size, kTransport,
                  "rank {} sent {} scores of homes for {} sequences", r, all_scores[r].size(),
                  all_sizes[r].size());
    }
    Matrix<double> scores(num_sequences, ep_size);
    std::vector<std::int64_t> rests, in_order;
    for (std::int64_t s = 0; s < num_sequences; ++s) {
      const auto of_rank = std::span(at(all_scores, s % ep_size));
      const auto begin = static_cast<std::size_t>(s / ep_size * ep_size);
      std::ranges::copy(of_rank.subspan(begin, std::size_t(ep_size)), scores.row(s).begin());
      in_order.push_back(at(at(all_sizes, s % ep_size), s / ep_size));
      rests.push_back(num_run_of(in_order.back()) - num_prefix_of(engine, in_order.back()));
    }
    const auto homes = balanced_homes(scores, rests, kHomeImbalance);
    std::vector<std::int64_t> pairs;
    for (std::int64_t s = 0; s < num_sequences; ++s) {
      pairs.push_back(static_cast<std::int64_t>(at(homes, s)));
      pairs.push_back(at(in_order, s));
    }
    told.assign(static_cast<std::size_t>(ep_size), pairs);
  }
  const auto pairs = scatter<std::int64_t>(transport, told, "homes of sequences");
  std::vector<WindowSequence> window;
  for (std::size_t p = 0; p + 1 < pairs.size(); p += 2) {
    window.push_back({RankId{static_cast<std::int32_t>(pairs[p])}, pairs[p + 1]});
  }
  return window;
}

void append_bytes(std::span<const std::byte> bytes, std::vector<std::byte>& to) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// The sequences whose home this rank is, in the order of the window.
std::vector<PartlyRun> move_sequences(Engine& engine, std::span<const WindowSequence> window,
                                      std::vector<PartlyRun> mine) {
  Transport& transport = *engine.transport();
  const std::int64_t ep_size = transport.ep_size();
  const auto me = static_cast<std::int64_t>(transport.rank());
  const std::int64_t token_bytes = engine.make_cache(1).token_bytes();
  const auto cache_bytes = [&](const WindowSequence& sequence) {
    return static_cast<std::size_t>(num_prefix_of(engine, sequence.item_size) * token_bytes);
  };
  std::vector<std::vector<std::byte>> sent(static_cast<std::size_t>(ep_size)),
      received(sent.size());
  for (std::int64_t s = 0; s < std::ssize(window); ++s) {
    const auto& [home, item_size] = at(window, s);
    if (s % ep_size == me) {
      const PartlyRun& sequence = at(mine, s / ep_size);
      append_bytes(std::as_bytes(std::span(sequence.item)), at(sent, home));
      append_bytes(sequence.cache, at(sent, home));
    }
    if (static_cast<std::int64_t>(home) != me) continue;
    auto& from = at(received, s % ep_size);
    from.resize(from.size() + static_cast<std::size_t>(item_size) * sizeof(std::int32_t) +
                cache_bytes(at(window, s)));
  }
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (std::int32_t peer = 0; peer < transport.ep_size(); ++peer) {
    send.push_back({RankId{peer}, at(sent, peer)});
    recv.push_back({RankId{peer}, at(received, peer)});
  }
  transport.start(send, recv, "sequences on their way home")->wait();
  std::vector<PartlyRun> homecomers;
  std::vector<std::size_t> taken(static_cast<std::size_t>(ep_size));
  for (std::int64_t s = 0; s < std::ssize(window); ++s) {
    if (static_cast<std::int64_t>(at(window, s).home) != me) continue;
    std::size_t& begin = at(taken, s % ep_size);
    const auto take = [&](std::size_t size) {
      return std::span(at(received, s % ep_size)).subspan(std::exchange(begin, begin + size), size);
    };
    const auto item = take(std::size_t(at(window, s).item_size) * sizeof(std::int32_t));
    const auto cache = take(cache_bytes(at(window, s)));
    homecomers.push_back({values_of<std::int32_t>(item), {cache.begin(), cache.end()}});
  }
  return homecomers;
}

PartScores run_rests(Engine& engine, std::span<const PartlyRun> sequences) {
  PartScores part;
  for (const PartlyRun& sequence : sequences) {
    const ScoreRequest request = request_of(sequence.item);
    const std::int64_t num_run = num_run_of(std::ssize(sequence.item));
    KvCache cache = engine.make_cache(num_run);
    cache.restore(sequence.cache);
    run_part(engine, request, cache.num_tokens(), num_run, cache, part);
  }
  engine.finish_passes();
  return part;
}

// The parts of all ranks, read in the order in which each rank has run them.
class GatheredParts {
 public:
  GatheredParts(Transport& transport, const PartScores& mine)
      : scores_(gather<Score>(transport, mine.scores, "scores")),
        log_likelihoods_(gather<double>(transport, mine.log_likelihoods, "log-likelihoods")),
        next_score_(scores_.size()),
        next_token_(scores_.size()) {}

  // Adds the next part of a rank to a request.
  void take(RankId rank, Score& score, std::vector<double>& log_likelihoods) {
    const auto& scores = at(scores_, rank);
    const auto& tokens = at(log_likelihoods_, rank);
    std::size_t &next = at(next_score_, rank), &token = at(next_token_, rank);
    C2R_REQUIRE(next < scores.size() && scores[next].num_tokens >= 0 &&
                    std::size_t(scores[next].num_tokens) <= tokens.size() - token,
                kTransport, "rank {} sent {} scores and {} log-likelihoods, but more were scored",
                static_cast<std::int32_t>(rank), scores.size(), tokens.size());
    const Score& part = scores[next++];
    score.num_tokens += part.num_tokens;
    score.is_greedy = score.is_greedy && part.is_greedy;
    // Token after token, as in one process, so that the sum has the same bits.
    for (std::int64_t t = 0; t < part.num_tokens; ++t) {
      log_likelihoods.push_back(tokens[token++]);
      score.log_likelihood += log_likelihoods.back();
    }
  }

 private:
  std::vector<std::vector<Score>> scores_;            // [ep_size] on rank 0
  std::vector<std::vector<double>> log_likelihoods_;  // [ep_size] on rank 0
  std::vector<std::size_t> next_score_, next_token_;  // [ep_size] on rank 0
};

RoundScores joined(Transport& transport, std::span<const WindowSequence> window,
                   const PartScores& prefixes, const PartScores& rests) {
  GatheredParts first(transport, prefixes), second(transport, rests);
  RoundScores all;
  if (transport.rank() != RankId{0}) return all;
  for (std::int64_t s = 0; s < std::ssize(window); ++s) {
    Score score;
    first.take(RankId{static_cast<std::int32_t>(s % transport.ep_size())}, score,
               all.log_likelihoods);
    second.take(at(window, s).home, score, all.log_likelihoods);
    all.scores.push_back(score);
  }
  return all;
}

}  // namespace

std::optional<RoundScores> score_window(Engine& engine,
                                        const std::function<std::optional<WorkItem>()>& next) {
  Prefixes prefixes = run_prefixes(engine, next);
  if (prefixes.has_ended) return std::nullopt;
  const auto window = choose_homes(engine, prefixes);
  const auto sequences = move_sequences(engine, window, std::move(prefixes.sequences));
  const PartScores rests = run_rests(engine, sequences);
  return joined(*engine.transport(), window, prefixes.part, rests);
}

}  // namespace c2r::internal
