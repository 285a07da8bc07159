// How sessions come into being: opened, cut into further blocks, forked.
#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/cluster_sessions.h"
#include "wire/convert.h"

namespace attic {
namespace {

// 128 random bits in hexadecimal digits: what nobody else chooses.
std::string NewSessionId() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::random_device device;
  std::string id;
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = device();
    for (int digit = 0; digit < 8; ++digit, bits >>= 4) id.push_back(kDigits[bits & 15]);
  }
  return id;
}

// What sessions of stores are checked for too, as far as routes depend on it.
absl::Status CheckOpen(const OpenSessionRequest& request, const Limits& limits) {
  if (request.session_id.find(kShardSeparator) != std::string::npos) {
    return absl::InvalidArgumentError("session_id: '#' is not allowed");
  }
  const Fingerprint& f = request.fingerprint;
  if (f.kv_heads == 0 || f.kv_heads > f.q_heads || f.q_heads % f.kv_heads != 0) {
    return absl::InvalidArgumentError("fingerprint.kv_heads: must divide q_heads");
  }
  if (f.q_heads > limits.q_heads_max) {
    return absl::ResourceExhaustedError(absl::StrCat("fingerprint.q_heads: ", f.q_heads,
                                                     " is over the limit q_heads_max of ",
                                                     limits.q_heads_max));
  }
  if (request.stored_layers.empty() || request.stored_layers.size() > limits.layers_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("stored_layers: not between 1 and layers_max = ", limits.layers_max));
  }
  if (request.replication.replicas > kReplicasMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("replication.replicas: not between 1 and ", kReplicasMax));
  }
  const int64_t shard_tokens = request.replication.shard_tokens;
  if (shard_tokens < 0 || shard_tokens % static_cast<int64_t>(kPrefixBlockTokens) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("replication.shard_tokens: no multiple of ", kPrefixBlockTokens));
  }
  return absl::OkStatus();
}

bool AllCreated(const ReplicaAnswers& answers) {
  return std::all_of(answers.begin(), answers.end(), [](const ReplicaAnswer& answer) {
    return answer.incoming || !answer.live || !answer.answer.ok() || answer.answer->created;
  });
}

bool AnyExists(const ReplicaAnswers& answers) {
  return std::any_of(answers.begin(), answers.end(), [](const ReplicaAnswer& answer) {
    return absl::IsAlreadyExists(answer.answer.status());
  });
}

}  // namespace

absl::StatusOr<SessionDescription> ClusterSessions::Open(const OpenSessionRequest& request,
                                                         absl::Time deadline) {
  OpenSessionRequest named = request;
  if (named.session_id.empty()) named.session_id = NewSessionId();
  if (named.replication.shard_tokens > 0) {
    named.prefix_hashes.clear();
    named.reuse_prefix = false;
  }
  ATTIC_RETURN_IF_ERROR(CheckOpen(named, core_.options.limits));
  for (int attempt = 0;; ++attempt) {
    bool exists = false;
    ATTIC_ASSIGN_OR_RETURN(const SessionInfo info, InfoForOpen(named, exists, deadline));
    absl::StatusOr<SessionDescription> opened = OpenAs(info, named, deadline);
    // Somebody else opened a session of this id meanwhile, with another key.
    const bool overtaken = absl::IsFailedPrecondition(opened.status()) && !exists &&
                           absl::StartsWith(opened.status().message(), "placement:");
    if (!overtaken || attempt > 0) return opened;
  }
}

absl::StatusOr<SessionInfo> ClusterSessions::InfoForOpen(const OpenSessionRequest& request,
                                                         bool& exists, absl::Time deadline) {
  absl::StatusOr<SessionDescription> manifest = ReadManifest(request.session_id, deadline);
  exists = manifest.ok();
  if (manifest.ok()) return SessionInfoOf(*manifest);
  if (!absl::IsNotFound(manifest.status())) return manifest.status();
  SessionInfo info{.session_id = request.session_id,
                   .fingerprint = request.fingerprint,
                   .layers = request.stored_layers,
                   .placement_key = PlacementKey(request.session_id, request.prefix_hashes),
                   .replication = request.replication,
                   .durability = request.durability,
                   .tenant = request.tenant,
                   .ttl_seconds = request.ttl_seconds,
                   .pinned = request.pinned};
  std::sort(info.layers.begin(), info.layers.end());
  if (info.replication.replicas == 0) {
    info.replication.replicas = core_.directory.map()->replicas_default;
  }
  return info;
}

