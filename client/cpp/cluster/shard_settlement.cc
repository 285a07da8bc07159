#include "client/cpp/cluster/shard_settlement.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "api/shard.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/replica_calls.h"
#include "client/cpp/cluster/shard_snapshots.h"

namespace attic {
namespace {

// How often replicas that lack something are given it.
constexpr int kRoundsMax = 4;

struct Gap {
  SnapshotShard shard;
  std::string holder;  // node ids
  std::string lacks;
};

class Settlement {
 public:
  Settlement(ClusterCore& core, const SessionInfo& info, std::span<const SnapshotShard> shards,
             absl::Time deadline)
      : core_(core), info_(info), shards_(shards), deadline_(deadline) {}

  absl::Status Run() {
    absl::Status copied;
    for (int round = 0;; ++round) {
      Look();
      const std::vector<Gap> gaps = Gaps();
      if (gaps.empty() || round == kRoundsMax || absl::Now() >= deadline_) break;
      for (const Gap& gap : gaps) {
        const absl::Status status =
            CopyShard(core_, info_, gap.shard, gap.holder, gap.lacks, deadline_);
        if (!status.ok()) copied = status;
      }
    }
    const absl::Status held = CheckHeld();
    return held.ok() || copied.ok() ? held : copied;
  }

 private:
  bool Holds(size_t i, const ReplicaAnswer& answer) const {
    return answer.answer.ok() && answer.answer->watermark >= shards_[i].positions;
  }

  void Look() {
    std::vector<ShardTarget> targets;
    for (const SnapshotShard& one : shards_) {
      v1::ShardCall call;
      call.mutable_describe()->set_session_id(ShardSessionId(info_.session_id, one.shard));
      targets.push_back(TargetOf(core_, info_, one.shard, std::move(call)));
    }
    answers_ = Call(targets);
    Cut();
  }

  // A node of a release that exports whole shards gave more than was asked for.
  void Cut() {
    std::vector<ShardTarget> targets;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const bool longer =
          std::any_of(answers_[i].begin(), answers_[i].end(), [&](const ReplicaAnswer& answer) {
            return answer.answer.ok() && answer.answer->watermark > shards_[i].positions;
          });
      if (!longer) continue;
      v1::ShardCall call;
      call.mutable_truncate()->set_session_id(ShardSessionId(info_.session_id, shards_[i].shard));
      call.mutable_truncate()->set_position(shards_[i].positions);
      targets.push_back(TargetOf(core_, info_, shards_[i].shard, std::move(call)));
    }
    if (!targets.empty()) Call(targets);
  }

  std::vector<ReplicaAnswers> Call(std::span<const ShardTarget> targets) {
    return CallReplicas(core_, targets, info_.replication.replicas, Audience::kEveryReplica,
                        /*prefix_hashes=*/"", std::min(deadline_, core_.CallDeadline()));
  }

  std::vector<Gap> Gaps() const {
    std::vector<Gap> gaps;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const auto holder =
          std::find_if(answers_[i].begin(), answers_[i].end(), [&](const ReplicaAnswer& answer) {
            return answer.live && !answer.incoming && Holds(i, answer);
          });
      if (holder == answers_[i].end()) continue;
      for (const ReplicaAnswer& answer : answers_[i]) {
        if (!answer.live || answer.incoming || !absl::IsNotFound(answer.answer.status())) continue;
        gaps.push_back({.shard = shards_[i], .holder = holder->node_id, .lacks = answer.node_id});
      }
    }
    return gaps;
  }

  absl::Status CheckHeld() const {
    const std::shared_ptr<const ClusterMap> map = core_.directory.map();
    for (size_t i = 0; i < shards_.size(); ++i) {
      const SlotRoute route = RouteOf(*map, PlacementOf(info_, shards_[i].shard, *map).slot,
                                      info_.replication.replicas);
      size_t holders = 0, lagging = 0;
      for (const ReplicaAnswer& answer : answers_[i]) {
        const bool replica =
            std::any_of(route.writers.begin(), route.writers.end(),
                        [&](uint32_t node) { return map->nodes[node].id == answer.node_id; });
        if (!replica) continue;
        if (Holds(i, answer)) ++holders;
        if (answer.not_filled) ++lagging;
      }
      const size_t needed = AcksNeeded(info_.replication.ack_policy, route, lagging);
      if (holders >= needed) continue;
      return absl::UnavailableError(absl::StrCat(ShardSessionId(info_.session_id, shards_[i].shard),
                                                 " is held by ", holders,
                                                 " replicas, the session's policy wants ", needed));
    }
    return absl::OkStatus();
  }

  ClusterCore& core_;
  const SessionInfo& info_;
  const std::span<const SnapshotShard> shards_;
  const absl::Time deadline_;
  std::vector<ReplicaAnswers> answers_;
};

}  // namespace

absl::Status SettleShards(ClusterCore& core, const SessionInfo& info,
                          std::span<const SnapshotShard> shards, absl::Time deadline) {
  return Settlement(core, info, shards, deadline).Run();
}

}  // namespace attic
