#include "wire/convert.h"

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "wire/element_type.h"

namespace attic::wire {
namespace {

// In a request end = 0 stands for "up to the watermark".
constexpr int64_t kUpToWatermark = std::numeric_limits<int64_t>::max();

// None for the unspecified one.
absl::StatusOr<std::optional<Durability>> FromWire(v1::Durability durability) {
  switch (durability) {
    case v1::DURABILITY_UNSPECIFIED:
      return std::nullopt;
    case v1::DURABILITY_MEMORY:
      return Durability::kMemory;
    case v1::DURABILITY_DURABLE:
      return Durability::kDurable;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("durability: unknown durability ", static_cast<int>(durability)));
  }
}

}  // namespace

v1::ElementType ToWire(ElementType type) { return static_cast<v1::ElementType>(type); }

absl::StatusOr<ElementType> FromWire(v1::ElementType type, const char* field) {
  switch (type) {
    case v1::ELEMENT_TYPE_FLOAT32:
      return ElementType::kFloat32;
    case v1::ELEMENT_TYPE_BFLOAT16:
      return ElementType::kBFloat16;
    case v1::ELEMENT_TYPE_FLOAT16:
      return ElementType::kFloat16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": unknown element type ", static_cast<int>(type)));
  }
}

v1::Error ToWire(const absl::Status& status) {
  v1::Error error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(status.message()));
  return error;
}

absl::Status FromWire(const v1::Error& error) {
  const bool known = error.code() >= 0 && error.code() <= 16;
  const auto code =
      known ? static_cast<absl::StatusCode>(error.code()) : absl::StatusCode::kUnknown;
  return absl::Status(code, error.message());
}

v1::Fingerprint ToWire(const Fingerprint& fingerprint) {
  v1::Fingerprint out;
  out.set_model_id(fingerprint.model_id);
  out.set_revision(fingerprint.revision);
  out.set_layers(fingerprint.layers);
  out.set_q_heads(fingerprint.q_heads);
  out.set_kv_heads(fingerprint.kv_heads);
  out.set_head_dim(fingerprint.head_dim);
  out.set_value_dim(fingerprint.value_dim);
  out.set_element_type(ToWire(fingerprint.element_type));
  out.set_logit_scale(fingerprint.logit_scale);
  out.set_position_encoding(fingerprint.position_encoding);
  return out;
}

absl::StatusOr<Fingerprint> FromWire(const v1::Fingerprint& fingerprint) {
  Fingerprint out;
  out.model_id = fingerprint.model_id();
  out.revision = fingerprint.revision();
  out.layers = fingerprint.layers();
  out.q_heads = fingerprint.q_heads();
  out.kv_heads = fingerprint.kv_heads();
  out.head_dim = fingerprint.head_dim();
  out.value_dim = fingerprint.value_dim();
  ATTIC_ASSIGN_OR_RETURN(out.element_type,
                         FromWire(fingerprint.element_type(), "fingerprint.element_type"));
  out.logit_scale = fingerprint.logit_scale();
  out.position_encoding = fingerprint.position_encoding();
  return out;
}

v1::PositionRange ToWire(const PositionRange& range) {
  v1::PositionRange out;
  out.set_begin(range.begin);
  out.set_end(range.end == kUpToWatermark ? 0 : range.end);
  // [0, 0) would read as "everything"; [1, 1) is the same empty set.
  if (range.begin == 0 && range.end == 0) {
    out.set_begin(1);
    out.set_end(1);
  }
  return out;
}

PositionRange FromWire(const v1::PositionRange& range) {
  return {.begin = range.begin(), .end = range.end() == 0 ? kUpToWatermark : range.end()};
}

v1::ReadStatistics ToWire(const ReadStatistics& read) {
  v1::ReadStatistics out;
  out.set_tokens(read.tokens);
  out.set_exact_tokens(read.exact_tokens);
  out.set_estimated_clusters(read.estimated_clusters);
  out.set_estimated_super_clusters(read.estimated_super_clusters);
  out.set_graph_visits(read.graph_visits);
  out.set_bytes_read(read.bytes_read);
  out.set_disk_bytes_read(read.disk_bytes_read);
  return out;
}

