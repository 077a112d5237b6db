// Writes the homes of a plan as JSON, and reads them.
#include <limits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/plan/homes/homes_json_internal.h"

namespace c2r {
namespace {

template <class T>
Json rows_of(const Matrix<T>& matrix) {
  Json rows = Json::array();
  for (std::int64_t r = 0; r < matrix.rows(); ++r) rows.push_back(matrix.row(r));
  return rows;
}

Json signature_to_json(const HomeSignature& signature) {
  Json json = {{"layer_index", signature.layer_index},
               {"num_tokens", signature.num_tokens},
               {"weights", rows_of(signature.weights)}};
  if (!signature.token_weights) return json;
  const auto& [ids, weights, of_others] = *signature.token_weights;
  Json numbers = Json::array();
  for (const TokenId id : ids) numbers.push_back(static_cast<std::int32_t>(id));
  json["token_weights"] = {
      {"ids", std::move(numbers)}, {"weights", rows_of(weights)}, {"of_others", of_others}};
  return json;
}

struct HomesReader {
  std::string_view place;

  const Json::array_t& array(const Json& object, std::string_view key) const {
    return json_array(json_at(object, key, place), key, place);
  }

  PlanHomes homes(const Json& json, std::int32_t num_experts) const {
    json_check_keys(json, {"sequences", "signature"}, "homes", place);
    PlanHomes homes;
    if (json.contains("sequences")) {
      for (const Json& sequences : array(json, "sequences")) {
        json_check_keys(sequences, {"trace_hash", "ranks"}, "homes of sequences", place);
        homes.sequences.push_back(
            {.trace_hash =
                 json_string(json_at(sequences, "trace_hash", place), "trace_hash", place)});
        for (const Json& rank : array(sequences, "ranks")) {
          homes.sequences.back().ranks.push_back(RankId{static_cast<std::int32_t>(
              json_integer(rank, 0, kMaxRanks - 1, "a rank of homes", place))});
        }
      }
    }
    if (json.contains("signature")) homes.signature = signature(json["signature"], num_experts);
    return homes;
  }

  HomeSignature signature(const Json& json, std::int32_t num_experts) const {
    json_check_keys(json, {"layer_index", "num_tokens", "weights", "token_weights"}, "a signature",
                    place);
    HomeSignature signature{
        .layer_index = static_cast<std::int32_t>(
            json_integer(json_at(json, "layer_index", place), 0, INT32_MAX, "layer_index", place)),
        .num_tokens =
            json_integer(json_at(json, "num_tokens", place), 0, INT64_MAX, "num_tokens", place)};
    const auto& rows = array(json, "weights");
    for (const Json& row : rows) {  // before memory is asked for
      C2R_REQUIRE(std::ssize(json_array(row, "weights", place)) == num_experts, kInvalidFile,
                  "{}: the signature's weights have a row of {}, but there are {} experts", place,
                  row.size(), num_experts);
    }
    signature.weights = weights(rows, num_experts);
    if (json.contains("token_weights")) {
      signature.token_weights = token_weights(json["token_weights"]);
    }
    return signature;
  }

  TokenWeights token_weights(const Json& json) const {
    json_check_keys(json, {"ids", "weights", "of_others"}, "token weights", place);
    TokenWeights token_weights;
    for (const Json& id : array(json, "ids")) {
      token_weights.ids.push_back(TokenId{
          static_cast<std::int32_t>(json_integer(id, 0, INT32_MAX, "an id of a token", place))});
    }
    for (const Json& weight : array(json, "of_others")) {
      token_weights.of_others.push_back(weight_of(weight));
    }
    const auto& rows = array(json, "weights");
    const auto num_ranks = std::ssize(token_weights.of_others);
    for (const Json& row : rows) {
      C2R_REQUIRE(std::ssize(json_array(row, "weights", place)) == num_ranks, kInvalidFile,
                  "{}: the token weights have a row of {}, but of_others has {}", place, row.size(),
                  num_ranks);
    }
    token_weights.weights = weights(rows, num_ranks);
    return token_weights;
  }

  double weight_of(const Json& json) const {
    return json_number(json, std::numeric_limits<double>::lowest(), "a weight", place);
  }

  // @param rows of `cols` numbers
  Matrix<double> weights(const Json::array_t& rows, std::int64_t cols) const {
    Matrix<double> weights(std::ssize(rows), cols);
    auto out = weights.all().begin();
    for (const Json& row : rows) {
      for (const Json& weight : row) *out++ = weight_of(weight);
    }
    return weights;
  }
};

}  // namespace

Json internal::homes_to_json(const PlanHomes& homes) {
  Json json = Json::object();
  for (const auto& [hash, ranks] : homes.sequences) {
    Json ids = Json::array();
    for (const RankId rank : ranks) ids.push_back(static_cast<std::int32_t>(rank));
    json["sequences"].push_back({{"trace_hash", hash}, {"ranks", std::move(ids)}});
  }
  if (homes.signature) json["signature"] = signature_to_json(*homes.signature);
  return json;
}

PlanHomes internal::homes_from_json(const Json& json, std::int32_t num_experts,
                                    std::string_view place) {
  return HomesReader{place}.homes(json, num_experts);
}

}  // namespace c2r
