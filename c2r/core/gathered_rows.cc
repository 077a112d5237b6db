// Checks of rows that are read through an index.
#include "c2r/core/gathered_rows.h"

#include "c2r/core/error.h"

namespace c2r {

GatheredRows::GatheredRows(const RowsView& rows, std::span<const std::int32_t> index,
                           const RowsView& more)
    : rows_(rows), more_(more), index_(index.data()), num_rows_(std::ssize(index)) {
  C2R_REQUIRE(more.rows() == 0 || more.cols() == rows.cols(), kInvalidArgument,
              "rows of {} and of {} values cannot be gathered together", rows.cols(), more.cols());
}

void GatheredRows::check() const {
  if (index_ == nullptr) return;
  const std::int64_t num_stored = rows_.rows() + more_.rows();
  for (std::int64_t r = 0; r < num_rows_; ++r) {
    C2R_REQUIRE(0 <= index_[r] && index_[r] < num_stored, kInvalidArgument,
                "a row index names row {}, but x has {} rows", index_[r], num_stored);
  }
}

GatheredRows GatheredRows::rows(std::int64_t begin, std::int64_t end) const {
  C2R_ASSERT(0 <= begin && begin <= end && end <= num_rows_);
  GatheredRows some = *this;
  some.num_rows_ = end - begin;
  if (index_ == nullptr) some.rows_ = rows_.rows(begin, end);
  if (index_ != nullptr) some.index_ = index_ + begin;
  return some;
}

bool GatheredRows::is_same_as(const GatheredRows& other) const {
  const auto same = [](const RowsView& a, const RowsView& b) {
    return a.data() == b.data() && a.type() == b.type() && a.rows() == b.rows() &&
           a.cols() == b.cols() && a.stride() == b.stride();
  };
  return num_rows_ == other.num_rows_ && index_ == other.index_ && same(rows_, other.rows_) &&
         same(more_, other.more_);
}

}  // namespace c2r
