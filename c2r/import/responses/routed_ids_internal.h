// The ids that inference servers return with a response, as sequences of a trace.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/import/import.h"
#include "c2r/import/trace_builder_internal.h"

namespace c2r {

/// The ids of a sequence, in which the layer axis may have dense layers, and what the response says
/// about its tokens.
struct RoutedIds {
  std::vector<ExpertId> values;  // [num_rows, num_layers, top_k]; kNoExpert = none
  std::int64_t num_layers = 0, top_k = 0;
  // Rows of the prompt, which come first, and of those the ones that were in the prefix cache.
  // Nothing where the response does not say it.
  std::optional<std::int64_t> num_prompt_rows, num_cached_rows;

  std::int64_t num_rows() const { return std::ssize(values) / (num_layers * top_k); }
  std::span<const ExpertId> at(std::int64_t row, std::int64_t layer) const {
    return std::span(values).subspan(static_cast<std::size_t>((row * num_layers + layer) * top_k),
                                     static_cast<std::size_t>(top_k));
  }
};

/// A trace of sequences of RoutedIds. The request must outlive this object.
///
/// Zeros in a dense layer cannot be told from choices of expert 0. With two or more experts a token
/// they are no valid choice; with one, the first sequence decides, unless the request names layers.
class RoutedIdsImporter {
 public:
  explicit RoutedIdsImporter(const ImportRequest& request) : request_(request), builder_(request) {}

  const ImportRequest& request() const { return request_; }
  TraceBuilder& builder() { return builder_; }

  /// Appends a sequence without the rows that the request does not want and those without any id.
  /// @throws Error(kInvalidFile) if a layer that was taken to be dense has ids, an id is out of
  ///         range, or the request wants what the response does not say
  void add(const RoutedIds& ids, const std::string& place);

  /// Appends a sequence of which the input says where its MoE layers are on the layer axis.
  void add(const RoutedIds& ids, const std::vector<std::int32_t>& axis,
           const std::vector<std::int32_t>& layer_indices, const std::string& place);

  /// Counts a response without ids.
  /// @param why what finish() says if no response has any
  void leave_out(std::string why);

  /// Completes the trace and adds notes of what was left out.
  ImportResult finish();

 private:
  void choose_layers(const RoutedIds& ids, const std::string& place);
  void require_dense_elsewhere(const RoutedIds& ids, const std::string& place) const;
  void warn_of_constant_columns(const RoutedIds& ids, const std::string& place) const;
  bool is_wanted(const RoutedIds& ids, std::int64_t row, const std::string& place);

  const ImportRequest& request_;
  TraceBuilder builder_;
  std::vector<std::int32_t> axis_;           // where MoE layers are on the layer axis
  std::vector<std::int32_t> layer_indices_;  // the model's own index of each; empty: not known yet
  std::string first_left_out_;               // why
  std::int64_t num_left_out_ = 0, num_rows_ = 0;
  std::int64_t num_unknown_ = 0, num_cached_ = 0, num_of_other_phase_ = 0;
};

}  // namespace c2r
