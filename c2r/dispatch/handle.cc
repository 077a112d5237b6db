// The order of a handle: rows are written, each leg is exchanged when the one before has arrived,
// and what has come is read.
#include <utility>

#include "c2r/core/error.h"
#include "c2r/dispatch/handle_internal.h"

namespace c2r {

void StartQueue::advance() {
  while (!waiting_.empty() && waiting_.front()->start_next_leg(false)) waiting_.pop_front();
}

void StartQueue::start_first() {
  waiting_.front()->start_next_leg(true);
  waiting_.pop_front();
}

std::vector<RowPlan> DispatcherState::make_plans(MatrixView<const ExpertId> topk_idx,
                                                 MatrixView<const float> topk_weights,
                                                 std::int64_t first_token, std::int32_t num_chunks,
                                                 const std::string& label) {
  while (!shared->queue.empty())
    shared->queue.start_first();  // what was asked for before comes before
  return make_row_plans(transport, table, topk_idx, topk_weights, first_token, num_chunks, label);
}

void DispatcherState::add_sent_rows(std::span<const std::int64_t> before) {
  const std::vector<std::int64_t>& now = transport.sent().num_bytes;
  for (std::size_t r = 0; r < now.size(); ++r) shared->sent_row_bytes[r] += now[r] - before[r];
}

HandleState::HandleState(DispatcherState& dispatcher, RowPlan plan, ElementType type,
                         std::string label)
    : dispatcher_(dispatcher),
      plan_(std::move(plan)),
      label_(std::move(label)),
      moving_(dispatcher.shared->mover.prepare(plan_, type)) {}

HandleState::~HandleState() {
  dispatcher_.shared->queue.remove(this);
}

void HandleState::check_rows(std::int64_t has, std::int64_t needs, const char* what) const {
  C2R_REQUIRE(has == needs, kInvalidArgument, "{}: {} has {} rows, but {} are needed", label_, what,
              has, needs);
}

void HandleState::begin(Phase phase, std::int64_t hidden) {
  C2R_REQUIRE(phase_ == Phase::kIdle, kInvalidArgument,
              "{}: a dispatch or combine was started, but the one before is not finished", label_);
  phase_ = phase;
  hidden_ = hidden;
  has_own_ = false;
  num_started_ = 0;
  moving_->begin(way(), hidden);
}

// The rows of the first leg are in place.
void HandleState::start_legs() {
  for (std::size_t leg = 0; leg < num_legs(); ++leg) dispatcher_.shared->queue.push(this);
  dispatcher_.shared->queue.advance();
}

void HandleState::end() {
  for (auto& leg : legs_) leg.reset();
  if (!(phase_ == Phase::kDispatch && keeps_received_)) moving_->end(way());
  phase_ = Phase::kIdle;
}

void HandleState::end_received() {
  if (std::exchange(keeps_received_, false)) moving_->end(RowWay::kDispatch);
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
  check_rows(num_rows, plan_.num_rows(), "rows");
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
    if (phase_ == Phase::kDispatch) moving_->forward_relayed();
    if (phase_ == Phase::kCombine) moving_->sum_relayed();
  }
  // There, rows go between nodes first; back, within the node first.
  start_exchange(has_relays() && (phase_ == Phase::kDispatch) == (num_started_ == 0));
  ++num_started_;
  return true;
}

void HandleState::start_exchange(bool is_between_nodes) {
  const RoutingTable& table = dispatcher_.table;
  const char* const what = phase_ == Phase::kDispatch ? "dispatch" : "combine";
  const char* const leg = !has_relays() ? "" : is_between_nodes ? " between nodes" : " in the node";
  const std::vector<std::int64_t> before = dispatcher_.transport.sent().num_bytes;
  legs_[num_started_] = moving_->exchange(way(), is_between_nodes ? table.relays : table.group,
                                          fmt::format("{} {}{}", label_, what, leg));
  dispatcher_.add_sent_rows(before);
}

