#include "client/cpp/cluster/cluster_attend.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/attend_parts.h"
#include "client/cpp/cluster/read_candidates.h"
#include "client/cpp/rpc.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr absl::Duration kWatermarkAge = absl::Milliseconds(100);
constexpr absl::Duration kHedgeMin = absl::Milliseconds(2);
// A node that does not answer for so long is taken for one that will not, whatever the allowance
// for hedges; the limits of four times its p95. The largest keeps an answer that needs two replicas
// asked, one of them on a host that is gone, within two seconds.
constexpr absl::Duration kPatienceMin = absl::Milliseconds(100);
constexpr absl::Duration kPatienceMax = absl::Seconds(1);
constexpr absl::Duration kPatienceUnknown = absl::Milliseconds(500);
constexpr absl::Duration kBackoffMin = absl::Milliseconds(5);
constexpr absl::Duration kBackoffMax = absl::Milliseconds(100);
// All replicas say so, so many times over: it is so.
constexpr int kRoundsForRefusal = 2;

// What another replica, or the same one later, may answer well.
bool MayPass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) || absl::IsUnknown(status);
}
// What no replica answers otherwise.
bool IsFinal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
}

struct Arrival {
  size_t flight = 0;
  absl::StatusOr<v1::AttendResponse> response;
};

// Where answers arrive; shared with the calls in progress, which may outlast the operation.
struct Inbox {
  Mutex mutex;
  CondVar came;
  std::deque<Arrival> arrivals ATTIC_GUARDED_BY(mutex);
};

// A part and what came of it. Parts of an item lie one behind the other.
struct PartState {
  size_t item = 0;
  std::shared_ptr<const SessionInfo> info;
  AttendPart part;
  uint32_t slot = 0;
  AttendAnswer answer;
  bool done = false;
  int in_flight = 0;            // messages that are waited for
  std::set<std::string> asked;  // nodes, in this round
  std::set<std::string> owing;  // nodes, in this round or before, that have not answered
  bool round_may_pass = false;  // some error of this round was no refusal
  int rounds = 0;
  absl::Time not_before = absl::InfinitePast();
  absl::Status trouble;
};

// A message on its way.
struct Flight {
  std::shared_ptr<PooledNode> node;
  uint64_t call = 0;
  std::vector<size_t> parts;
  absl::Time sent;
  absl::Time hedge_at;
  absl::Time patience_ends;
  std::string node_id;
  bool open = true;
  bool repeated = false;  // asked elsewhere too
  bool given_up = false;  // not waited for any more, though it would count if it came
};

class Operation {
 public:
  Operation(ClusterCore& core, ClusterSessions& sessions, std::span<const AttendItem> items,
            absl::Time deadline)
      : core_(core),
        sessions_(sessions),
        items_(items),
        deadline_(deadline),
        answers_(items.size()),
        ranges_(items.size()) {}
  ~Operation() {
    for (Flight& flight : flights_) Close(flight, NodeLoad::Outcome::kLate);
  }

  std::vector<AttendAnswer> Run() {
    for (size_t i = 0; i < items_.size(); ++i) {
      if (const absl::Status added = AddItem(i); !added.ok()) answers_[i].status = added;
    }
    while (left_ > 0 && absl::Now() < deadline_) {
      map_ = core_.directory.map();
      SendWaiting(absl::Now());
      Hedge(absl::Now());
      for (Arrival& arrival : WaitForArrivals()) Take(arrival);
    }
    for (PartState& part : parts_) {
      if (!part.done) FailItem(part.item, Late(part));
    }
    Merge();
    return std::move(answers_);
  }

 private:
  absl::Status AddItem(size_t index) {
    const AttendItem& item = items_[index];
    ATTIC_ASSIGN_OR_RETURN(const auto info, sessions_.Resolve(item.session_id, deadline_));
    ATTIC_RETURN_IF_ERROR(CheckAttend(*info, item));
    ATTIC_ASSIGN_OR_RETURN(ranges_[index], ResolveRange(core_, sessions_, *info, item, deadline_));
    const auto slots = static_cast<uint32_t>(core_.directory.map()->slots.size());
    for (AttendPart& part : SplitItem(*info, item, ranges_[index])) {
      PartState state{.item = index, .info = info};
      state.slot = SlotOfShard(info->placement_key, part.shard, slots);
      state.part = std::move(part);
      parts_.push_back(std::move(state));
      ++left_;
    }
    return absl::OkStatus();
  }

