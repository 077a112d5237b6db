// Checks the JSON of other commands, and keeps of it what a report shows.
#include "c2r/report/page/report_inputs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <string_view>

#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

constexpr double kAnyNumber = -1e300;
constexpr std::int64_t kMostTokens = INT64_C(1) << 50;

// An array of numbers that is not empty.
std::vector<double> numbers_of(const Json& values, std::string_view what, std::string_view place) {
  std::vector<double> numbers;
  for (const Json& value : json_array(values, what, place)) {
    numbers.push_back(json_number(value, kAnyNumber, what, place));
  }
  C2R_REQUIRE(!numbers.empty(), kInvalidFile, "{}: {} is empty", place, what);
  return numbers;
}

double mean_at(const Json& object, const char* key, std::string_view place) {
  return mean_over_layers(numbers_of(json_at(object, key, place), key, place));
}

// dispatch, experts or combine: the part of a layer that a phase of the benchmark belongs to.
const char* part_of_phase(std::string_view phase, std::string_view place) {
  if (phase.ends_with("_combine")) return "combine_s";
  if (phase.ends_with("_dispatch") || phase == "handles") return "dispatch_s";
  C2R_REQUIRE(phase == "experts" || phase == "local_work", kInvalidFile,
              "{}: '{}' is no phase of a layer", place, phase);
  return "experts_s";
}

Json measured_variant(const Json& variant, std::string_view place) {
  Json measured = {
      {"name", json_string(json_at(variant, "name", place), "a variant's name", place)},
      {"median_s", json_number(json_at(variant, "median_s", place), 0, "median_s", place)},
      {"dispatch_s", 0.0},
      {"experts_s", 0.0},
      {"combine_s", 0.0}};
  const Json& phases = json_at(variant, "phase_seconds", place);
  C2R_REQUIRE(phases.is_object(), kInvalidFile, "{}: phase_seconds is no object", place);
  for (const auto& [phase, seconds_of_ranks] : phases.items()) {
    Json& part = measured[part_of_phase(phase, place)];
    part = part.get<double>() + mean_over_layers(numbers_of(seconds_of_ranks, phase, place));
  }
  return measured;
}

}  // namespace

Json checked_comparison(Json comparison, std::string_view place) {
  const Json* const placements = json_find(comparison, "placements");
  C2R_REQUIRE(placements != nullptr && placements->is_array() && !placements->empty(), kInvalidFile,
              "{} is not what `c2r compare --json` prints: it has no placements", place);
  for (const Json& entry : *placements) {
    (void)json_string(json_at(entry, "placement", place), "a placement", place);
    for (const char* column : {"wire_copies_per_token", "imbalance"}) {
      (void)numbers_of(json_at(entry, column, place), fmt::format("{} of a placement", column),
                       place);
    }
  }
  return comparison;
}

Json read_comparison(const std::filesystem::path& path) {
  return checked_comparison(read_json_file(path), path.string());
}

namespace {

// One line of `c2r score --json`.
Json parse_score(std::string_view line, const std::string& place) {
  constexpr std::string_view kWhat =
      "is not what `c2r score --json` prints, an object on each line";
  Json score;
  try {
    score = parse_json(line, place);
  } catch (const Error& e) {
    C2R_THROW(kInvalidFile, "{} {}: {}", place, kWhat, e.what());
  }
  C2R_REQUIRE(json_find(score, "log_likelihood") != nullptr || json_find(score, "run") != nullptr,
              kInvalidFile, "{} {}: it has no log_likelihood", place, kWhat);
  return score;
}

}  // namespace

