#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/cluster/repair/pass_state.h"
#include "server/cluster/repair/repair_pass.h"

namespace attic {
namespace {

// How long appends that reached a peer may take to reach this node, before it is looked for them.
constexpr absl::Duration kAppendWait = absl::Milliseconds(20);
constexpr int kAppendWaits = 5;

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

absl::Status RepairPass::AskPeer(Pass& pass, uint32_t node, ShardPeer& peer,
                                 const std::vector<uint32_t>& slots) {
  const absl::Time deadline = options_.clock() + options_.shard.call_timeout;
  ATTIC_ASSIGN_OR_RETURN(PeerInventory inventory, peer.Inventory(slots, pass.map.epoch, deadline));
  // Another process holds other shards than the map says.
  const std::string& boot_id = pass.map.nodes[node].boot_id;
  if (!boot_id.empty() && !inventory.boot_id.empty() && boot_id != inventory.boot_id) {
    return absl::UnavailableError("was started again");
  }
  ShardsById shards;
  for (HeldShard& shard : inventory.shards) {
    if (!std::binary_search(slots.begin(), slots.end(), shard.slot)) continue;
    std::string id = shard.session_id;
    shards.emplace(std::move(id), std::move(shard));
  }
  MutexLock lock(mutex_);
  pass.inventories.emplace(node, std::move(shards));
  return absl::OkStatus();
}

void RepairPass::AskPeers(Pass& pass) {
  struct Question {
    uint32_t node = 0;
    std::shared_ptr<ShardPeer> peer;
    std::vector<uint32_t> slots;  // in order
    absl::Status status;
  };
  std::map<uint32_t, std::vector<uint32_t>> slots;
  for (const auto& [slot, role] : pass.roles) {
    for (const auto& other : role.replicas) {
      if (other.state != NodeState::kDown) slots[other.node].push_back(slot);
    }
  }
  std::vector<Question> questions;
  for (auto& [node, wanted] : slots) {
    if (HeldBack(pass, "node " + pass.map.nodes[node].id)) continue;
    questions.push_back({.node = node, .peer = PeerOf(pass.map, node), .slots = std::move(wanted)});
  }
  Spread(questions.size(), [&](size_t i) {
    Question& question = questions[i];
    question.status = AskPeer(pass, question.node, *question.peer, question.slots);
  });
  for (const Question& question : questions) {
    const std::string& id = pass.map.nodes[question.node].id;
    if (question.status.ok()) {
      failures_.erase("node " + id);
    } else {
      NoteFailure(pass, "node " + id,
                  absl::Status(question.status.code(),
                               absl::StrCat("repair: node ", id, ": ",
                                            std::string(question.status.message()))));
    }
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