ReadStatistics FromWire(const v1::ReadStatistics& read) {
  ReadStatistics out;
  out.tokens = read.tokens();
  out.exact_tokens = read.exact_tokens();
  out.estimated_clusters = read.estimated_clusters();
  out.estimated_super_clusters = read.estimated_super_clusters();
  out.graph_visits = read.graph_visits();
  out.bytes_read = read.bytes_read();
  out.disk_bytes_read = read.disk_bytes_read();
  return out;
}

v1::Durability ToWire(Durability durability) { return static_cast<v1::Durability>(durability); }

std::string ToWire(std::span<const PrefixHash> hashes) {
  return std::string(reinterpret_cast<const char*>(hashes.data()), hashes.size_bytes());
}

absl::StatusOr<std::vector<PrefixHash>> PrefixHashesFromWire(const std::string& bytes) {
  if (bytes.size() % kPrefixHashBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefix_hashes: ", bytes.size(), " bytes are no whole number of hashes"));
  }
  std::vector<PrefixHash> hashes(bytes.size() / kPrefixHashBytes);
  if (!bytes.empty()) std::memcpy(hashes.data(), bytes.data(), bytes.size());
  return hashes;
}

v1::Replication ToWire(const Replication& replication) {
  v1::Replication out;
  out.set_replicas(replication.replicas);
  out.set_ack_policy(static_cast<v1::AckPolicy>(replication.ack_policy));
  out.set_shard_tokens(replication.shard_tokens);
  return out;
}

absl::StatusOr<Replication> FromWire(const v1::Replication& replication) {
  Replication out;
  out.replicas = replication.replicas();
  out.shard_tokens = replication.shard_tokens();
  switch (replication.ack_policy()) {
    case v1::ACK_POLICY_UNSPECIFIED:
      return out;
    case v1::ACK_POLICY_ONE:
    case v1::ACK_POLICY_QUORUM:
    case v1::ACK_POLICY_ALL:
      out.ack_policy = static_cast<AckPolicy>(replication.ack_policy());
      return out;
    default:
      return absl::InvalidArgumentError(absl::StrCat("replication.ack_policy: unknown policy ",
                                                     static_cast<int>(replication.ack_policy())));
  }
}

v1::Placement ToWire(const Placement& placement) {
  v1::Placement out;
  out.set_slot(placement.slot);
  out.set_key(placement.key);
  *out.mutable_replication() = ToWire(placement.replication);
  out.set_kv_head(placement.kv_head);
  out.set_block(placement.block);
  return out;
}

absl::StatusOr<Placement> FromWire(const v1::Placement& placement) {
  Placement out;
  out.slot = placement.slot();
  out.key = placement.key();
  ATTIC_ASSIGN_OR_RETURN(out.replication, FromWire(placement.replication()));
  out.kv_head = placement.kv_head();
  out.block = placement.block();
  return out;
}

v1::ForkRequest ToWire(const std::string& session_id, const ForkOptions& options) {
  v1::ForkRequest out;
  out.set_session_id(session_id);
  out.set_position(options.position);
  out.set_new_session_id(options.new_session_id);
  if (options.durability.has_value()) out.set_durability(ToWire(*options.durability));
  return out;
}

absl::StatusOr<ForkOptions> FromWire(const v1::ForkRequest& request) {
  ATTIC_ASSIGN_OR_RETURN(const auto durability, FromWire(request.durability()));
  return ForkOptions{.position = request.position(),
                     .new_session_id = request.new_session_id(),
                     .durability = durability};
}

v1::OpenRequest ToWire(const OpenSessionRequest& request) {
  v1::OpenRequest out;
  out.set_session_id(request.session_id);
  *out.mutable_fingerprint() = ToWire(request.fingerprint);
  out.mutable_stored_layers()->Assign(request.stored_layers.begin(), request.stored_layers.end());
  out.set_durability(ToWire(request.durability));
  out.set_tenant(request.tenant);
  out.set_ttl_seconds(request.ttl_seconds);
  out.set_pinned(request.pinned);
  out.set_prefix_hashes(ToWire(request.prefix_hashes));
  out.set_reuse_prefix(request.reuse_prefix);
  if (request.placement.has_value()) *out.mutable_placement() = ToWire(*request.placement);
  return out;
}