absl::StatusOr<SessionDescription> ClusterSessions::OpenManifest(const SessionInfo& info,
                                                                 const OpenSessionRequest& request,
                                                                 absl::Time deadline) {
  OpenSessionRequest manifest = request;
  manifest.prefix_hashes.clear();
  manifest.reuse_prefix = false;
  ShardTarget target = ManifestTarget(info.session_id, {});
  manifest.placement = {.slot = target.slot,
                        .key = info.placement_key,
                        .replication = info.replication,
                        .kv_head = 0,
                        .block = 0};
  *target.call.mutable_open() = wire::ToWire(manifest);
  const ReplicaAnswers answers =
      CallReplicas(core_, {&target, 1}, info.replication.replicas, Audience::kEveryReplica,
                   /*prefix_hashes=*/"", deadline)
          .front();
  ATTIC_RETURN_IF_ERROR(AllWell(answers));
  ATTIC_ASSIGN_OR_RETURN(SessionDescription description, Furthest(answers));
  description.created = AllCreated(answers);
  return description;
}

absl::Status ClusterSessions::OpenEmpty(const SessionInfo& info, absl::Time deadline) {
  const OpenSessionRequest request{.session_id = info.session_id,
                                   .fingerprint = info.fingerprint,
                                   .stored_layers = info.layers,
                                   .durability = info.durability,
                                   .tenant = info.tenant,
                                   .ttl_seconds = info.ttl_seconds,
                                   .pinned = info.pinned,
                                   .replication = info.replication};
  ATTIC_RETURN_IF_ERROR(CheckOpen(request, core_.options.limits));
  const absl::Status taken =
      absl::AlreadyExistsError(absl::StrCat("session_id: ", info.session_id, " is taken"));
  const absl::Status there = ReadManifest(info.session_id, deadline).status();
  if (there.ok()) return taken;
  if (!absl::IsNotFound(there)) return there;
  const absl::StatusOr<SessionDescription> opened = OpenManifest(info, request, deadline);
  // Of another kind, or by somebody else meanwhile.
  if (absl::IsFailedPrecondition(opened.status()) || (opened.ok() && !opened->created)) {
    return taken;
  }
  if (!opened.ok()) CloseQuietly(info);
  core_.cache.Drop(info.session_id);
  return opened.status();
}

OpenSessionRequest ClusterSessions::ShardRequest(const SessionInfo& info,
                                                 const ShardId& shard) const {
  const auto slots = static_cast<uint32_t>(core_.directory.map()->slots.size());
  return {.session_id = ShardSessionId(info.session_id, shard),
          .fingerprint = ShardFingerprint(info.fingerprint),
          .stored_layers = {shard.layer},
          .durability = info.durability,
          .tenant = info.tenant,
          .ttl_seconds = info.ttl_seconds,
          .pinned = info.pinned,
          .placement = Placement{.slot = SlotOfShard(info.placement_key, shard, slots),
                                 .key = info.placement_key,
                                 .replication = info.replication,
                                 .kv_head = shard.kv_head,
                                 .block = shard.block}};
}

absl::StatusOr<SessionDescription> ClusterSessions::OpenAs(const SessionInfo& info,
                                                           const OpenSessionRequest& request,
                                                           absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription manifest, OpenManifest(info, request, deadline));
  // What the manifest says counts: an existing session may be more durable than asked for.
  ATTIC_ASSIGN_OR_RETURN(const SessionInfo held, SessionInfoOf(manifest));
  auto shards = OpenShards(held, request, manifest.created, deadline);
  if (!shards.ok()) {
    if (manifest.created) CloseQuietly(held);
    return shards.status();
  }
  core_.cache.Drop(held.session_id);
  core_.cache.Put(std::make_shared<const SessionInfo>(held), absl::Now());
  if (!manifest.created && held.replication.shard_tokens > 0) {
    return Describe(held.session_id, deadline);
  }
  SessionDescription merged = MergeDescriptions(held, manifest, *shards);
  merged.created = manifest.created && std::all_of(shards->begin(), shards->end(),
                                                   [](auto& s) { return s.description.created; });
  NoteWatermarks(merged);
  return merged;
}