Json read_scores(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  std::int64_t num_tokens = 0, number = 0;
  double log_likelihood = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}: line {}", path.string(), number);
    const Json score = parse_score(line, place);
    if (json_find(score, "run") != nullptr) continue;  // the last line of a run on ranks
    num_tokens += json_integer(json_at(score, "num_tokens", place), 0, kMostTokens - num_tokens,
                               "num_tokens", place);
    log_likelihood +=
        json_number(json_at(score, "log_likelihood", place), kAnyNumber, "log_likelihood", place);
  }
  C2R_REQUIRE(num_tokens > 0, kInvalidFile, "{}: no token was scored", path.string());
  const double perplexity = std::exp(-log_likelihood / static_cast<double>(num_tokens));
  C2R_REQUIRE(std::isfinite(perplexity), kInvalidFile,
              "{}: a log-likelihood of {:g} of {} tokens has no finite perplexity", path.string(),
              log_likelihood, num_tokens);
  return {{"name", path.string()},
          {"num_tokens", num_tokens},
          {"log_likelihood", log_likelihood},
          {"perplexity", perplexity}};
}

Json constrained_traffic(const Json& simulated, std::string_view place) {
  const Json* const steps = json_find(simulated, "steps");
  if (steps != nullptr && steps->is_array()) {
    for (const Json& step : *steps) {
      const Json* const name = json_find(step, "step");
      if (name == nullptr || *name != "constraint") continue;
      return {{"name", place},
              {"wire_copies_per_token", mean_at(step, "wire_copies_per_token", place)},
              {"imbalance", mean_at(step, "imbalance", place)}};
    }
  }
  C2R_THROW(kInvalidFile,
            "{} is not what `c2r simulate --constrained TRACE --json` prints: it has no step "
            "'constraint'",
            place);
}

Json read_constrained(const std::filesystem::path& path) {
  return constrained_traffic(read_json_file(path), path.string());
}

Json read_layer_bench(const std::filesystem::path& path) {
  const std::string place = path.string();
  const Json bench = read_json_file(path);
  C2R_REQUIRE(json_find(bench, "variants") != nullptr, kInvalidFile,
              "{} is not what `c2r bench layer --json` or `c2r bench exchange --json` prints: it "
              "has no variants",
              place);
  const auto integer = [&](const char* key) {
    return json_integer(json_at(bench, key, place), 0, INT32_MAX, key, place);
  };
  Json measured = {{"name", place},
                   {"problem", json_string(json_at(bench, "problem", place), "problem", place)},
                   {"what", json_string(json_at(bench, "what", place), "what", place)},
                   {"ep_size", integer("ep_size")},
                   {"tokens_per_rank", integer("tokens_per_rank")},
                   {"hidden", integer("hidden")},
                   {"variants", Json::array()}};
  for (const Json& variant : json_array(bench.at("variants"), "variants", place)) {
    measured["variants"].push_back(measured_variant(variant, place));
  }
  C2R_REQUIRE(!measured["variants"].empty(), kInvalidFile, "{}: variants is empty", place);
  return measured;
}

Json constraint_rows(std::span<const ConstraintInput> scores,
                     std::span<const ConstraintInput> traffic) {
  std::map<std::int64_t, Json> rows;  // by T; 0: without a constraint
  const auto add = [&](const ConstraintInput& input, const char* what) {
    const std::int64_t top_t = input.top_t.value_or(0);
    Json& row = rows[top_t];
    C2R_REQUIRE(!row.contains(what), kInvalidArgument, "{}: there is another {} {}",
                input.value.at("name").get<std::string>(), what,
                top_t == 0 ? "without a constraint" : fmt::format("of T = {}", top_t));
    row["top_t"] = top_t == 0 ? Json(nullptr) : Json(top_t);
    row[what] = input.value;
  };
  for (const ConstraintInput& score : scores) {
    const Json &first = scores[0].value, &other = score.value;
    C2R_REQUIRE(other.at("num_tokens") == first.at("num_tokens"), kInvalidArgument,
                "{} is of {} tokens, but {} of {}: score the same text",
                other.at("name").get<std::string>(), other.at("num_tokens").get<std::int64_t>(),
                first.at("name").get<std::string>(), first.at("num_tokens").get<std::int64_t>());
    add(score, "score");
  }
  for (const ConstraintInput& one : traffic) add(one, "traffic");
  Json json = Json::array();
  for (auto& [top_t, row] : rows) json.push_back(std::move(row));
  return json;
}

}  // namespace c2r