  absl::Status Late(const PartState& part) const {
    if (part.in_flight == 0 && absl::IsUnavailable(part.trouble)) return part.trouble;
    return absl::DeadlineExceededError(
        absl::StrCat("shard ", part.part.item.session_id, " was not answered for in time",
                     part.trouble.ok() ? "" : ": ", std::string(part.trouble.message())));
  }

  // Sends what nobody is asked for.
  void SendWaiting(absl::Time now) {
    std::map<uint32_t, std::vector<size_t>> by_node;
    std::map<uint32_t, size_t> planned;
    for (size_t p = 0; p < parts_.size(); ++p) {
      PartState& part = parts_[p];
      if (part.done || part.in_flight > 0 || now < part.not_before) continue;
      if (const auto node = Choose(part, planned, now); node.has_value()) {
        by_node[*node].push_back(p);
        ++planned[*node];
      } else {
        EndRound(part, now);
      }
    }
    for (const auto& [node, parts] : by_node) Send(node, parts, now);
  }

  std::optional<uint32_t> Choose(const PartState& part, const std::map<uint32_t, size_t>& planned,
                                 absl::Time now) {
    const SlotRoute route = RouteOf(*map_, part.slot, part.info->replication.replicas);
    return ChooseReader(core_, *map_, route.readers, part.asked, planned, now);
  }

  // All replicas were asked.
  void EndRound(PartState& part, absl::Time now) {
    const bool refused =
        !part.asked.empty() && part.owing.empty() && !part.round_may_pass && !part.trouble.ok();
    if (part.asked.empty()) {
      part.trouble = absl::UnavailableError(
          absl::StrCat("no live replica of shard ", part.part.item.session_id));
    }
    ++part.rounds;
    // Who owes an answer is not asked twice.
    part.asked = part.owing;
    part.round_may_pass = false;
    part.not_before =
        now + std::min(kBackoffMax, kBackoffMin * std::exp2(std::min(part.rounds, 8)));
    core_.directory.Refresh();
    if (!refused || part.rounds < kRoundsForRefusal) return;
    if (absl::IsNotFound(part.trouble)) core_.cache.Drop(part.info->session_id);
    FailItem(part.item, part.trouble);
  }

  void Send(uint32_t node, std::span<const size_t> parts, absl::Time now) {
    const size_t items_max = core_.options.limits.attend_items_max;
    for (size_t first = 0; first < parts.size(); first += items_max) {
      SendMessage(node, parts.subspan(first, std::min(items_max, parts.size() - first)), now);
    }
  }

  void SendMessage(uint32_t node, std::span<const size_t> parts, absl::Time now) {
    v1::AttendRequest request;
    request.set_layer(items_.front().layer);
    request.set_epoch(map_->epoch);
    if (deadline_ != absl::InfiniteFuture()) {
      // Of the time left the nodes get nine tenths; the rest is for the way there and back.
      request.set_budget_us(
          std::max<int64_t>(1, absl::ToInt64Microseconds((deadline_ - now) * 0.9)));
    }
    for (const size_t p : parts) {
      *request.add_items() = wire::ToWire(parts_[p].part.item);
      ++parts_[p].in_flight;
      parts_[p].asked.insert(map_->nodes[node].id);
      parts_[p].owing.insert(map_->nodes[node].id);
    }
    const size_t index = flights_.size();
    Flight& flight = flights_.emplace_back();
    flight.node = core_.Node(*map_, node);
    flight.parts.assign(parts.begin(), parts.end());
    flight.node_id = map_->nodes[node].id;
    flight.sent = now;
    const absl::Duration p95 = flight.node->load->P95();
    const bool known = p95 != absl::InfiniteDuration();
    flight.hedge_at = known ? now + std::max(kHedgeMin, p95) : absl::InfiniteFuture();
    flight.patience_ends =
        now + (known ? std::clamp(4 * p95, kPatienceMin, kPatienceMax) : kPatienceUnknown);
    core_.hedges.Earn();
    flight.node->load->Started(parts.size());
    // The call may be answered, and others be started, before this returns.
    flight.call = flight.node->link->Attend(
        std::move(request), [inbox = inbox_, index](absl::StatusOr<v1::AttendResponse> response) {
          MutexLock lock(inbox->mutex);
          inbox->arrivals.push_back({.flight = index, .response = std::move(response)});
          inbox->came.NotifyOne();
        });
  }

