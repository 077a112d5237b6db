// Formats the summary of a run on ranks as text and as JSON.
#include "c2r/cli/run_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "c2r/cli/printable.h"
#include "c2r/io/json.h"
#include "c2r/io/matrix_json.h"

namespace c2r::cli {
namespace {

// "1.0712 kB, 0.5120 of them between nodes"
std::string kilobytes(const LinkBytes& bytes, const Cluster& cluster) {
  std::string text = fmt::format("{:.4f} kB", bytes.wire() / 1e3);
  if (cluster.num_nodes > 1) {
    text += fmt::format(", {:.4f} of them between nodes", bytes.inter_node / 1e3);
  }
  return text;
}

std::string prediction_text(const RunTraffic& run,
                            const std::optional<PredictedTraffic>& predicted) {
  if (!predicted) return "no prediction of a plan for this way of sending";
  return fmt::format("predicted by the plan on {}, homes {}: {}", printable(predicted->trace),
                     name_of(predicted->homes),
                     kilobytes(predicted->row_bytes_per_token, run.cluster));
}

Json link_bytes_json(const LinkBytes& bytes) {
  return {{"intra_node", bytes.intra_node}, {"inter_node", bytes.inter_node}};
}

Json prediction_json(const std::optional<PredictedTraffic>& predicted) {
  if (!predicted) return {};
  return {{"row_bytes_per_token_and_layer", link_bytes_json(predicted->row_bytes_per_token)},
          {"trace", predicted->trace},
          {"homes", name_of(predicted->homes)}};
}

}  // namespace

std::string traffic_text(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted) {
  const auto bytes = run.row_bytes.all();
  const auto most = std::ranges::max_element(bytes);
  const auto link = most - bytes.begin();
  std::string text =
      fmt::format("{} ranks: {} tokens in {:.2f} s, {:.1f} tokens/s\n", run.cluster.ep_size(),
                  run.num_tokens, run.elapsed_s, run.tokens_per_s());
  text += fmt::format("rows sent, per token and layer: {}; {}\n",
                      kilobytes(run.row_bytes_per_token(), run.cluster),
                      prediction_text(run, predicted));
  text += fmt::format(
      "most on a link, per token and layer: {:.4f} kB from rank {} to rank {}; lists and "
      "agreements on all links: {:.4f} kB\n",
      run.per_token(*most) / 1e3, link / run.row_bytes.cols(), link % run.row_bytes.cols(),
      run.other_bytes_per_token() / 1e3);
  return text;
}

std::string traffic_json(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted) {
  const Json json = {
      {"run",
       {{"ep_size", run.cluster.ep_size()},
        {"num_tokens", run.num_tokens},
        {"num_layers", run.num_layers},
        {"elapsed_s", run.elapsed_s},
        {"tokens_per_s", run.tokens_per_s()},
        {"row_bytes_per_token_and_layer", link_bytes_json(run.row_bytes_per_token())},
        {"other_bytes_per_token_and_layer", run.other_bytes_per_token()},
        {"predicted", prediction_json(predicted)},
        {"row_bytes", matrix_to_json(run.row_bytes)},
        {"sent_bytes", matrix_to_json(run.sent_bytes)}}}};
  return json_text(json);
}

void print_traffic(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted,
                   bool as_json) {
  if (as_json) {
    std::cout << traffic_json(run, predicted) << "\n";
  } else {
    std::cout.flush();
    std::cerr << traffic_text(run, predicted);
  }
}

void print_memory(const std::vector<RankMemory>& ranks) {
  const auto megabytes = [](const std::optional<std::int64_t>& bytes) {
    return bytes ? fmt::format("{:.1f}", static_cast<double>(*bytes) / 1e6) : "unknown";
  };
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    std::cerr << fmt::format("rank {}: {} MB resident, of which {} MB are weights\n", rank,
                             megabytes(ranks[rank].resident_bytes),
                             megabytes(ranks[rank].weight_bytes));
  }
}

}  // namespace c2r::cli
