#include "client/cli/json_output.h"

namespace attic::cli {

using Json = nlohmann::ordered_json;

Json ToJson(const Fingerprint& fingerprint) {
  return {{"model_id", fingerprint.model_id},
          {"revision", fingerprint.revision},
          {"layers", fingerprint.layers},
          {"q_heads", fingerprint.q_heads},
          {"kv_heads", fingerprint.kv_heads},
          {"head_dim", fingerprint.head_dim},
          {"value_dim", fingerprint.value_dim},
          {"element_type", ElementTypeName(fingerprint.element_type)},
          {"logit_scale", fingerprint.logit_scale},
          {"position_encoding", fingerprint.position_encoding}};
}

Json ToJson(const SessionDescription& session) {
  Json layers = Json::array();
  for (const LayerDescription& layer : session.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"watermark", layer.watermark},
                      {"indexed_tokens", layer.indexed_tokens},
                      {"tail_tokens", layer.tail_tokens},
                      {"durable_watermark", layer.durable_watermark}});
  }
  return {{"session_id", session.session_id},
          {"fingerprint", ToJson(session.fingerprint)},
          {"layers", layers},
          {"watermark", session.watermark},
          {"memory_bytes", session.memory_bytes},
          {"evicted_bytes", session.evicted_bytes},
          {"durability", DurabilityName(session.durability)},
          {"durable_watermark", session.durable_watermark},
          {"tenant", session.tenant},
          {"reused_tokens", session.reused_tokens},
          {"ttl_seconds", session.ttl_seconds},
          {"lease_seconds_left", session.lease_seconds_left},
          {"pinned", session.pinned}};
}

Json ToJson(const MemoryUse& memory) {
  return {{"vectors_bytes", memory.vectors_bytes},
          {"tail_bytes", memory.tail_bytes},
          {"summaries_bytes", memory.summaries_bytes},
          {"codes_bytes", memory.codes_bytes},
          {"graph_bytes", memory.graph_bytes},
          {"evicted_bytes", memory.evicted_bytes},
          {"total_bytes", memory.total()}};
}

Json ToJson(const StoreStatus& status) {
  Json damage = Json::array();
  for (const DamageReport& report : status.damage) {
    damage.push_back({{"file", report.file}, {"what", report.what}});
  }
  return {{"version", status.version},
          {"boot_id", status.boot_id},
          {"epoch", status.epoch},
          {"sessions", status.sessions},
          {"tokens", status.tokens},
          {"pending_segments", status.pending_segments},
          {"threads", status.threads},
          {"uptime_seconds", status.uptime_seconds},
          {"vector_target", status.vector_target},
          {"memory", ToJson(status.memory)},
          {"damage", damage},
          {"disk_bytes", status.disk_bytes},
          {"cache_bytes", status.cache_bytes},
          {"cache_hits", status.cache_hits},
          {"cache_misses", status.cache_misses},
          {"recovering_sessions", status.recovering_sessions},
          {"evicted_sessions", status.evicted_sessions},
          {"memory_limit_bytes", status.memory_limit_bytes},
          {"memory_charged_bytes", status.memory_charged_bytes}};
}

Json ToJson(const ReadStatistics& read) {
  return {{"tokens", read.tokens},
          {"exact_tokens", read.exact_tokens},
          {"estimated_clusters", read.estimated_clusters},
          {"estimated_super_clusters", read.estimated_super_clusters},
          {"graph_visits", read.graph_visits},
          {"bytes_read", read.bytes_read},
          {"disk_bytes_read", read.disk_bytes_read}};
}

Json ToJson(const HeadPlan& plan) {
  return {{"layer", plan.layer},
          {"kv_head", plan.kv_head},
          {"indexed_tokens", plan.indexed_tokens},
          {"answers_measured", plan.answers_measured},
          {"scans_by_default", plan.scans_by_default},
          {"scan_faster_below", plan.scan_faster_below},
          {"least_error", plan.least_error},
          {"coverage_max", plan.coverage_max},
          {"hidden_mass", plan.hidden_mass}};
}

Json ToJson(const SelectionPolicy& selection) {
  Json document = Json::object();
  if (selection.goal == SelectionGoal::kDefault) return document;
  document[SelectionGoalName(selection.goal)] = selection.amount;
  return document;
}

}  // namespace attic::cli
