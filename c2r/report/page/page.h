// A report as one HTML page that needs nothing else: no network, no other file.
#pragma once

#include <string>
#include <string_view>

#include "c2r/io/json.h"

namespace c2r {

/// @param report as report_data() makes it. Its texts may come from anybody: they are shown as
///        text.
/// @returns the page. It holds the report itself, in the element "report-data", and shows no number
///          that is not in it.
std::string report_page(const Json& report);

/// The page's style sheet and script.
std::string_view page_style();
std::string_view page_script();

}  // namespace c2r
