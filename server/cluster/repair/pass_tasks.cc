#include <algorithm>
#include <utility>

#include "server/cluster/repair/pass_state.h"
#include "server/cluster/repair/repair_pass.h"

namespace attic {
namespace {

// Names of doubts and failures: a shard may have one of each kind.
std::string CloseDoubt(const std::string& id) { return "close " + id; }
std::string SurplusDoubt(const std::string& id) { return "surplus " + id; }
std::string ConflictDoubt(const std::string& id) { return "conflict " + id; }
std::string ShardFailure(const std::string& id) { return "shard " + id; }

}  // namespace

void RepairPass::FindTasks(Pass& pass) {
  std::map<uint32_t, std::set<std::string>> ids;
  for (const auto& [id, shard] : pass.own) ids[shard.slot].insert(id);
  for (const auto& [node, shards] : pass.inventories) {
    for (const auto& [id, shard] : shards) ids[shard.slot].insert(id);
  }
  for (const auto& [slot, shards] : ids) {
    const auto role = pass.roles.find(slot);
    if (role == pass.roles.end()) continue;
    for (const std::string& id : shards) FindTask(pass, role->second, slot, id);
  }
}

void RepairPass::FindTask(Pass& pass, const SlotRole& role, uint32_t slot, const std::string& id) {
  Task task{.slot = slot, .session_id = id, .role = role};
  const auto own = pass.own.find(id);
  if (own != pass.own.end()) {
    // Of a shard in another slot than its peers say, this is not the slot.
    if (own->second.slot != slot) return;
    task.own = own->second;
  }
  const bool away = pass.Fills(role);
  const Closable closable{.by_replica = away && before_.contains(id),
                          .by_others = seen_at_owners_.contains(id)};
  task.decision = Decide(id, role, task.own, pass.inventories, closable, pass.map.replicas_default);
  if (task.decision.action != ShardAction::kClose) doubts_.erase(CloseDoubt(id));
  switch (task.decision.action) {
    case ShardAction::kNone:
      return;
    case ShardAction::kFill: {
      const bool surplus = away && NoteSurplus(pass, task);
      if (!surplus && !NeedsFill(pass, task)) return;
      break;
    }
    case ShardAction::kClose: {
      pass.unfinished.insert(slot);
      const bool settled = Settled(pass, CloseDoubt(id));
      NoteDoubt(pass, CloseDoubt(id), task.own->watermark);
      if (!settled) {
        ++pass.tasks_left;
        pass.Leave(id);
        return;
      }
      break;
    }
    case ShardAction::kDrop:
      seen_at_owners_.insert(id);
      break;
  }
  ++pass.tasks_left;
  const bool held_back = HeldBack(pass, ShardFailure(id));
  const bool full = pass.tasks.size() >= options_.shards_per_pass;
  if (held_back || full) {
    if (task.decision.action != ShardAction::kDrop) pass.unfinished.insert(slot);
    pass.Leave(id);
    pass.lacked = pass.lacked || away;
    if (!held_back) pass.LookAgain(pass.now);
    return;
  }
  for (const auto& source : task.decision.sources) {
    std::shared_ptr<ShardPeer> peer = PeerOf(pass.map, source.node);
    task.fill.sources.push_back({peer, source.rank, source.state == NodeState::kLive});
    task.owners.push_back(std::move(peer));
  }
  task.fill = FillOf(pass, task);
  pass.tasks.push_back(std::move(task));
}

bool RepairPass::NoteSurplus(Pass& pass, const Task& task) {
  const std::string doubt = SurplusDoubt(task.session_id);
  const int64_t held = task.decision.sources_watermark;
  const auto noted = doubts_.find(doubt);
  // What was beyond the sources then, they have got since.
  if (noted != doubts_.end() && noted->second.watermark <= held) doubts_.erase(noted);
  const bool live_truth = task.decision.sources[0].state == NodeState::kLive;
  if (!task.own.has_value() || task.own->watermark <= held) return false;
  if (!live_truth) return false;
  // A replica that did not answer may hold them.
  const bool settled = Settled(pass, doubt) && task.decision.all_known;
  NoteDoubt(pass, doubt, task.own->watermark);
  return settled;
}

bool RepairPass::NeedsFill(const Pass& pass, const Task& task) const {
  const std::string& id = task.session_id;
  if (pass.request.gaps.contains(id)) return true;
  const bool away = pass.Fills(task.role);
  // A live node lacks what a caller or a lease closed here a moment earlier than there, or what
  // could not be opened here; whoever misses it reports a gap. After a change of the map it may
  // have got another rank.
  if (!task.own.has_value()) return away || complete_epoch_ < pass.map.epoch;
  if (task.own->watermark < task.decision.sources_watermark) return true;
  if (away) return !verified_.contains(id);
  return doubts_.contains(ConflictDoubt(id));
}

ShardFill RepairPass::FillOf(const Pass& pass, const Task& task) const {
  const std::string& id = task.session_id;
  ShardFill fill = task.fill;
  fill.held = task.own.has_value();
  if (fill.held) {
    fill.shard = *task.own;
  } else if (!task.decision.sources.empty()) {
    const auto inventory = pass.inventories.find(task.decision.sources[0].node);
    if (inventory != pass.inventories.end() && inventory->second.contains(id)) {
      fill.shard = inventory->second.at(id);
    }
  }
  fill.own_rank = task.role.rank;
  fill.away = pass.Fills(task.role);
  fill.settle_conflicts = Settled(pass, ConflictDoubt(id));
  const auto surplus = doubts_.find(SurplusDoubt(id));
  if (surplus != doubts_.end()) {
    fill.surplus_end = surplus->second.watermark;
    fill.cut_surplus = task.decision.all_known && Settled(pass, SurplusDoubt(id));
  }
  return fill;
}

void RepairPass::RunTask(const Pass& pass, Task& task) {
  if (pass.request.abandoned()) {
    task.skipped = true;
    return;
  }
  switch (task.decision.action) {
    case ShardAction::kFill:
      task.outcome = repair_.Fill(task.fill);
      break;
    case ShardAction::kClose:
      task.outcome.status = repair_.Close(*task.own, task.owners);
      break;
    case ShardAction::kDrop:
      task.outcome.status = repair_.Drop(*task.own, task.owners);
      break;
    case ShardAction::kNone:
      break;
  }
}

void RepairPass::RunTasks(Pass& pass) {
  if (!pass.only_gaps) {
    MutexLock lock(mutex_);
    shards_left_ = pass.tasks_left;
  }
  Spread(pass.tasks.size(), [&](size_t i) {
    RunTask(pass, pass.tasks[i]);
    if (pass.only_gaps) return;
    MutexLock lock(mutex_);
    if (!pass.tasks[i].skipped && pass.tasks[i].outcome.status.ok()) --shards_left_;
  });
  for (const Task& task : pass.tasks) Conclude(pass, task);
}

void RepairPass::Conclude(Pass& pass, const Task& task) {
  const std::string& id = task.session_id;
  if (task.skipped) {
    pass.Leave(id);
    pass.abandoned = true;
    return;
  }
  const absl::Status& status = task.outcome.status;
  if (!status.ok()) pass.Leave(id);
  if (status.ok()) {
    --pass.tasks_left;
    failures_.erase(ShardFailure(id));
  } else {
    const std::string error = pass.error;
    NoteFailure(pass, ShardFailure(id), status);
    // Its owners will hold as much some time.
    if (task.decision.action == ShardAction::kDrop && absl::IsFailedPrecondition(status)) {
      pass.error = error;
    } else {
      ++counts_.failed;
    }
  }
  if (task.decision.action == ShardAction::kFill) {
    ConcludeFill(pass, task);
  } else if (status.ok()) {
    before_.erase(id);
    seen_at_owners_.erase(id);
    verified_.erase(id);
    if (task.decision.action == ShardAction::kClose) pass.LookAgain(pass.now);
  }
}

void RepairPass::ConcludeFill(Pass& pass, const Task& task) {
  const std::string& id = task.session_id;
  if (task.fill.away && (task.outcome.pulled || !task.outcome.status.ok())) pass.lacked = true;
  if (task.outcome.imported && task.fill.away) before_.insert(id);
  if (task.outcome.conflict) NoteDoubt(pass, ConflictDoubt(id), 0);
  if (task.outcome.status.ok()) doubts_.erase(ConflictDoubt(id));
  if (!task.outcome.status.ok()) {
    pass.unfinished.insert(task.slot);
    verified_.erase(id);
    return;
  }
  if (task.outcome.surplus) {
    pass.unfinished.insert(task.slot);
    ++pass.tasks_left;
    return;
  }
  // A later pass is to find nothing new: not even a fork of what was not yet compared.
  if (verified_.insert(id).second || task.outcome.pulled) {
    pass.unfinished.insert(task.slot);
    pass.LookAgain(pass.now);
  }
}

}  // namespace attic