absl::StatusOr<OpenSessionRequest> FromWire(const v1::OpenRequest& request) {
  OpenSessionRequest out;
  out.session_id = request.session_id();
  ATTIC_ASSIGN_OR_RETURN(out.fingerprint, FromWire(request.fingerprint()));
  out.stored_layers.assign(request.stored_layers().begin(), request.stored_layers().end());
  ATTIC_ASSIGN_OR_RETURN(const auto durability, FromWire(request.durability()));
  out.durability = durability.value_or(Durability::kMemory);
  out.tenant = request.tenant();
  out.ttl_seconds = request.ttl_seconds();
  out.pinned = request.pinned();
  ATTIC_ASSIGN_OR_RETURN(out.prefix_hashes, PrefixHashesFromWire(request.prefix_hashes()));
  out.reuse_prefix = request.reuse_prefix();
  if (request.has_placement()) {
    ATTIC_ASSIGN_OR_RETURN(out.placement, FromWire(request.placement()));
  }
  return out;
}

void ToWire(const ExportOptions& options, v1::ExportRequest& request) {
  if (options.position.has_value()) request.set_position(*options.position);
  request.set_epoch(options.epoch);
}

ExportOptions FromWire(const v1::ExportRequest& request) {
  ExportOptions options{.position = std::nullopt, .epoch = request.epoch()};
  if (request.has_position()) options.position = request.position();
  return options;
}

void ToWire(const ImportOptions& options, v1::SnapshotChunk& chunk) {
  chunk.set_session_id(options.session_id);
  chunk.set_durability(ToWire(options.durability));
  chunk.set_epoch(options.epoch);
  if (options.placement.has_value()) *chunk.mutable_placement() = ToWire(*options.placement);
}

absl::StatusOr<ImportOptions> FromWire(const v1::SnapshotChunk& chunk) {
  ATTIC_ASSIGN_OR_RETURN(const auto durability, FromWire(chunk.durability()));
  ImportOptions options{.session_id = chunk.session_id(),
                        .durability = durability.value_or(Durability::kMemory),
                        .epoch = chunk.epoch()};
  if (chunk.has_placement()) {
    ATTIC_ASSIGN_OR_RETURN(options.placement, FromWire(chunk.placement()));
  }
  return options;
}

v1::SessionDescription ToWire(const SessionDescription& description) {
  v1::SessionDescription out;
  out.set_session_id(description.session_id);
  *out.mutable_fingerprint() = ToWire(description.fingerprint);
  for (const LayerDescription& layer : description.layers) {
    v1::LayerDescription* added = out.add_layers();
    added->set_layer(layer.layer);
    added->set_watermark(layer.watermark);
    added->set_indexed_tokens(layer.indexed_tokens);
    added->set_tail_tokens(layer.tail_tokens);
    added->set_durable_watermark(layer.durable_watermark);
  }
  out.set_watermark(description.watermark);
  out.set_memory_bytes(description.memory_bytes);
  out.set_evicted_bytes(description.evicted_bytes);
  out.set_durability(ToWire(description.durability));
  out.set_durable_watermark(description.durable_watermark);
  out.set_tenant(description.tenant);
  out.set_reused_tokens(description.reused_tokens);
  out.set_ttl_seconds(description.ttl_seconds);
  out.set_lease_seconds_left(description.lease_seconds_left);
  out.set_pinned(description.pinned);
  out.set_created(description.created);
  if (description.placement.has_value()) {
    *out.mutable_placement() = ToWire(*description.placement);
  }
  return out;
}

absl::StatusOr<SessionDescription> FromWire(const v1::SessionDescription& description) {
  SessionDescription out;
  out.session_id = description.session_id();
  ATTIC_ASSIGN_OR_RETURN(out.fingerprint, FromWire(description.fingerprint()));
  for (const v1::LayerDescription& layer : description.layers()) {
    out.layers.push_back({.layer = layer.layer(),
                          .watermark = layer.watermark(),
                          .indexed_tokens = layer.indexed_tokens(),
                          .tail_tokens = layer.tail_tokens(),
                          .durable_watermark = layer.durable_watermark()});
  }
  out.watermark = description.watermark();
  out.memory_bytes = description.memory_bytes();
  out.evicted_bytes = description.evicted_bytes();
  ATTIC_ASSIGN_OR_RETURN(const auto durability, FromWire(description.durability()));
  out.durability = durability.value_or(Durability::kMemory);
  out.durable_watermark = description.durable_watermark();
  out.tenant = description.tenant();
  out.reused_tokens = description.reused_tokens();
  out.ttl_seconds = description.ttl_seconds();
  out.lease_seconds_left = description.lease_seconds_left();
  out.pinned = description.pinned();
  out.created = description.created();
  if (description.has_placement()) {
    ATTIC_ASSIGN_OR_RETURN(out.placement, FromWire(description.placement()));
  }
  return out;
}

