#include "server/cluster/repair/repair_pass.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/cluster/repair/pass_state.h"

namespace attic {
namespace {

ShardRepairOptions WithClock(ShardRepairOptions shard, const RepairOptions& options) {
  if (shard.clock == nullptr) shard.clock = options.clock;
  return shard;
}

}  // namespace

RepairPass::RepairPass(std::string node_id, ShardHolder& holder, ShardChanges& changes,
                       ShardPeerFactory make_peer, RepairOptions options)
    : node_id_(std::move(node_id)),
      holder_(holder),
      changes_(changes),
      make_peer_(std::move(make_peer)),
      options_(std::move(options)),
      throttle_(options_.bytes_per_second, options_.clock, options_.wait_until),
      repair_(holder_, changes_, throttle_, counts_, WithClock(options_.shard, options_)),
      // The thread that runs a pass works too.
      workers_(options_.parallel_pulls > 1
                   ? std::make_unique<ThreadPool>(options_.parallel_pulls - 1,
                                                  ThreadPool::Placement::kAnywhere,
                                                  ThreadPool::Priority::kBackground)
                   : nullptr) {
  ATTIC_CHECK(options_.clock != nullptr && options_.wait_until != nullptr);
  ATTIC_CHECK(options_.parallel_pulls > 0 && options_.shards_per_pass > 0);
}

RepairPass::~RepairPass() = default;

void RepairPass::Spread(size_t count, const std::function<void(size_t)>& body) {
  if (workers_ != nullptr) return workers_->ParallelFor(count, body);
  for (size_t i = 0; i < count; ++i) body(i);
}

// Sets `expected` unless the map does not speak of this process, or expects nothing of it.
void RepairPass::FindSelf(Pass& pass) {
  const int64_t index = pass.map.FindNode(node_id_);
  pass.away = true;
  if (index < 0) return;
  pass.self = static_cast<uint32_t>(index);
  const ClusterNode& node = pass.map.nodes[pass.self];
  const bool other_process =
      !node.boot_id.empty() && !options_.boot_id.empty() && node.boot_id != options_.boot_id;
  pass.expected = !other_process && node.state != NodeState::kDown;
  pass.away = other_process || node.state != NodeState::kLive;
}

absl::Status RepairPass::ListOwn(Pass& pass) {
  ATTIC_ASSIGN_OR_RETURN(std::vector<HeldShard> shards, holder_.List());
  pass.own.clear();
  for (HeldShard& shard : shards) {
    std::string id = shard.session_id;
    pass.own.emplace(std::move(id), std::move(shard));
  }
  return absl::OkStatus();
}

// Remembers what was held before a stretch of time in which others know better.
void RepairPass::NoteAbsence(Pass& pass) {
  if (pass.away && (!away_ || !pass.expected || pass.request.was_down)) {
    before_.clear();
    verified_.clear();
    doubts_.clear();
    for (const auto& [id, shard] : pass.own) before_.insert(id);
    away_since_ = pass.now;
  }
  std::set<uint32_t> incoming;
  for (uint32_t slot = 0; slot < pass.map.slots.size() && pass.expected; ++slot) {
    const auto& nodes = pass.map.slots[slot].incoming;
    if (std::find(nodes.begin(), nodes.end(), pass.self) != nodes.end()) incoming.insert(slot);
  }
  for (const auto& [id, shard] : pass.own) {
    if (!incoming.contains(shard.slot) || incoming_.contains(shard.slot)) continue;
    before_.insert(id);
    verified_.erase(id);
  }
  if (!pass.away && incoming.empty()) before_.clear();
  away_ = pass.away;
  incoming_ = std::move(incoming);
}

void RepairPass::FindRoles(Pass& pass) {
  for (uint32_t slot = 0; slot < pass.map.slots.size(); ++slot) {
    SlotRole role = RoleIn(pass.map, slot, pass.self);
    if (role.filled()) pass.roles.emplace(slot, std::move(role));
  }
  for (const auto& [id, shard] : pass.own) {
    if (shard.slot >= pass.map.slots.size()) continue;
    if (!pass.roles.contains(shard.slot)) {
      pass.roles.emplace(shard.slot, RoleIn(pass.map, shard.slot, pass.self));
    }
  }
}

PassResult RepairPass::Run(const PassRequest& request) {
  Pass pass{.request = request, .map = *request.map, .now = options_.clock()};
  FindSelf(pass);
  absl::Status status = ListOwn(pass);
  if (status.ok()) NoteAbsence(pass);
  if (status.ok() && pass.expected) {
    FindRoles(pass);
    AskPeers(pass);
    // Behind the peers': what both were sent since is here.
    status = ListOwn(pass);
    if (status.ok()) status = AwaitAppends(pass);
    pass.now = options_.clock();
  }
  if (!status.ok()) {
    MutexLock lock(mutex_);
    last_error_ = std::string(status.message());
    return {.again_at = pass.now + options_.retry_pause};
  }
  if (!pass.expected) {
    MutexLock lock(mutex_);
    synced_ = false;
    return {};
  }
  Forget(pass);
  FindTasks(pass);
  RunTasks(pass);
  return Finish(pass);
}

PassResult RepairPass::Finish(Pass& pass) {
  const bool await_down = pass.away && pass.now < away_since_ + options_.await_down;
  PassResult result;
  SyncReport report{.epoch = pass.map.epoch, .node_synced = true};
  for (const auto& [slot, role] : pass.roles) {
    if (!role.filled()) continue;
    bool finished = !pass.unfinished.contains(slot);
    if (Awaits(role, pass.inventories, await_down)) {
      finished = false;
      pass.LookAgain(options_.clock() + options_.retry_pause);
    }
    if (!finished) {
      pass.unfinished.insert(slot);
      if (!role.incoming) report.node_synced = false;
    } else if (role.incoming) {
      report.slots.push_back(slot);
    }
  }
  if (!pass.abandoned) {
    if (pass.unfinished.empty()) complete_epoch_ = pass.map.epoch;
    result.report = report;
  }
  result.gaps_left = std::move(pass.gaps_left);
  result.again_at = std::min(pass.again_at, pass.now + options_.interval);
  MutexLock lock(mutex_);
  synced_ = report.node_synced && !pass.abandoned;
  shards_left_ = pass.tasks_left;
  last_error_ = pass.error;
  return result;
}

// What is no more.
void RepairPass::Forget(const Pass& pass) {
  std::erase_if(doubts_,
                [&](const auto& item) { return item.second.seen + options_.interval < pass.now; });
  std::erase_if(failures_, [&](const auto& item) {
    return item.second.retry_at + options_.interval < pass.now;
  });
  const auto gone = [&](const std::string& id) { return !pass.own.contains(id); };
  std::erase_if(verified_, gone);
  std::erase_if(seen_at_owners_, gone);
  std::erase_if(peers_, [&](const auto& item) { return pass.map.FindNode(item.first) < 0; });
}

bool RepairPass::Settled(const Pass& pass, const std::string& doubt) const {
  const auto found = doubts_.find(doubt);
  return found != doubts_.end() && pass.now >= found->second.since + options_.settle;
}

void RepairPass::NoteDoubt(Pass& pass, const std::string& doubt, int64_t watermark) {
  const auto noted =
      doubts_.try_emplace(doubt, Doubt{.since = pass.now, .watermark = watermark}).first;
  noted->second.seen = pass.now;
  // One that is old enough and still there waits for something else.
  if (!Settled(pass, doubt)) pass.LookAgain(noted->second.since + options_.settle);
}

bool RepairPass::HeldBack(Pass& pass, const std::string& key) const {
  const auto failure = failures_.find(key);
  if (failure == failures_.end() || failure->second.retry_at <= pass.now) return false;
  pass.LookAgain(failure->second.retry_at);
  return true;
}

void RepairPass::NoteFailure(Pass& pass, const std::string& key, const absl::Status& status) {
  const auto [failure, first] = failures_.try_emplace(key);
  failure->second.pause =
      first ? options_.retry_pause : std::min(2 * failure->second.pause, options_.retry_pause_max);
  failure->second.retry_at = options_.clock() + failure->second.pause;
  pass.LookAgain(failure->second.retry_at);
  pass.error = std::string(status.message());
}

RepairProgress RepairPass::progress() const {
  MutexLock lock(mutex_);
  return {.node_synced = synced_,
          .shards_left = shards_left_,
          .bytes_pulled = counts_.bytes,
          .shards_pulled = counts_.shards,
          .shards_dropped = counts_.dropped,
          .failures = counts_.failed,
          .last_error = last_error_};
}

}  // namespace attic
