// The error message for a name that no enumerator has.
#include "c2r/core/enum_names.h"

#include <fmt/format.h>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {

void refuse_name(std::string_view subject, std::span<const std::string_view> names,
                 std::string_view name) {
  C2R_THROW(kInvalidArgument, "{} {} or {}; not '{}'", subject,
            fmt::join(names.first(names.size() - 1), ", "), names.back(), shown(name));
}

}  // namespace c2r
