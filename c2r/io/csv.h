// Reader of comma-separated values as in RFC 4180. A quoted field may contain commas, line breaks,
// and quotes, which are doubled. https://www.rfc-editor.org/rfc/rfc4180
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace c2r {

/// Walks over the rows of a text. The first row is the header and gives the number of fields. The
/// text and the path must outlive this object. A byte order mark and blank lines are skipped.
class CsvReader {
 public:
  /// Reads the header.
  /// @param path what the text is, for messages
  /// @throws Error(kInvalidFile) if the text is empty or its header is broken
  CsvReader(std::string_view text, std::string_view path);

  /// @returns the position of the column that the header calls `name`
  /// @throws Error(kInvalidFile) if there is none, or more than one
  std::size_t column(std::string_view name) const;

  /// Moves to the next row.
  /// @returns false if there are no more rows
  /// @throws Error(kInvalidFile), naming path and line, if a row has a stray or missing quote or
  ///         another number of fields than the header
  bool next();

  /// @param column in [0, number of columns), as column() returns it
  /// @returns a field of the current row, without its quotes
  /// @throws Error(kInvalidArgument) if there is no such column
  const std::string& field(std::size_t column) const;

  /// @returns a field of the current row as an integer in [min, max]
  /// @throws Error(kInvalidFile) if it is anything else
  std::int64_t integer(std::size_t column, std::int64_t min, std::int64_t max) const;

  /// @returns "PATH:LINE", where LINE is the first line of the current row, counted from 1
  std::string place() const;

 private:
  void read_row();
  void read_quoted_field(std::string& field);

  std::string_view text_, path_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1, row_line_ = 1;  // of at_, and where the current row begins
  std::vector<std::string> header_, fields_;
};

}  // namespace c2r
