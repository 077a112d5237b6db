// Writes the traffic of a backend: the headline with one part for each kernel, and totals.
#include "c2r/report/engine_traffic.h"

#include <fmt/format.h>

namespace c2r {
namespace {

// "-2.4 %", and "0.0 %" for what rounds to nothing.
std::string change_text(double today, double planned) {
  if (today <= 0) return "nothing is sent";
  const double percent = 100 * (planned / today - 1);
  return fmt::format("{:+.1f} %", percent).substr(-0.05 < percent && percent < 0.05 ? 1 : 0);
}

std::string kernel_text(const KernelTraffic& kernel, const std::optional<CopyFormat>& format) {
  std::string text = fmt::format("{}: ", kernel.kernel.title);
  if (kernel.today) {
    const double scale = format ? 1e-3 : 0.5;
    const CopyFormat unit{.hidden = 1, .dispatch_element_bytes = 1, .combine_element_bytes = 1};
    const double today = scale * kernel.today->bytes(format.value_or(unit));
    const double planned = scale * kernel.planned->bytes(format.value_or(unit));
    text += fmt::format("{:.{}f} -> {:.{}f} {} a token and layer, {}", today, format ? 1 : 3,
                        planned, format ? 1 : 3, format ? "kB" : "copies on the wire",
                        change_text(today, planned));
  }
  if (kernel.kernel.verdict.empty()) return text;
  return text + (kernel.today ? "; " : "") + std::string(kernel.kernel.verdict);
}

std::string totals_text(const EngineTraffic& traffic, const CopyFormat& format,
                        const std::optional<double>& tokens_per_second) {
  const KernelTraffic& first = traffic.kernels[0];
  if (!first.today) return "";
  const auto num_layers = static_cast<double>(traffic.num_layers);
  const double today = num_layers * first.today->bytes(format);
  const double planned = num_layers * first.planned->bytes(format);
  std::string text =
      fmt::format("{}: {:.2f} -> {:.2f} MB a token in its {} MoE layers", first.kernel.title,
                  today / 1e6, planned / 1e6, traffic.num_layers);
  if (tokens_per_second) {
    text += fmt::format("; at {} tokens a second {:.4g} -> {:.4g} GB/s on all links together",
                        *tokens_per_second, *tokens_per_second * today / 1e9,
                        *tokens_per_second * planned / 1e9);
  }
  return text + "\n";
}

Json copies_json(const WireCopies& copies, const std::optional<CopyFormat>& format) {
  Json json = {{"dispatch_copies_per_token", copies.dispatch},
               {"combine_copies_per_token", copies.combine}};
  if (format) json["bytes_per_token"] = copies.bytes(*format);
  return json;
}

}  // namespace

std::string engine_traffic_text(const EngineTraffic& traffic,
                                const std::optional<CopyFormat>& format,
                                const std::optional<double>& tokens_per_second) {
  std::string text = fmt::format("{}, ", traffic.use.engine->title);
  for (const KernelTraffic& kernel : traffic.kernels) {
    if (&kernel != &traffic.kernels[0]) text += "; ";
    text += kernel_text(kernel, format);
  }
  text += "\n";
  if (format) text += totals_text(traffic, *format, tokens_per_second);
  return text;
}

Json engine_traffic_json(const EngineTraffic& traffic, const std::optional<CopyFormat>& format) {
  Json kernels = Json::array();
  for (const KernelTraffic& of : traffic.kernels) {
    const ExchangeKernel& kernel = of.kernel;
    Json json = {{"kernel", kernel.title}, {"source", kernel.source}};
    if (!kernel.setting.empty()) json["setting"] = kernel.setting;
    if (kernel.mode) {
      json["copy_mode"] = name_of(*kernel.mode);
      json["combine_mode"] = name_of(kernel.combine_mode.value_or(*kernel.mode));
      json["today"] = copies_json(*of.today, format);
      json["planned"] = copies_json(*of.planned, format);
    }
    if (!kernel.verdict.empty()) json["verdict"] = kernel.verdict;
    kernels.push_back(std::move(json));
  }
  return {{"engine", traffic.use.engine->name},
          {"backend", traffic.use.backend->name},
          {"num_layers", traffic.num_layers},
          {"kernels", std::move(kernels)}};
}

}  // namespace c2r
