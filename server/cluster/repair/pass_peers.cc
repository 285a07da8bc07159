#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/cluster/repair/pass_state.h"
#include "server/cluster/repair/repair_pass.h"

namespace attic {

std::string NodeFailure(const std::string& node_id) { return "node " + node_id; }

namespace {

bool IsNodeFailure(const std::string& failure) { return failure.starts_with(NodeFailure("")); }

// How long appends that reached a peer may take to reach this node, before it is looked for them.
constexpr absl::Duration kAppendWait = absl::Milliseconds(20);
constexpr int kAppendWaits = 5;
// How long peers may take to know the map that this node knows.
constexpr absl::Duration kMapWait = absl::Milliseconds(100);
constexpr int kMapWaits = 5;

}  // namespace

std::shared_ptr<ShardPeer> RepairPass::PeerOf(const ClusterMap& map, uint32_t node) {
  const ClusterNode& described = map.nodes[node];
  auto& [address, peer] = peers_[described.id];
  if (peer == nullptr || address != described.address) {
    address = described.address;
    peer = make_peer_(described);
  }
  return peer;
}

absl::Status RepairPass::AskPeer(Pass& pass, const Question& question) {
  const absl::Time deadline = options_.clock() + options_.shard.call_timeout;
  const auto& [node, peer, slots, ids, status] = question;
  const uint64_t epoch = pass.map.epoch;
  ATTIC_ASSIGN_OR_RETURN(PeerInventory inventory, ids.empty()
                                                      ? peer->Inventory(slots, epoch, deadline)
                                                      : peer->Find(ids, epoch, deadline));
  // Another process holds other shards than the map says.
  const std::string& boot_id = pass.map.nodes[node].boot_id;
  if (!boot_id.empty() && !inventory.boot_id.empty() && boot_id != inventory.boot_id) {
    return absl::UnavailableError("was started again");
  }
  ShardsById shards;
  for (HeldShard& shard : inventory.shards) {
    const bool asked_for = ids.empty()
                               ? std::binary_search(slots.begin(), slots.end(), shard.slot)
                               : std::binary_search(ids.begin(), ids.end(), shard.session_id);
    if (!asked_for) continue;
    std::string id = shard.session_id;
    shards.emplace(std::move(id), std::move(shard));
  }
  MutexLock lock(mutex_);
  pass.inventories.emplace(node, std::move(shards));
  return absl::OkStatus();
}

void RepairPass::AskPeers(Pass& pass) {
  // Who did not answer by the last map may by this one, and is asked at once.
  if (asked_epoch_ < pass.map.epoch) {
    std::erase_if(failures_, [](const auto& item) { return IsNodeFailure(item.first); });
  }
  std::map<uint32_t, std::vector<uint32_t>> slots;
  for (const auto& [slot, role] : pass.roles) {
    for (const auto& other : role.replicas) {
      if (other.state != NodeState::kDown) slots[other.node].push_back(slot);
    }
  }
  std::vector<Question> questions;
  for (auto& [node, wanted] : slots) {
    if (HeldBack(pass, NodeFailure(pass.map.nodes[node].id))) continue;
    questions.push_back({.node = node, .peer = PeerOf(pass.map, node), .slots = std::move(wanted)});
  }
  AskAll(pass, questions);
  asked_epoch_ = pass.map.epoch;
}

void RepairPass::AskAll(Pass& pass, std::vector<Question>& questions) {
  std::vector<Question*> open;
  for (Question& question : questions) open.push_back(&question);
  const auto ask = [&] {
    Spread(open.size(), [&](size_t i) { open[i]->status = AskPeer(pass, *open[i]); });
    std::erase_if(open, [](const auto* one) { return !absl::IsUnavailable(one->status); });
  };
  ask();
  // By a new map peers are asked a moment before they know it, or have applied what came before.
  const int waits = asked_epoch_ < pass.map.epoch ? kMapWaits : 0;
  for (int i = 0; i < waits && !open.empty() && !pass.request.abandoned(); ++i) {
    if (!options_.wait_until(options_.clock() + kMapWait)) break;
    ask();
  }
  for (const Question& question : questions) {
    const std::string& id = pass.map.nodes[question.node].id;
    if (question.status.ok()) {
      failures_.erase(NodeFailure(id));
      continue;
    }
    for (const std::string& shard : question.shards) pass.Leave(shard);
    NoteFailure(
        pass, NodeFailure(id),
        absl::Status(question.status.code(), absl::StrCat("repair: node ", id, ": ",
                                                          std::string(question.status.message()))));
  }
}

absl::Status RepairPass::AwaitAppends(Pass& pass) {
  const auto lags = [&] {
    for (const auto& [node, shards] : pass.inventories) {
      for (const auto& [id, shard] : shards) {
        const auto own = pass.own.find(id);
        if (own != pass.own.end() && own->second.watermark < shard.watermark &&
            verified_.contains(id)) {
          return true;
        }
      }
    }
    return false;
  };
  for (int i = 0; i < kAppendWaits && lags(); ++i) {
    if (!options_.wait_until(options_.clock() + kAppendWait)) break;
    ATTIC_RETURN_IF_ERROR(ListOwn(pass));
  }
  return absl::OkStatus();
}

}  // namespace attic
