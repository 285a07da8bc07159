#include "client/cpp/cluster/cluster_sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr absl::StatusCode kBehind[] = {absl::StatusCode::kOutOfRange, absl::StatusCode::kNotFound};

v1::ShardCall DescribeCall(const std::string& id) {
  v1::ShardCall call;
  call.mutable_describe()->set_session_id(id);
  return call;
}

v1::ShardCall RenewCall(const std::string& id) {
  v1::ShardCall call;
  call.mutable_renew_lease()->set_session_id(id);
  return call;
}

v1::ShardCall CloseCall(const std::string& id) {
  v1::ShardCall call;
  call.mutable_close()->set_session_id(id);
  return call;
}

absl::Status NoSuchSession(const std::string& session_id) {
  return absl::NotFoundError(absl::StrCat("session_id: no session ", session_id));
}

}  // namespace

ShardTarget ClusterSessions::ManifestTarget(const std::string& session_id,
                                            v1::ShardCall call) const {
  const auto slots = static_cast<uint32_t>(core_.directory.map()->slots.size());
  return {.slot = SlotOfManifest(session_id, slots), .call = std::move(call)};
}

ShardTarget ClusterSessions::Target(const SessionInfo& info, const ShardId& shard,
                                    v1::ShardCall call) const {
  const auto slots = static_cast<uint32_t>(core_.directory.map()->slots.size());
  return {.slot = SlotOfShard(info.placement_key, shard, slots), .call = std::move(call)};
}

absl::StatusOr<SessionDescription> ClusterSessions::ReadManifest(const std::string& session_id,
                                                                 absl::Time deadline) {
  if (session_id.empty() || session_id.find(kShardSeparator) != std::string::npos) {
    return NoSuchSession(session_id);
  }
  // How many replicas the session has is not known yet.
  const ShardTarget target = ManifestTarget(session_id, DescribeCall(session_id));
  const std::vector<ReplicaAnswers> answers = CallReplicas(
      core_, {&target, 1}, kReplicasMax, Audience::kLiveReplicas, /*prefix_hashes=*/"", deadline);
  return Furthest(answers.front());
}

absl::StatusOr<std::shared_ptr<const SessionInfo>> ClusterSessions::Resolve(
    const std::string& session_id, absl::Time deadline) {
  if (auto known = core_.cache.Find(session_id, absl::Now()); known != nullptr) return known;
  absl::StatusOr<SessionDescription> manifest = ReadManifest(session_id, deadline);
  if (absl::IsNotFound(manifest.status())) {
    // A session of one replica may be on the one that is away.
    const auto map = core_.directory.map();
    const ShardTarget target = ManifestTarget(session_id, {});
    if (!session_id.empty() && RouteOf(*map, target.slot, 1).readers.empty()) {
      return absl::UnavailableError(
          absl::StrCat("session_id: the node that may know ", session_id, " is not there"));
    }
    return NoSuchSession(session_id);
  }
  ATTIC_RETURN_IF_ERROR(manifest.status());
  ATTIC_ASSIGN_OR_RETURN(SessionInfo info, SessionInfoOf(*manifest));
  auto shared = std::make_shared<const SessionInfo>(std::move(info));
  core_.cache.Put(shared, absl::Now());
  return shared;
}

absl::StatusOr<std::vector<ShardDescription>> ClusterSessions::DescribeShards(
    const SessionInfo& info, std::span<const uint32_t> layers, absl::Time deadline) {
  std::vector<ShardDescription> described;
  std::vector<uint32_t> growing(layers.begin(), layers.end());  // may have further blocks
  for (uint32_t block = 0; !growing.empty(); ++block) {
    std::vector<ShardId> shards;
    std::vector<ShardTarget> targets;
    for (const uint32_t layer : growing) {
      for (const ShardId& shard : ShardsOfLayer(info, layer, block)) {
        shards.push_back(shard);
        targets.push_back(
            Target(info, shard, DescribeCall(ShardSessionId(info.session_id, shard))));
      }
    }
    const std::vector<ReplicaAnswers> answers =
        CallReplicas(core_, targets, info.replication.replicas, Audience::kLiveReplicas,
                     /*prefix_hashes=*/"", deadline);
    if (info.replication.shard_tokens == 0) growing.clear();
    for (size_t i = 0; i < shards.size(); ++i) {
      absl::StatusOr<SessionDescription> one = Furthest(answers[i]);
      if (block > 0 && absl::IsNotFound(one.status())) {
        std::erase(growing, shards[i].layer);
        continue;
      }
      ATTIC_RETURN_IF_ERROR(one.status());
      described.push_back({.shard = shards[i], .description = *std::move(one)});
    }
    for (const uint32_t layer : growing) {
      core_.cache.NoteBlocksOpened(info.session_id, layer, block + 1);
    }
  }
  return described;
}