void HandleState::start_dispatch(MatrixView<const float> x) {
  check_rows(x.rows(), plan_.num_tokens, "x");
  end_received();
  begin(Phase::kDispatch, x.cols());
  moving_->gather(x);
  start_legs();
}

void HandleState::dispatch_own(MatrixView<float> rows) {
  take_own(Phase::kDispatch, rows.rows(), rows.cols());
  moving_->spread(RowPart::kOwn, rows);
}

GatheredRows HandleState::dispatch_own() {
  take_own(Phase::kDispatch, plan_.num_rows(), hidden_);
  return moving_->received();
}

GatheredRows HandleState::finish_dispatch() {
  wait_for(Phase::kDispatch, hidden_);
  keeps_received_ = true;
  end();
  return moving_->received();
}

void HandleState::finish_dispatch(MatrixView<float> rows) {
  check_rows(rows.rows(), plan_.num_rows(), "rows");
  wait_for(Phase::kDispatch, rows.cols());
  moving_->spread(RowPart::kOthers, rows);
  end();
}

void HandleState::start_combine(MatrixView<const float> rows, const RowScale& scale) {
  check_rows(rows.rows(), plan_.num_rows(), "rows");
  if (scale) check_rows(std::ssize(*scale), plan_.num_rows(), "row_scale");
  begin(Phase::kCombine, rows.cols());
  scale_ = scale;
  moving_->reduce(RowPart::kOthers, rows, scale_);
  start_legs();
}

void HandleState::combine_own(MatrixView<const float> rows) {
  take_own(Phase::kCombine, rows.rows(), rows.cols());
  moving_->reduce(RowPart::kOwn, rows, scale_);
}

void HandleState::finish_combine(MatrixView<float> sum) {
  check_rows(sum.rows(), plan_.num_tokens, "sum");
  wait_for(Phase::kCombine, sum.cols());
  moving_->add_returns(!scale_.has_value(), sum);
  end();
  end_received();
}

std::unique_ptr<HandleState> HandleState::of_choices() const {
  return std::make_unique<HandleState>(dispatcher_, choice_plan(plan_), ElementType::kF32,
                                       label_ + " choices");
}

void HandleState::weigh_gradients(const RowGradients& rows) const {
  check_rows(rows.outputs.rows(), plan_.num_rows(), "outputs");
  check_rows(rows.gradients.rows(), plan_.num_rows(), "gradients");
  check_rows(std::ssize(rows.weights), plan_.num_rows(), "weights");
  check_rows(std::ssize(rows.products), plan_.num_rows(), "products");
  C2R_REQUIRE(rows.outputs.cols() == rows.gradients.cols() && 0 <= rows.first &&
                  rows.first <= rows.end && rows.end <= plan_.num_rows(),
              kInvalidArgument,
              "{}: rows {} to {} are weighed, outputs of {} values and gradients of {}", label_,
              rows.first, rows.end, rows.outputs.cols(), rows.gradients.cols());
  dispatcher_.shared->mover.weigh_gradients(rows);
}

// The weights of this rank's tokens where they stayed at home.
Matrix<float> HandleState::home_weights() const {
  Matrix<float> weights(plan_.num_tokens * plan_.top_k, 1);
  for (std::size_t i = 0; i < plan_.return_weight.size(); ++i) {
    const auto sent = std::size_t(plan_.return_row[i]);
    weights(plan_.send_choice[sent], 0) = plan_.return_weight[i];
  }
  return weights;
}

std::vector<float> HandleState::row_weights() const {
  if (!plan_.row_weight.empty()) return plan_.row_weight;
  if (dispatcher_.table.options.traffic.copy_mode != CopyMode::kPerExpert) return {};
  const auto choices = of_choices();
  Matrix<float> weights(plan_.num_rows(), 1);
  choices->start_dispatch(home_weights());
  choices->dispatch_own(weights);
  choices->finish_dispatch(weights);
  return {weights.all().begin(), weights.all().end()};
}

}  // namespace c2r