v1::HeadPlan ToWire(const HeadPlan& plan) {
  v1::HeadPlan out;
  out.set_layer(plan.layer);
  out.set_kv_head(plan.kv_head);
  out.set_indexed_tokens(plan.indexed_tokens);
  out.set_answers_measured(plan.answers_measured);
  out.set_scans_by_default(plan.scans_by_default);
  out.set_scan_faster_below(plan.scan_faster_below);
  out.set_least_error(plan.least_error);
  out.set_coverage_max(plan.coverage_max);
  out.set_hidden_mass(plan.hidden_mass);
  return out;
}

HeadPlan FromWire(const v1::HeadPlan& plan) {
  return {.layer = plan.layer(),
          .kv_head = plan.kv_head(),
          .indexed_tokens = plan.indexed_tokens(),
          .answers_measured = plan.answers_measured(),
          .scans_by_default = plan.scans_by_default(),
          .scan_faster_below = plan.scan_faster_below(),
          .least_error = plan.least_error(),
          .coverage_max = plan.coverage_max(),
          .hidden_mass = plan.hidden_mass()};
}

v1::StoreStatus ToWire(const StoreStatus& status) {
  v1::StoreStatus out;
  out.set_version(status.version);
  out.set_boot_id(status.boot_id);
  out.set_epoch(status.epoch);
  out.set_sessions(status.sessions);
  out.set_tokens(status.tokens);
  out.set_pending_segments(status.pending_segments);
  out.set_threads(status.threads);
  out.set_uptime_seconds(status.uptime_seconds);
  out.set_vector_target(status.vector_target);
  v1::MemoryUse* memory = out.mutable_memory();
  memory->set_vectors_bytes(status.memory.vectors_bytes);
  memory->set_tail_bytes(status.memory.tail_bytes);
  memory->set_summaries_bytes(status.memory.summaries_bytes);
  memory->set_codes_bytes(status.memory.codes_bytes);
  memory->set_graph_bytes(status.memory.graph_bytes);
  memory->set_evicted_bytes(status.memory.evicted_bytes);
  for (const DamageReport& report : status.damage) {
    v1::DamageReport* added = out.add_damage();
    added->set_file(report.file);
    added->set_what(report.what);
  }
  out.set_disk_bytes(status.disk_bytes);
  out.set_cache_bytes(status.cache_bytes);
  out.set_cache_hits(status.cache_hits);
  out.set_cache_misses(status.cache_misses);
  out.set_recovering_sessions(status.recovering_sessions);
  out.set_evicted_sessions(status.evicted_sessions);
  out.set_memory_limit_bytes(status.memory_limit_bytes);
  out.set_memory_charged_bytes(status.memory_charged_bytes);
  return out;
}

StoreStatus FromWire(const v1::StoreStatus& status) {
  StoreStatus out;
  out.version = status.version();
  out.boot_id = status.boot_id();
  out.epoch = status.epoch();
  out.sessions = status.sessions();
  out.tokens = status.tokens();
  out.pending_segments = status.pending_segments();
  out.threads = status.threads();
  out.uptime_seconds = status.uptime_seconds();
  out.vector_target = status.vector_target();
  out.memory = {.vectors_bytes = status.memory().vectors_bytes(),
                .tail_bytes = status.memory().tail_bytes(),
                .summaries_bytes = status.memory().summaries_bytes(),
                .codes_bytes = status.memory().codes_bytes(),
                .graph_bytes = status.memory().graph_bytes(),
                .evicted_bytes = status.memory().evicted_bytes()};
  for (const v1::DamageReport& report : status.damage()) {
    out.damage.push_back({.file = report.file(), .what = report.what()});
  }
  out.disk_bytes = status.disk_bytes();
  out.cache_bytes = status.cache_bytes();
  out.cache_hits = status.cache_hits();
  out.cache_misses = status.cache_misses();
  out.recovering_sessions = status.recovering_sessions();
  out.evicted_sessions = status.evicted_sessions();
  out.memory_limit_bytes = status.memory_limit_bytes();
  out.memory_charged_bytes = status.memory_charged_bytes();
  return out;
}

}  // namespace attic::wire