  // Asks others for what takes long, and gives up those that take too long.
  void Hedge(absl::Time now) {
    for (size_t f = 0; f < flights_.size(); ++f) {
      Flight& flight = flights_[f];
      if (!flight.open || flight.given_up) continue;
      const bool too_long = now >= flight.patience_ends;
      if (!flight.repeated && (too_long || now >= flight.hedge_at)) Repeat(flight, too_long, now);
      if (too_long) GiveUp(flight, now);
    }
  }

  void Repeat(Flight& flight, bool whatever_allowed, absl::Time now) {
    std::map<uint32_t, std::vector<size_t>> by_node;
    std::map<uint32_t, size_t> planned;
    for (const size_t p : flight.parts) {
      if (parts_[p].done || parts_[p].in_flight != 1) continue;
      const auto node = Choose(parts_[p], planned, now);
      if (!node.has_value()) continue;
      by_node[*node].push_back(p);
      ++planned[*node];
    }
    flight.hedge_at = absl::InfiniteFuture();
    if (by_node.empty() || (!whatever_allowed && !core_.hedges.Spend())) return;
    flight.repeated = true;
    for (const auto& [node, parts] : by_node) Send(node, parts, now);
  }

  // Its parts wait for others, or for a further round.
  void GiveUp(Flight& flight, absl::Time now) {
    flight.given_up = true;
    flight.node->load->Finished(0, now - flight.sent, NodeLoad::Outcome::kLate, now);
    for (const size_t p : flight.parts) {
      --parts_[p].in_flight;
      parts_[p].round_may_pass = true;
    }
  }

  absl::Time NextEvent() const {
    absl::Time next = deadline_;
    for (const Flight& flight : flights_) {
      if (!flight.open || flight.given_up) continue;
      if (!flight.repeated) next = std::min(next, flight.hedge_at);
      next = std::min(next, flight.patience_ends);
    }
    for (const PartState& part : parts_) {
      if (!part.done && part.in_flight == 0) next = std::min(next, part.not_before);
    }
    return next;
  }

  std::deque<Arrival> WaitForArrivals() {
    const absl::Time until = left_ == 0 ? absl::InfinitePast() : NextEvent();
    MutexLock lock(inbox_->mutex);
    while (inbox_->arrivals.empty() && absl::Now() < until) {
      inbox_->came.WaitFor(inbox_->mutex, WaitTime(until));
    }
    return std::exchange(inbox_->arrivals, {});
  }

  void Take(Arrival& arrival) {
    Flight& flight = flights_[arrival.flight];
    absl::Status failed = arrival.response.status();
    if (failed.ok()) {
      core_.directory.Saw(arrival.response->epoch());
      failed = wire::FromWire(arrival.response->error());
    }
    if (failed.ok() && static_cast<size_t>(arrival.response->items_size()) != flight.parts.size()) {
      failed = absl::InternalError("a node answered another number of items than it was asked");
    }
    bool well = failed.ok();
    for (size_t i = 0; i < flight.parts.size(); ++i) {
      PartState& part = parts_[flight.parts[i]];
      if (!flight.given_up) --part.in_flight;
      part.owing.erase(flight.node_id);
      if (part.done) continue;
      const absl::Status status =
          failed.ok() ? TakeAnswer(part, *arrival.response, static_cast<int>(i)) : failed;
      if (status.ok()) {
        part.done = true;
        --left_;
        continue;
      }
      well = false;
      part.trouble = status;
      part.round_may_pass |= MayPass(status);
      if (IsFinal(status)) FailItem(part.item, status);
    }
    if (MayPass(failed)) core_.directory.Refresh();
    Close(flight, well ? NodeLoad::Outcome::kAnswered : NodeLoad::Outcome::kFailed);
  }

