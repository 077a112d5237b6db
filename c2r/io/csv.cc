// A hand-written reader of comma-separated values that walks over the text once.
#include "c2r/io/csv.h"

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"

namespace c2r {

CsvReader::CsvReader(std::string_view text, std::string_view path) : text_(text), path_(path) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  C2R_REQUIRE(!text_.empty(), kInvalidFile, "{}: is empty, but must begin with a header", path);
  read_row();
  header_ = fields_;
}

std::size_t CsvReader::column(std::string_view name) const {
  const auto found = std::ranges::find(header_, name);
  C2R_REQUIRE(found != header_.end(), kInvalidFile, "{}:1: the header has no column '{}'", path_,
              name);
  C2R_REQUIRE(std::find(std::next(found), header_.end(), name) == header_.end(), kInvalidFile,
              "{}:1: the header has the column '{}' twice", path_, name);
  return static_cast<std::size_t>(found - header_.begin());
}

bool CsvReader::next() {
  do {
    if (at_ == text_.size()) return false;
    read_row();
  } while (header_.size() > 1 && fields_.size() == 1 && fields_[0].empty());  // a blank line
  C2R_REQUIRE(fields_.size() == header_.size(), kInvalidFile,
              "{}: has {} fields, but the header has {}", place(), fields_.size(), header_.size());
  return true;
}

const std::string& CsvReader::field(std::size_t column) const {
  C2R_REQUIRE(column < fields_.size(), kInvalidArgument,
              "{}: column {} was asked for, but there are {}", place(), column, fields_.size());
  return fields_[column];
}

std::int64_t CsvReader::integer(std::size_t column, std::int64_t min, std::int64_t max) const {
  const std::string& text = field(column);
  const auto value = parse_integer(text);
  C2R_REQUIRE(value && min <= *value && *value <= max, kInvalidFile,
              "{}: {} is '{}', but must be an integer in [{}, {}]", place(), shown(header_[column]),
              shown(text), min, max);
  return *value;
}

std::string CsvReader::place() const {
  return fmt::format("{}:{}", path_, row_line_);
}

void CsvReader::read_row() {
  row_line_ = line_;
  fields_.clear();
  for (;;) {
    std::string& field = fields_.emplace_back();
    if (at_ < text_.size() && text_[at_] == '"') {
      read_quoted_field(field);
    } else {
      const std::size_t end = std::min(text_.find_first_of(",\"\r\n", at_), text_.size());
      field = text_.substr(at_, end - at_);
      at_ = end;
    }
    if (at_ == text_.size()) return;
    if (text_[at_] == ',') {
      ++at_;
      continue;
    }
    const bool is_crlf = text_.substr(at_, 2) == "\r\n";
    C2R_REQUIRE(is_crlf || text_[at_] == '\n', kInvalidFile, "{}:{}: field {} {}", path_, line_,
                fields_.size(),
                text_[at_] == '"'    ? "has a quote in its middle"
                : text_[at_] == '\r' ? "has a carriage return without a line feed"
                                     : "goes on after its closing quote");
    at_ += is_crlf ? 2 : 1;
    ++line_;
    return;
  }
}

void CsvReader::read_quoted_field(std::string& field) {
  const std::int64_t first_line = line_;
  ++at_;
  for (;;) {
    const std::size_t quote = text_.find('"', at_);
    C2R_REQUIRE(quote != std::string_view::npos, kInvalidFile,
                "{}:{}: the quote that opens field {} is never closed", path_, first_line,
                fields_.size());
    const auto part = text_.substr(at_, quote - at_);
    line_ += std::ranges::count(part, '\n');
    field += part;
    at_ = quote + 1;
    if (at_ == text_.size() || text_[at_] != '"') return;
    field += '"';
    ++at_;
  }
}

}  // namespace c2r