absl::StatusOr<std::vector<ShardDescription>> ClusterSessions::OpenShards(
    const SessionInfo& info, const OpenSessionRequest& request, bool created, absl::Time deadline) {
  std::vector<ShardId> shards;
  std::vector<ShardTarget> targets;
  for (const uint32_t layer : info.layers) {
    for (const ShardId& shard : ShardsOfLayer(info, layer, 0)) {
      OpenSessionRequest one = ShardRequest(info, shard);
      one.reuse_prefix = request.reuse_prefix && created;
      v1::ShardCall call;
      *call.mutable_open() = wire::ToWire(one);
      shards.push_back(shard);
      targets.push_back(Target(info, shard, std::move(call)));
    }
  }
  std::vector<ReplicaAnswers> answers =
      CallReplicas(core_, targets, info.replication.replicas, Audience::kEveryReplica,
                   wire::ToWire(request.prefix_hashes), deadline);
  for (const ReplicaAnswers& replicas : answers) ATTIC_RETURN_IF_ERROR(AllWell(replicas));
  if (request.reuse_prefix && created) {
    ATTIC_RETURN_IF_ERROR(EvenPrefix(info, request, targets, shards, answers, deadline));
  }
  std::vector<ShardDescription> described;
  for (size_t i = 0; i < shards.size(); ++i) {
    ATTIC_ASSIGN_OR_RETURN(SessionDescription one, Furthest(answers[i]));
    one.created = AllCreated(answers[i]);
    described.push_back({.shard = shards[i], .description = std::move(one)});
  }
  return described;
}