  absl::Status TakeAnswer(PartState& part, const v1::AttendResponse& response, int index) {
    ATTIC_ASSIGN_OR_RETURN(AttendAnswer answer, wire::FromWire(response.items(index)));
    ATTIC_RETURN_IF_ERROR(answer.status);
    ATTIC_RETURN_IF_ERROR(CheckPartAnswer(*part.info, part.part, answer));
    answer.epoch = response.epoch();
    answer.boot_id = response.boot_id();
    part.answer = std::move(answer);
    return absl::OkStatus();
  }

  void FailItem(size_t item, const absl::Status& status) {
    if (answers_[item].status.ok()) answers_[item].status = status;
    for (PartState& part : parts_) {
      if (part.item != item || part.done) continue;
      part.done = true;
      --left_;
    }
  }

  void Close(Flight& flight, NodeLoad::Outcome outcome) {
    if (!flight.open) return;
    flight.open = false;
    const absl::Time now = absl::Now();
    absl::Duration took = now - flight.sent;
    // A network that was cut says nothing of how long the node takes; a node that has become slow
    // is given more time step by step.
    if (flight.given_up) took = std::min(took, 2 * (flight.patience_ends - flight.sent));
    flight.node->load->Finished(flight.parts.size(), took, outcome, now);
    if (outcome == NodeLoad::Outcome::kLate) flight.node->link->Abandon(flight.call);
  }

  void Merge() {
    for (size_t first = 0; first < parts_.size();) {
      const size_t item = parts_[first].item;
      std::vector<AttendPart> parts;
      std::vector<AttendAnswer> answers;
      size_t next = first;
      for (; next < parts_.size() && parts_[next].item == item; ++next) {
        parts.push_back(parts_[next].part);
        answers.push_back(std::move(parts_[next].answer));
      }
      if (answers_[item].status.ok()) {
        answers_[item] = MergeAnswers(*parts_[first].info, parts, answers, ranges_[item]);
      }
      first = next;
    }
  }

  ClusterCore& core_;
  ClusterSessions& sessions_;
  const std::span<const AttendItem> items_;
  const absl::Time deadline_;
  std::shared_ptr<const ClusterMap> map_;
  std::vector<AttendAnswer> answers_;
  std::vector<PositionRange> ranges_;  // by item
  std::vector<PartState> parts_;
  size_t left_ = 0;  // parts that are not done
  std::deque<Flight> flights_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
};

}  // namespace

absl::StatusOr<PositionRange> ResolveRange(ClusterCore& core, ClusterSessions& sessions,
                                           const SessionInfo& info, const AttendItem& item,
                                           absl::Time deadline) {
  const auto known = core.cache.Watermark(info.session_id, item.layer);
  int64_t watermark = known.has_value() ? known->watermark : 0;
  const bool enough = item.range.end <= std::max(watermark, item.min_watermark);
  const bool fresh =
      known.has_value() && (known->appended_here || absl::Now() - known->seen < kWatermarkAge);
  if (!enough && !fresh) {
    ATTIC_ASSIGN_OR_RETURN(watermark, sessions.LookUpWatermark(info, item.layer, deadline));
  }
  // Further blocks may not be there, and there may be any number of them.
  if (info.replication.shard_tokens > 0 && watermark < item.min_watermark) {
    ATTIC_ASSIGN_OR_RETURN(watermark, sessions.LookUpWatermark(info, item.layer, deadline));
    if (watermark < item.min_watermark) {
      return absl::FailedPreconditionError(absl::StrCat("min_watermark: ", item.min_watermark,
                                                        " asked for, the layer's watermark is ",
                                                        watermark));
    }
  }
  return ClampRange(item.range, std::max(watermark, item.min_watermark));
}

absl::StatusOr<std::vector<AttendAnswer>> ClusterAttend(ClusterCore& core,
                                                        ClusterSessions& sessions,
                                                        std::span<const AttendItem> items,
                                                        absl::Time deadline) {
  if (items.empty()) return absl::InvalidArgumentError("items: must not be empty");
  if (items.size() > core.options.limits.attend_items_max) {
    return absl::ResourceExhaustedError(absl::StrCat("items: ", items.size(),
                                                     " is over the limit attend_items_max of ",
                                                     core.options.limits.attend_items_max));
  }
  for (const AttendItem& item : items) {
    if (item.layer != items.front().layer) {
      return absl::InvalidArgumentError("layer: the items of one call must have the same layer");
    }
  }
  return Operation(core, sessions, items, deadline).Run();
}

}  // namespace attic
