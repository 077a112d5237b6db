#include <algorithm>
#include <utility>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/dispatch/handle_internal.h"

namespace c2r {
namespace {

constexpr EnumName<RowType> kRowTypes[] = {{RowType::kF32, "f32"}, {RowType::kBf16, "bf16"}};

}  // namespace

std::string_view name_of(RowType type) {
  return name_in(kRowTypes, type);
}

RowType parse_row_type(std::string_view name) {
  return parse_in(kRowTypes, "a row type is", name);
}

std::int64_t element_bytes(RowType type) {
  return type == RowType::kF32 ? 4 : 2;
}

void StartQueue::advance() {
  while (!waiting_.empty() && waiting_.front()->start_next_leg(false)) waiting_.pop_front();
}

void StartQueue::start_first() {
  waiting_.front()->start_next_leg(true);
  waiting_.pop_front();
}

std::vector<Routes> DispatcherState::make_routes(MatrixView<const ExpertId> topk_idx,
                                                 MatrixView<const float> topk_weights,
                                                 std::int64_t first_token, std::int32_t num_chunks,
                                                 const std::string& label) {
  while (!shared->queue.empty())
    shared->queue.start_first();  // what was asked for before comes before
  return c2r::make_routes(transport, table, topk_idx, topk_weights, first_token, num_chunks, label);
}

HandleState::HandleState(DispatcherState& dispatcher, Routes routes, std::string label)
    : dispatcher_(dispatcher), routes_(std::move(routes)), label_(std::move(label)) {}

HandleState::~HandleState() {
  dispatcher_.shared->queue.remove(this);
}

void HandleState::check_rows(std::int64_t has, std::int64_t needs, const char* what) const {
  C2R_REQUIRE(has == needs, kInvalidArgument, "{}: {} has {} rows, but {} are needed", label_, what,
              has, needs);
}

// The rows that travel there, or back.
std::int64_t HandleState::num_rows_of(const CopyList& list) const {
  return phase_ == Phase::kCombine && !returns_sums() ? std::ssize(list.slot) : list.num_copies();
}

// Where each copy's row lies. Own copies stay in f32, in the same place for both sides.
void HandleState::lay_out(std::int64_t hidden) {
  hidden_ = hidden;
  const RowType type = dispatcher_.table.options.row_type;
  std::int64_t num_out = 0, num_in = 0;
  const std::size_t me = index(self());
  for (std::size_t r = 0; r < routes_.out.size(); ++r) {
    if (r != me) num_out += num_rows_of(routes_.out[r]), num_in += num_rows_of(routes_.in[r]);
  }
  const std::int64_t row_bytes = hidden * element_bytes(type);
  out_ = dispatcher_.shared->buffers.take(num_out * row_bytes);
  in_ = dispatcher_.shared->buffers.take(num_in * row_bytes);
  own_ = dispatcher_.shared->buffers.take(num_rows_of(routes_.out[me]) * hidden *
                                          element_bytes(RowType::kF32));
  out_rows_.resize(routes_.out.size());
  in_rows_.resize(routes_.in.size());
  std::byte *out = out_.data.get(), *in = in_.data.get();
  for (std::size_t r = 0; r < routes_.out.size(); ++r) {
    if (r == me) {
      out_rows_[r] = in_rows_[r] = {own_.data.get(), RowType::kF32, hidden};
      continue;
    }
    out_rows_[r] = {out, type, hidden};
    in_rows_[r] = {in, type, hidden};
    out += num_rows_of(routes_.out[r]) * row_bytes;
    in += num_rows_of(routes_.in[r]) * row_bytes;
  }
  sum_.resize(std::size_t(hidden));
}

void HandleState::begin(Phase phase, std::int64_t hidden) {
  C2R_REQUIRE(phase_ == Phase::kIdle, kInvalidArgument,
              "{}: a dispatch or combine was started, but the one before is not finished", label_);
  phase_ = phase;
  has_own_ = false;
  lay_out(hidden);
  num_started_ = 0;
}

// The rows of the first leg are in place.
void HandleState::start_legs() {
  for (std::size_t leg = 0; leg < num_legs(); ++leg) dispatcher_.shared->queue.push(this);
  dispatcher_.shared->queue.advance();
}

void HandleState::end() {
  for (Buffer* buffer : {&out_, &in_, &own_}) dispatcher_.shared->buffers.give_back(*buffer);
  for (auto& leg : legs_) leg.reset();
  phase_ = Phase::kIdle;
}

void HandleState::wait() {
  if (phase_ == Phase::kIdle) return;
  while (num_started_ < num_legs()) dispatcher_.shared->queue.start_first();
  legs_[num_legs() - 1]->wait();
}

void HandleState::check_started(Phase phase, std::int64_t hidden) const {
  C2R_REQUIRE(phase_ == phase && hidden_ == hidden, kInvalidArgument,
              "{}: {} of rows of {} values is finished, but was not started", label_,
              phase == Phase::kDispatch ? "a dispatch" : "a combine", hidden);
}

void HandleState::take_own(Phase phase, std::int64_t num_rows, std::int64_t hidden) {
  check_rows(num_rows, routes_.num_rows(), "rows");
  check_started(phase, hidden);
  has_own_ = true;
}

void HandleState::wait_for(Phase phase, std::int64_t hidden) {
  check_started(phase, hidden);
  C2R_REQUIRE(has_own_, kInvalidArgument, "{}: what stays on this rank was forgotten", label_);
  wait();
}

bool HandleState::poll() {
  dispatcher_.shared->queue.advance();
  return phase_ == Phase::kIdle || (num_started_ == num_legs() && legs_[num_legs() - 1]->done());
}

bool HandleState::start_next_leg(bool may_wait) {
  if (num_started_ == 1) {
    if (may_wait) legs_[0]->wait();
    if (!may_wait && !legs_[0]->done()) return false;
    if (phase_ == Phase::kDispatch) forward_relayed();
    if (phase_ == Phase::kCombine) sum_relayed();
  }
  // There, rows go between nodes first; back, within the node first.
  start_exchange(has_relays() && (phase_ == Phase::kDispatch) == (num_started_ == 0));
  ++num_started_;
  return true;
}

void HandleState::start_exchange(bool is_between_nodes) {
  const bool is_dispatch = phase_ == Phase::kDispatch;
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (const RankId peer : is_between_nodes ? dispatcher_.table.relays : dispatcher_.table.group) {
    if (peer == self()) continue;
    const std::size_t r = index(peer);
    const auto part = [&](const WireRows& rows, const CopyList& list) {
      return std::span(rows.data, std::size_t(num_rows_of(list) * rows.row_bytes()));
    };
    const auto there = part(out_rows_[r], routes_.out[r]), back = part(in_rows_[r], routes_.in[r]);
    send.push_back({peer, is_dispatch ? there : back});
    recv.push_back({peer, is_dispatch ? back : there});
  }
  const char* const way = !has_relays() ? "" : is_between_nodes ? " between nodes" : " in the node";
  legs_[num_started_] = dispatcher_.transport.start(
      send, recv, fmt::format("{} {}{}", label_, is_dispatch ? "dispatch" : "combine", way));
}

void HandleState::start_dispatch(MatrixView<const float> x) {
  check_rows(x.rows(), routes_.num_tokens, "x");
  begin(Phase::kDispatch, x.cols());
  for (std::size_t r = 0; r < routes_.out.size(); ++r) {
    const auto& items = routes_.out[r].item;
    for (std::size_t idx = 0; idx < items.size(); ++idx) {
      if (items[idx] >= routes_.num_tokens) break;  // what is relayed comes last
      encode_row(x.row(items[idx]), out_rows_[r], std::int64_t(idx));
    }
  }
  start_legs();
}

// Copies what has come from other nodes to where it leaves for this node's ranks, as it is.
void HandleState::forward_relayed() {
  for (const RankId peer : dispatcher_.table.group) {
    const auto& items = routes_.out[index(peer)].item;
    const WireRows& to = out_rows_[index(peer)];
    for (std::size_t idx = 0; idx < items.size(); ++idx) {
      if (items[idx] < routes_.num_tokens) continue;
      const auto& source = routes_.relayed[std::size_t(items[idx] - routes_.num_tokens)];
      const WireRows& from = in_rows_[index(source.from)];
      decode_row(from, source.idx, sum_);
      encode_row(sum_, to, std::int64_t(idx));  // exact: it was rounded before
    }
  }
}

// Hands a rank's rows out to their experts.
void HandleState::decode_rows_from(RankId src, MatrixView<float> rows) {
  const CopyList& list = routes_.in[index(src)];
  const std::int32_t* row = routes_.row_of[index(src)].data();
  for (std::int64_t idx = 0; idx < list.num_copies(); ++idx) {
    for (int n = list.num_choices[std::size_t(idx)]; n > 0; --n) {
      decode_row(in_rows_[index(src)], idx, rows.row(*row++));
    }
  }
}

void HandleState::dispatch_own(MatrixView<float> rows) {
  take_own(Phase::kDispatch, rows.rows(), rows.cols());
  if (dispatcher_.table.is_own(self())) decode_rows_from(self(), rows);
}

void HandleState::finish_dispatch(MatrixView<float> rows) {
  check_rows(rows.rows(), routes_.num_rows(), "rows");
  wait_for(Phase::kDispatch, rows.cols());
  for (const RankId src : dispatcher_.table.group) {
    if (!dispatcher_.table.is_own(src)) decode_rows_from(src, rows);
  }
  end();
}

void HandleState::start_combine(MatrixView<const float> rows) {
  check_rows(rows.rows(), routes_.num_rows(), "rows");
  begin(Phase::kCombine, rows.cols());
  for (const RankId src : dispatcher_.table.group) {
    if (!dispatcher_.table.is_own(src)) encode_rows_for(src, rows);
  }
  start_legs();
}

void HandleState::combine_own(MatrixView<const float> rows) {
  take_own(Phase::kCombine, rows.rows(), rows.cols());
  if (dispatcher_.table.is_own(self())) encode_rows_for(self(), rows);
}

// What goes back to a rank.
void HandleState::encode_rows_for(RankId src, MatrixView<const float> rows) {
  if (returns_sums()) return sum_choices(src, rows);
  const auto& row_of = routes_.row_of[index(src)];
  for (std::size_t choice = 0; choice < row_of.size(); ++choice) {
    encode_row(rows.row(row_of[choice]), in_rows_[index(src)], std::int64_t(choice));
  }
}

// One row for each copy that came from `src`.
void HandleState::sum_choices(RankId src, MatrixView<const float> rows) {
  const CopyList& list = routes_.in[index(src)];
  const bool has_weights = !list.weight.empty();
  std::size_t choice = 0;
  for (std::int64_t idx = 0; idx < list.num_copies(); ++idx) {
    for (int n = 0; n < list.num_choices[std::size_t(idx)]; ++n, ++choice) {
      const auto row = rows.row(routes_.row_of[index(src)][choice]);
      const float weight = has_weights ? list.weight[choice] : 1;
      if (n == 0) scale_row(row, weight, sum_);
      if (n > 0) add_row(row, weight, sum_);
    }
    encode_row(sum_, in_rows_[index(src)], idx);
  }
}

// Adds up what this node's ranks have returned for the tokens of others.
void HandleState::sum_relayed() {
  for (std::size_t i = 0; i < routes_.relayed.size(); ++i) {
    std::ranges::fill(sum_, 0.0F);
    for (const auto& [from, idx, weight] :
         routes_.returns_of(routes_.num_tokens + std::int64_t(i))) {
      add_row(out_rows_[index(from)], idx, weight, sum_);
    }
    encode_row(sum_, in_rows_[index(routes_.relayed[i].from)], routes_.relayed[i].idx);
  }
}

void HandleState::finish_combine(MatrixView<float> sum) {
  check_rows(sum.rows(), routes_.num_tokens, "sum");
  wait_for(Phase::kCombine, sum.cols());
  for (std::int64_t t = 0; t < routes_.num_tokens; ++t) {
    for (const auto& [from, idx, weight] : routes_.returns_of(t)) {
      add_row(out_rows_[index(from)], idx, weight, sum.row(t));
    }
  }
  end();
}

Handle::Handle(std::unique_ptr<HandleState> state) : state_(std::move(state)) {}
Handle::Handle(Handle&&) noexcept = default;
Handle& Handle::operator=(Handle&&) noexcept = default;
Handle::~Handle() = default;

std::int64_t Handle::num_tokens() const {
  return state_->routes().num_tokens;
}
std::span<const std::int64_t> Handle::offsets() const {
  return state_->routes().offsets;
}
std::span<const std::int64_t> Handle::own_offsets() const {
  return state_->routes().own_offsets;
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
void Handle::finish_dispatch(MatrixView<float> rows) {
  state_->finish_dispatch(rows);
}
void Handle::start_combine(MatrixView<const float> rows) {
  state_->start_combine(rows);
}
void Handle::combine_own(MatrixView<const float> rows) {
  state_->combine_own(rows);
}
void Handle::finish_combine(MatrixView<float> sum) {
  state_->finish_combine(sum);
}

Dispatcher::Dispatcher(Transport& transport, const Placement& placement,
                       const DispatchOptions& options)
    : state_(std::make_unique<DispatcherState>(transport, placement, options,
                                               std::make_shared<SharedByLayers>())) {}
Dispatcher::Dispatcher(const Dispatcher& other_layer, const Placement& placement)
    : state_(std::make_unique<DispatcherState>(other_layer.state_->transport, placement,
                                               other_layer.state_->options,
                                               other_layer.state_->shared)) {}
Dispatcher::~Dispatcher() = default;

Handle Dispatcher::make_handle(MatrixView<const ExpertId> topk_idx,
                               MatrixView<const float> topk_weights, std::int64_t first_token,
                               std::string label) {
  auto routes = state_->make_routes(topk_idx, topk_weights, first_token, 1, label);
  return Handle(
      std::make_unique<HandleState>(*state_, std::move(routes.front()), std::move(label)));
}

std::vector<Handle> Dispatcher::make_handles(MatrixView<const ExpertId> topk_idx,
                                             MatrixView<const float> topk_weights,
                                             std::int64_t first_token, std::int32_t num_chunks,
                                             const std::string& label) {
  C2R_REQUIRE(num_chunks > 0, kInvalidArgument, "{}: num_chunks is {}, but must be positive", label,
              num_chunks);
  auto routes = state_->make_routes(topk_idx, topk_weights, first_token, num_chunks, label);
  std::vector<Handle> handles;
  for (std::size_t chunk = 0; chunk < routes.size(); ++chunk) {
    handles.emplace_back(std::make_unique<HandleState>(*state_, std::move(routes[chunk]),
                                                       fmt::format("{} chunk {}", label, chunk)));
  }
  return handles;
}

}  // namespace c2r