absl::StatusOr<std::vector<ShardId>> ClusterSessions::AllShards(const SessionInfo& info,
                                                                absl::Time deadline) {
  std::vector<ShardId> shards;
  if (info.replication.shard_tokens == 0) {
    for (const uint32_t layer : info.layers) {
      for (const ShardId& shard : ShardsOfLayer(info, layer, 0)) shards.push_back(shard);
    }
    return shards;
  }
  auto described = DescribeShards(info, info.layers, deadline);
  ATTIC_RETURN_IF_ERROR(described.status());
  for (const ShardDescription& shard : *described) shards.push_back(shard.shard);
  return shards;
}

void ClusterSessions::NoteWatermarks(const SessionDescription& description) {
  const absl::Time now = absl::Now();
  for (const LayerDescription& layer : description.layers) {
    core_.cache.NoteSeen(description.session_id, layer.layer, layer.watermark, now);
  }
}

absl::StatusOr<SessionDescription> ClusterSessions::Describe(const std::string& session_id,
                                                             absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription manifest, ReadManifest(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(const SessionInfo info, SessionInfoOf(manifest));
  core_.cache.Put(std::make_shared<const SessionInfo>(info), absl::Now());
  ATTIC_ASSIGN_OR_RETURN(const auto shards, DescribeShards(info, info.layers, deadline));
  SessionDescription merged = MergeDescriptions(info, manifest, shards);
  NoteWatermarks(merged);
  return merged;
}

absl::StatusOr<int64_t> ClusterSessions::LookUpWatermark(const SessionInfo& info, uint32_t layer,
                                                         absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto shards, DescribeShards(info, {&layer, 1}, deadline));
  const SessionDescription merged = MergeDescriptions(info, {}, shards);
  for (const LayerDescription& one : merged.layers) {
    if (one.layer != layer) continue;
    core_.cache.NoteSeen(info.session_id, layer, one.watermark, absl::Now());
    return one.watermark;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("layer: ", layer, " is not among the session's stored layers"));
}

absl::StatusOr<SessionDescription> ClusterSessions::OnAll(
    const SessionInfo& info, std::span<const ShardId> shards, const MakeCall& manifest_call,
    const MakeCall& shard_call, const std::string& prefix_hashes, absl::Time deadline) {
  std::vector<ShardTarget> targets = {
      ManifestTarget(info.session_id, manifest_call(info.session_id))};
  for (const ShardId& shard : shards) {
    targets.push_back(Target(info, shard, shard_call(ShardSessionId(info.session_id, shard))));
  }
  const std::vector<ReplicaAnswers> answers = CallReplicas(
      core_, targets, info.replication.replicas, Audience::kEveryReplica, prefix_hashes, deadline);
  for (const ReplicaAnswers& replicas : answers) {
    const absl::Status status = AllWell(replicas, kBehind);
    if (absl::IsNotFound(status)) core_.cache.Drop(info.session_id);
    ATTIC_RETURN_IF_ERROR(status);
  }
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription manifest, Furthest(answers.front()));
  std::vector<ShardDescription> described;
  for (size_t i = 0; i < shards.size(); ++i) {
    ATTIC_ASSIGN_OR_RETURN(SessionDescription one, Furthest(answers[i + 1]));
    described.push_back({.shard = shards[i], .description = std::move(one)});
  }
  return MergeDescriptions(info, manifest, described);
}

