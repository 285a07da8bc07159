#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "api/shard.h"
#include "base/status_macros.h"
#include "server/cluster/repair/pass_state.h"
#include "server/cluster/repair/repair_pass.h"

namespace attic {

absl::Status RepairPass::DescribeGaps(Pass& pass) {
  pass.own.clear();
  for (const std::string& id : pass.request.gaps) {
    auto shard = holder_.Describe(id);
    if (absl::IsNotFound(shard.status())) continue;
    ATTIC_RETURN_IF_ERROR(shard.status());
    pass.own.emplace(id, *std::move(shard));
  }
  return absl::OkStatus();
}

void RepairPass::AskForGaps(Pass& pass) {
  const auto slots = static_cast<uint32_t>(pass.map.slots.size());
  std::map<uint32_t, std::vector<std::string>> asked;  // by node
  const auto ask = [&](uint32_t node, const std::string& id) {
    const bool there = node != pass.self && pass.map.nodes[node].state != NodeState::kDown;
    if (there) asked[node].push_back(id);
  };
  for (const std::string& id : pass.request.gaps) {
    const auto own = pass.own.find(id);
    if (own == pass.own.end() && ParseShardSessionId(id).has_value()) {
      // Its placement key, which nothing here says, tells the slot.
      for (uint32_t node = 0; node < pass.map.nodes.size(); ++node) ask(node, id);
      continue;
    }
    const uint32_t slot = own != pass.own.end() ? own->second.slot : SlotOfManifest(id, slots);
    if (slot >= slots) continue;
    for (const uint32_t node : pass.map.slots[slot].replicas) ask(node, id);
  }
  std::vector<Question> questions;
  for (auto& [node, ids] : asked) {
    if (HeldBack(pass, NodeFailure(pass.map.nodes[node].id))) {
      for (const std::string& id : ids) pass.Leave(id);
      continue;
    }
    questions.push_back({.node = node, .peer = PeerOf(pass.map, node), .shards = std::move(ids)});
  }
  AskAll(pass, questions);
}

void RepairPass::FindGapRoles(Pass& pass) {
  std::set<uint32_t> slots;
  for (const auto& [id, shard] : pass.own) slots.insert(shard.slot);
  for (const auto& [node, shards] : pass.inventories) {
    for (const auto& [id, shard] : shards) slots.insert(shard.slot);
  }
  for (const uint32_t slot : slots) {
    if (slot >= pass.map.slots.size()) continue;
    SlotRole role = RoleIn(pass.map, slot, pass.self);
    if (role.filled()) pass.roles.emplace(slot, std::move(role));
  }
}

GapResult RepairPass::RunGaps(const PassRequest& request) {
  Pass pass{.request = request, .map = *request.map, .now = options_.clock(), .only_gaps = true};
  FindSelf(pass);
  if (!pass.expected || request.gaps.empty()) return {};
  absl::Status status = DescribeGaps(pass);
  if (status.ok()) {
    AskForGaps(pass);
    // Behind the peers', as in Run.
    status = DescribeGaps(pass);
    pass.now = options_.clock();
  }
  if (!status.ok()) {
    MutexLock lock(mutex_);
    last_error_ = std::string(status.message());
    return {.left = request.gaps, .retry_at = pass.now + options_.retry_pause};
  }
  FindGapRoles(pass);
  FindTasks(pass);
  RunTasks(pass);
  if (!pass.error.empty()) {
    MutexLock lock(mutex_);
    last_error_ = pass.error;
  }
  return {.left = std::move(pass.gaps_left),
          .retry_at = std::min(pass.again_at, pass.now + options_.retry_pause_max),
          .lacked = pass.lacked};
}

}  // namespace attic
