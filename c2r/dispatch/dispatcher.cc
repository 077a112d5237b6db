// Implements the public classes of dispatch, Dispatcher and Handle, and parses row types.
#include <utility>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/dispatch/handle_internal.h"

namespace c2r {
namespace {

constexpr EnumName<ElementType> kRowTypes[] = {{ElementType::kF32, "f32"},
                                               {ElementType::kBf16, "bf16"}};

}  // namespace

ElementType parse_row_type(std::string_view name) {
  return parse_in(kRowTypes, "a row type is", name);
}

Handle::Handle(std::unique_ptr<HandleState> state) : state_(std::move(state)) {}
Handle::Handle(Handle&&) noexcept = default;
Handle& Handle::operator=(Handle&&) noexcept = default;
Handle::~Handle() = default;

std::int64_t Handle::num_tokens() const {
  return state_->plan().num_tokens;
}
std::span<const std::int64_t> Handle::offsets() const {
  return state_->plan().slot_offsets;
}
std::span<const std::int64_t> Handle::own_offsets() const {
  return state_->plan().own_slot_offsets;
}
void Handle::start_dispatch(MatrixView<const float> x) {
  state_->start_dispatch(x);
}
bool Handle::poll() {
  return state_->poll();
}
void Handle::wait() {
  state_->wait();
}
void Handle::dispatch_own(MatrixView<float> rows) {
  state_->dispatch_own(rows);
}
GatheredRows Handle::dispatch_own() {
  return state_->dispatch_own();
}
GatheredRows Handle::finish_dispatch() {
  return state_->finish_dispatch();
}
void Handle::finish_dispatch(MatrixView<float> rows) {
  state_->finish_dispatch(rows);
}
void Handle::start_combine(MatrixView<const float> rows) {
  state_->start_combine(rows, std::nullopt);
}
void Handle::start_combine(MatrixView<const float> rows, std::span<const float> row_scale) {
  state_->start_combine(rows, row_scale);
}
void Handle::combine_own(MatrixView<const float> rows) {
  state_->combine_own(rows);
}
void Handle::finish_combine(MatrixView<float> sum) {
  state_->finish_combine(sum);
}

Handle Handle::choices() const {
  return Handle(state_->of_choices());
}
std::vector<float> Handle::row_weights() const {
  return state_->row_weights();
}
void Handle::weigh_gradients(const RowGradients& rows) const {
  state_->weigh_gradients(rows);
}

Dispatcher::Dispatcher(Transport& transport, ThreadPool& pool, const Placement& placement,
                       const DispatchOptions& options)
    : state_(std::make_unique<DispatcherState>(
          transport, placement, options,
          std::make_shared<SharedByLayers>(std::make_unique<HostRowMover>(transport, pool)))) {}
Dispatcher::Dispatcher(Transport& transport, RowMover& mover, const Placement& placement,
                       const DispatchOptions& options)
    : state_(std::make_unique<DispatcherState>(transport, placement, options,
                                               std::make_shared<SharedByLayers>(mover))) {}
Dispatcher::Dispatcher(const Dispatcher& other_layer, const Placement& placement)
    : state_(std::make_unique<DispatcherState>(other_layer.state_->transport, placement,
                                               other_layer.state_->options,
                                               other_layer.state_->shared)) {}
Dispatcher::~Dispatcher() = default;

Handle Dispatcher::make_handle(MatrixView<const ExpertId> topk_idx,
                               MatrixView<const float> topk_weights, std::int64_t first_token,
                               std::string label) {
  auto plans = state_->make_plans(topk_idx, topk_weights, first_token, 1, label);
  return Handle(std::make_unique<HandleState>(*state_, std::move(plans.front()),
                                              state_->options.row_type, std::move(label)));
}

std::vector<Handle> Dispatcher::make_handles(MatrixView<const ExpertId> topk_idx,
                                             MatrixView<const float> topk_weights,
                                             std::int64_t first_token, std::int32_t num_chunks,
                                             const std::string& label) {
  C2R_REQUIRE(num_chunks > 0, kInvalidArgument, "{}: num_chunks is {}, but must be positive", label,
              num_chunks);
  auto plans = state_->make_plans(topk_idx, topk_weights, first_token, num_chunks, label);
  std::vector<Handle> handles;
  for (std::size_t chunk = 0; chunk < plans.size(); ++chunk) {
    handles.emplace_back(std::make_unique<HandleState>(*state_, std::move(plans[chunk]),
                                                       state_->options.row_type,
                                                       fmt::format("{} chunk {}", label, chunk)));
  }
  return handles;
}

std::span<const std::int64_t> Dispatcher::sent_row_bytes() const {
  return state_->shared->sent_row_bytes;
}

}  // namespace c2r