absl::StatusOr<SessionDescription> ClusterSessions::Truncate(const std::string& session_id,
                                                             int64_t position,
                                                             absl::Time deadline) {
  if (position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(const auto shards, DescribeShards(*info, info->layers, deadline));
  const SessionDescription before = MergeDescriptions(*info, {}, shards);
  int64_t highest = 0;
  for (const ShardDescription& shard : shards) {
    const int64_t begin = shard.shard.block * info->replication.shard_tokens;
    highest = std::max(highest, begin + shard.description.watermark);
  }
  if (position > highest) {
    return absl::OutOfRangeError(
        absl::StrCat("position: ", position, " is beyond the watermark ", highest));
  }
  core_.cache.NoteTruncated(session_id, position);
  const int64_t shard_tokens = info->replication.shard_tokens;
  std::vector<ShardTarget> targets = {ManifestTarget(session_id, RenewCall(session_id))};
  for (const ShardDescription& shard : shards) {
    const int64_t begin = shard.shard.block * shard_tokens;
    if (shard_tokens > 0 && begin + shard_tokens <= position) continue;
    const std::string id = ShardSessionId(session_id, shard.shard);
    v1::ShardCall call;
    if (shard.shard.block > 0 && begin >= position) {
      call = CloseCall(id);
    } else {
      call.mutable_truncate()->set_session_id(id);
      // A head that has not come so far still withdraws the hashes of what lies behind.
      call.mutable_truncate()->set_position(
          std::min(position - begin, shard.description.watermark));
    }
    targets.push_back(Target(*info, shard.shard, std::move(call)));
  }
  const std::vector<ReplicaAnswers> answers =
      CallReplicas(core_, targets, info->replication.replicas, Audience::kEveryReplica,
                   /*prefix_hashes=*/"", deadline);
  for (size_t i = 0; i < answers.size(); ++i) {
    const absl::Status status = AllWell(answers[i], kBehind);
    if (targets[i].call.has_close() && absl::IsNotFound(status)) continue;
    ATTIC_RETURN_IF_ERROR(status);
  }
  return Describe(session_id, deadline);
}

absl::StatusOr<SessionDescription> ClusterSessions::Flush(const std::string& session_id,
                                                          absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(const auto shards, AllShards(*info, deadline));
  const MakeCall flush = [](const std::string& id) {
    v1::ShardCall call;
    call.mutable_flush()->set_session_id(id);
    return call;
  };
  return OnAll(*info, shards, flush, flush, /*prefix_hashes=*/"", deadline);
}

absl::StatusOr<SessionDescription> ClusterSessions::ExtendPrefix(const std::string& session_id,
                                                                 uint32_t first_block,
                                                                 std::span<const PrefixHash> hashes,
                                                                 absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  if (info->replication.shard_tokens > 0) return Describe(session_id, deadline);
  ATTIC_ASSIGN_OR_RETURN(const auto shards, AllShards(*info, deadline));
  const MakeCall extend = [&](const std::string& id) {
    v1::ShardCall call;
    call.mutable_extend_prefix()->set_session_id(id);
    call.mutable_extend_prefix()->set_first_block(first_block);
    return call;
  };
  return OnAll(*info, shards, RenewCall, extend, wire::ToWire(hashes), deadline);
}

absl::Status ClusterSessions::RenewManifest(const SessionInfo& info, absl::Time deadline) {
  return OnAll(info, {}, RenewCall, RenewCall, /*prefix_hashes=*/"", deadline).status();
}

absl::Status ClusterSessions::RenewShards(const SessionInfo& info, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto shards, AllShards(info, deadline));
  return OnAll(info, shards, RenewCall, RenewCall, /*prefix_hashes=*/"", deadline).status();
}

absl::StatusOr<SessionDescription> ClusterSessions::RenewLease(const std::string& session_id,
                                                               absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(const auto shards, AllShards(*info, deadline));
  return OnAll(*info, shards, RenewCall, RenewCall, /*prefix_hashes=*/"", deadline);
}

absl::StatusOr<SessionDescription> ClusterSessions::Pin(const std::string& session_id, bool pinned,
                                                        absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(const auto shards, AllShards(*info, deadline));
  const MakeCall pin = [&](const std::string& id) {
    v1::ShardCall call;
    call.mutable_pin()->set_session_id(id);
    call.mutable_pin()->set_pinned(pinned);
    return call;
  };
  auto pinned_info = std::make_shared<SessionInfo>(*info);
  pinned_info->pinned = pinned;
  core_.cache.Put(std::move(pinned_info), absl::Now());
  return OnAll(*info, shards, pin, pin, /*prefix_hashes=*/"", deadline);
}

// Shards first: as long as some are left the manifest says how to find them.
absl::Status ClusterSessions::Close(const std::string& session_id, absl::Time deadline) {
  // Not from memory: it may be another session of the same id by now.
  core_.cache.Drop(session_id);
  ATTIC_ASSIGN_OR_RETURN(const auto info, Resolve(session_id, deadline));
  absl::StatusOr<std::vector<ShardId>> shards = AllShards(*info, deadline);
  if (absl::IsNotFound(shards.status())) shards = std::vector<ShardId>();
  ATTIC_RETURN_IF_ERROR(shards.status());
  std::vector<ShardTarget> targets;
  for (const uint32_t layer : info->layers) {
    for (const ShardId& shard : ShardsOfLayer(*info, layer, 0)) {
      if (std::find(shards->begin(), shards->end(), shard) == shards->end()) {
        shards->push_back(shard);
      }
    }
  }
  for (const ShardId& shard : *shards) {
    targets.push_back(Target(*info, shard, CloseCall(ShardSessionId(session_id, shard))));
  }
  core_.cache.Drop(session_id);
  for (const ReplicaAnswers& answers :
       CallReplicas(core_, targets, info->replication.replicas, Audience::kEveryReplica,
                    /*prefix_hashes=*/"", deadline)) {
    const absl::Status status = AllWell(answers, kBehind);
    if (!absl::IsNotFound(status)) ATTIC_RETURN_IF_ERROR(status);
  }
  const ShardTarget manifest = ManifestTarget(session_id, CloseCall(session_id));
  const absl::Status closed =
      AllWell(CallReplicas(core_, {&manifest, 1}, info->replication.replicas,
                           Audience::kEveryReplica, /*prefix_hashes=*/"", deadline)
                  .front(),
              kBehind);
  // It was there a moment ago: a call whose answer was lost closed it.
  return absl::IsNotFound(closed) ? absl::OkStatus() : closed;
}

void ClusterSessions::CloseQuietly(const SessionInfo& info) {
  Close(info.session_id, core_.CallDeadline()).IgnoreError();
}

}  // namespace attic