absl::Status ClusterSessions::EvenPrefix(const SessionInfo& info, const OpenSessionRequest& request,
                                         std::span<const ShardTarget> targets,
                                         std::span<const ShardId> shards,
                                         std::vector<ReplicaAnswers>& answers,
                                         absl::Time deadline) {
  int64_t common = std::numeric_limits<int64_t>::max();
  int64_t most = 0;
  for (const ReplicaAnswers& replicas : answers) {
    for (const ReplicaAnswer& replica : replicas) {
      if (!replica.answer.ok()) continue;
      most = std::max(most, replica.answer->watermark);
      if (replica.live && !replica.incoming) common = std::min(common, replica.answer->watermark);
    }
  }
  if (common == most) return absl::OkStatus();
  // What is cut loses its hashes too, which are of tokens that come again.
  std::vector<ShardTarget> cuts, hashes;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string id = ShardSessionId(info.session_id, shards[i]);
    v1::ShardCall cut, extend;
    cut.mutable_truncate()->set_session_id(id);
    cut.mutable_truncate()->set_position(common);
    extend.mutable_extend_prefix()->set_session_id(id);
    extend.mutable_extend_prefix()->set_first_block(
        static_cast<uint32_t>(common / static_cast<int64_t>(kPrefixBlockTokens)));
    cuts.push_back({.slot = targets[i].slot, .call = std::move(cut)});
    hashes.push_back({.slot = targets[i].slot, .call = std::move(extend)});
  }
  const auto kept =
      std::span(request.prefix_hashes).subspan(static_cast<size_t>(common) / kPrefixBlockTokens);
  for (const bool cutting : {true, false}) {
    if (!cutting && kept.empty()) break;
    const std::vector<ReplicaAnswers> done =
        CallReplicas(core_, cutting ? cuts : hashes, info.replication.replicas,
                     Audience::kEveryReplica, cutting ? "" : wire::ToWire(kept), deadline);
    for (const ReplicaAnswers& replicas : done) ATTIC_RETURN_IF_ERROR(AllWell(replicas));
  }
  for (ReplicaAnswers& replicas : answers) {
    for (ReplicaAnswer& replica : replicas) {
      if (!replica.answer.ok()) continue;
      SessionDescription& cut = *replica.answer;
      cut.watermark = std::min(cut.watermark, common);
      cut.reused_tokens = std::min(cut.reused_tokens, common);
      for (LayerDescription& layer : cut.layers) {
        layer.watermark = std::min(layer.watermark, common);
        layer.indexed_tokens = std::min(layer.indexed_tokens, common);
        layer.durable_watermark = std::min(layer.durable_watermark, common);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ClusterSessions::EnsureBlock(const SessionInfo& info, uint32_t layer, uint32_t block,
                                          absl::Time deadline) {
  const uint32_t opened = core_.cache.BlocksOpened(info.session_id, layer);
  if (block < opened) return absl::OkStatus();
  std::vector<ShardTarget> targets;
  // Blocks in between are opened too, so that those there are have no gap.
  for (uint32_t b = opened; b <= block; ++b) {
    for (const ShardId& shard : ShardsOfLayer(info, layer, b)) {
      v1::ShardCall call;
      *call.mutable_open() = wire::ToWire(ShardRequest(info, shard));
      targets.push_back(Target(info, shard, std::move(call)));
    }
  }
  for (const ReplicaAnswers& replicas :
       CallReplicas(core_, targets, info.replication.replicas, Audience::kEveryReplica,
                    /*prefix_hashes=*/"", deadline)) {
    ATTIC_RETURN_IF_ERROR(AllWell(replicas));
  }
  core_.cache.NoteBlocksOpened(info.session_id, layer, block + 1);
  return absl::OkStatus();
}

absl::StatusOr<SessionDescription> ClusterSessions::Fork(const std::string& session_id,
                                                         const ForkOptions& options,
                                                         absl::Time deadline) {
  if (options.position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto source, Resolve(session_id, deadline));
  SessionInfo fork = *source;
  fork.session_id = options.new_session_id.empty() ? NewSessionId() : options.new_session_id;
  fork.durability = options.durability.value_or(source->durability);
  fork.pinned = false;
  const absl::Status there = ReadManifest(fork.session_id, deadline).status();
  if (there.ok()) {
    return absl::AlreadyExistsError(absl::StrCat("new_session_id: ", fork.session_id, " is taken"));
  }
  if (!absl::IsNotFound(there)) return there;
  const OpenSessionRequest request{.session_id = fork.session_id,
                                   .fingerprint = fork.fingerprint,
                                   .stored_layers = fork.layers,
                                   .durability = fork.durability,
                                   .tenant = fork.tenant,
                                   .ttl_seconds = fork.ttl_seconds};
  ATTIC_RETURN_IF_ERROR(CheckOpen(request, core_.options.limits));
  ATTIC_ASSIGN_OR_RETURN(SessionDescription manifest, OpenManifest(fork, request, deadline));
  auto shards = ForkShards(*source, fork, options.position, deadline);
  if (!shards.ok()) {
    if (absl::IsNotFound(shards.status())) core_.cache.Drop(session_id);
    CloseQuietly(fork);
    return shards.status();
  }
  core_.cache.Put(std::make_shared<const SessionInfo>(fork), absl::Now());
  for (const ShardDescription& shard : *shards) {
    core_.cache.NoteBlocksOpened(fork.session_id, shard.shard.layer, shard.shard.block + 1);
  }
  SessionDescription merged = MergeDescriptions(fork, manifest, *shards);
  merged.created = true;
  NoteWatermarks(merged);
  return merged;
}

absl::StatusOr<std::vector<ShardDescription>> ClusterSessions::ForkShards(const SessionInfo& source,
                                                                          const SessionInfo& fork,
                                                                          int64_t position,
                                                                          absl::Time deadline) {
  std::vector<ShardId> shards;
  std::vector<ShardTarget> targets;
  for (const BlockStretch& stretch :
       BlocksOf(source.replication.shard_tokens, {.begin = 0, .end = position})) {
    for (const uint32_t layer : source.layers) {
      for (const ShardId& shard : ShardsOfLayer(source, layer, stretch.block)) {
        v1::ShardCall call;
        v1::ForkRequest& one = *call.mutable_fork();
        one.set_session_id(ShardSessionId(source.session_id, shard));
        one.set_position(stretch.local().end);
        one.set_new_session_id(ShardSessionId(fork.session_id, shard));
        one.set_durability(wire::ToWire(fork.durability));
        shards.push_back(shard);
        targets.push_back(Target(source, shard, std::move(call)));
      }
    }
  }
  const auto call = [&](std::span<const ShardTarget> some) {
    return CallReplicas(core_, some, source.replication.replicas, Audience::kEveryReplica,
                        /*prefix_hashes=*/"", deadline);
  };
  std::vector<ReplicaAnswers> answers = call(targets);
  std::vector<ShardDescription> described;
  for (size_t i = 0; i < shards.size(); ++i) {
    // The id was free: what is there was left behind by somebody who failed, or by a try of this
    // call whose answer was lost.
    if (AnyExists(answers[i])) {
      const std::string id = ShardSessionId(fork.session_id, shards[i]);
      ShardTarget close{.slot = targets[i].slot, .call = {}};
      close.call.mutable_close()->set_session_id(id);
      call({&close, 1});
      answers[i] = call({&targets[i], 1}).front();
    }
    // A replica that lags behind is filled from another.
    constexpr absl::StatusCode kIgnored[] = {absl::StatusCode::kOutOfRange,
                                             absl::StatusCode::kNotFound};
    absl::Status status = AllWell(answers[i], kIgnored);
    if (absl::IsNotFound(status) && shards[i].block > 0) {
      status =
          absl::OutOfRangeError(absl::StrCat("position: ", position, " is beyond the watermark"));
    }
    ATTIC_RETURN_IF_ERROR(status);
    ATTIC_ASSIGN_OR_RETURN(SessionDescription one, Furthest(answers[i]));
    described.push_back({.shard = shards[i], .description = std::move(one)});
  }
  return described;
}

}  // namespace attic
