#include "server/session/validation.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "api/cluster_map.h"
#include "api/shard.h"
#include "attention/element_type.h"
#include "base/status_macros.h"

namespace attic {
namespace {

template <typename Got, typename Max>
absl::Status OverLimit(const char* field, Got got, const char* limit, Max max) {
  return absl::ResourceExhaustedError(
      absl::StrCat(field, ": ", got, " is over the limit ", limit, " of ", max));
}

absl::Status CheckText(const std::string& text, const char* field, const Limits& limits) {
  if (text.size() <= limits.text_bytes_max) return absl::OkStatus();
  return OverLimit(field, text.size(), "text_bytes_max", limits.text_bytes_max);
}

absl::Status CheckCount(uint32_t count, const char* field, const char* limit, uint32_t max) {
  if (count == 0) return absl::InvalidArgumentError(absl::StrCat(field, ": must not be 0"));
  if (count <= max) return absl::OkStatus();
  return OverLimit(field, count, limit, max);
}

absl::Status ValidateFingerprint(const Fingerprint& f, const Limits& limits) {
  if (f.model_id.empty()) {
    return absl::InvalidArgumentError("fingerprint.model_id: must not be empty");
  }
  ATTIC_RETURN_IF_ERROR(CheckText(f.model_id, "fingerprint.model_id", limits));
  ATTIC_RETURN_IF_ERROR(CheckText(f.revision, "fingerprint.revision", limits));
  ATTIC_RETURN_IF_ERROR(CheckText(f.position_encoding, "fingerprint.position_encoding", limits));
  ATTIC_RETURN_IF_ERROR(
      CheckCount(f.layers, "fingerprint.layers", "layers_max", limits.layers_max));
  ATTIC_RETURN_IF_ERROR(
      CheckCount(f.q_heads, "fingerprint.q_heads", "q_heads_max", limits.q_heads_max));
  ATTIC_RETURN_IF_ERROR(
      CheckCount(f.kv_heads, "fingerprint.kv_heads", "q_heads_max", limits.q_heads_max));
  if (f.q_heads % f.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("fingerprint.q_heads: ", f.q_heads,
                                                   " is no multiple of kv_heads ", f.kv_heads));
  }
  ATTIC_RETURN_IF_ERROR(
      CheckCount(f.head_dim, "fingerprint.head_dim", "head_dim_max", limits.head_dim_max));
  ATTIC_RETURN_IF_ERROR(
      CheckCount(f.value_dim, "fingerprint.value_dim", "head_dim_max", limits.head_dim_max));
  if (f.element_type != ElementType::kFloat32 && f.element_type != ElementType::kBFloat16 &&
      f.element_type != ElementType::kFloat16) {
    return absl::InvalidArgumentError("fingerprint.element_type: unknown");
  }
  if (!(f.logit_scale > 0.0f) || !std::isfinite(f.logit_scale)) {
    return absl::InvalidArgumentError("fingerprint.logit_scale: must be positive and finite");
  }
  return absl::OkStatus();
}

absl::Status ValidateStoredLayers(const std::vector<uint32_t>& layers, uint32_t layer_count) {
  if (layers.empty()) return absl::InvalidArgumentError("stored_layers: must not be empty");
  std::vector<bool> seen(layer_count, false);
  for (const uint32_t layer : layers) {
    if (layer >= layer_count) {
      return absl::InvalidArgumentError(
          absl::StrCat("stored_layers: ", layer, " is not below layers ", layer_count));
    }
    if (seen[layer]) {
      return absl::InvalidArgumentError(absl::StrCat("stored_layers: ", layer, " named twice"));
    }
    seen[layer] = true;
  }
  return absl::OkStatus();
}

absl::Status CheckBytes(size_t got, size_t expected, const char* field, const char* shape) {
  if (got == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", got, " bytes, but ", shape, " takes ", expected));
}

bool Finite(std::span<const float> numbers) {
  return AllFinite(reinterpret_cast<const std::byte*>(numbers.data()), ElementType::kFloat32,
                   numbers.size());
}

}  // namespace

absl::Status ValidateSessionId(const std::string& session_id, const char* field,
                               const Limits& limits) {
  if (session_id.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": must not be empty"));
  }
  // Of a shard, the id of its session.
  const std::optional<ShardName> shard = ParseShardSessionId(session_id);
  const std::string& own = shard.has_value() ? shard->session_id : session_id;
  if (own.size() > limits.session_id_bytes_max) {
    return OverLimit(field, own.size(), "session_id_bytes_max", limits.session_id_bytes_max);
  }
  const bool allowed = std::all_of(own.begin(), own.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == ':' || c == '/';
  });
  if (allowed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": only letters, digits, '.', '_', '-', ':' and '/' are allowed"));
}

absl::Status ValidateOpen(const OpenSessionRequest& request, const Limits& limits) {
  if (!request.session_id.empty()) {
    ATTIC_RETURN_IF_ERROR(ValidateSessionId(request.session_id, "session_id", limits));
  }
  ATTIC_RETURN_IF_ERROR(ValidateFingerprint(request.fingerprint, limits));
  ATTIC_RETURN_IF_ERROR(CheckText(request.tenant, "tenant", limits));
  ATTIC_RETURN_IF_ERROR(ValidatePrefix(0, request.prefix_hashes.size(), limits));
  if (request.placement.has_value()) {
    ATTIC_RETURN_IF_ERROR(ValidatePlacement(*request.placement, limits));
  }
  return ValidateStoredLayers(request.stored_layers, request.fingerprint.layers);
}

absl::Status ValidatePlacement(const Placement& placement, const Limits& limits) {
  ATTIC_RETURN_IF_ERROR(CheckText(placement.key, "placement.key", limits));
  if (placement.key.empty()) return absl::InvalidArgumentError("placement.key: is empty");
  if (placement.slot >= kClusterSlotsMax) {
    return absl::InvalidArgumentError(absl::StrCat("placement.slot: not below ", kClusterSlotsMax));
  }
  const Replication& replication = placement.replication;
  if (replication.replicas < 1 || replication.replicas > kReplicasMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("replication.replicas: not between 1 and ", kReplicasMax));
  }
  const int64_t block = static_cast<int64_t>(kPrefixBlockTokens);
  if (replication.shard_tokens < 0 || replication.shard_tokens % block != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("replication.shard_tokens: no multiple of ", block));
  }
  return absl::OkStatus();
}

absl::Status ValidatePrefix(size_t first_block, size_t blocks, const Limits& limits) {
  if (blocks <= limits.prefix_hashes_max && first_block <= limits.prefix_hashes_max - blocks) {
    return absl::OkStatus();
  }
  return OverLimit("prefix_hashes", first_block + blocks, "prefix_hashes_max",
                   limits.prefix_hashes_max);
}

absl::Status CompareFingerprints(const Fingerprint& held, const Fingerprint& requested) {
  const char* field = nullptr;
  if (held.model_id != requested.model_id) {
    field = "model_id";
  } else if (held.revision != requested.revision) {
    field = "revision";
  } else if (held.layers != requested.layers) {
    field = "layers";
  } else if (held.q_heads != requested.q_heads) {
    field = "q_heads";
  } else if (held.kv_heads != requested.kv_heads) {
    field = "kv_heads";
  } else if (held.head_dim != requested.head_dim) {
    field = "head_dim";
  } else if (held.value_dim != requested.value_dim) {
    field = "value_dim";
  } else if (held.element_type != requested.element_type) {
    field = "element_type";
  } else if (held.logit_scale != requested.logit_scale) {
    field = "logit_scale";
  } else if (held.position_encoding != requested.position_encoding) {
    field = "position_encoding";
  }
  if (field == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("fingerprint.", field, ": differs from the session's"));
}

absl::Status ValidateAppendShape(const AppendBatch& batch, const Fingerprint& fingerprint,
                                 const Limits& limits) {
  if (batch.begin_position < 0) {
    return absl::InvalidArgumentError("begin_position: must not be negative");
  }
  if (batch.count == 0) return absl::InvalidArgumentError("count: must not be 0");
  if (batch.count > limits.append_tokens_max) {
    return OverLimit("count", batch.count, "append_tokens_max", limits.append_tokens_max);
  }
  if (batch.begin_position > limits.session_tokens_max - static_cast<int64_t>(batch.count)) {
    return OverLimit("begin_position", batch.begin_position, "session_tokens_max",
                     limits.session_tokens_max);
  }
  const size_t element_bytes = ElementBytes(fingerprint.element_type);
  const size_t rows = batch.count * fingerprint.kv_heads;
  ATTIC_RETURN_IF_ERROR(CheckBytes(batch.keys.size(), rows * fingerprint.head_dim * element_bytes,
                                   "keys", "(count, kv_heads, head_dim)"));
  ATTIC_RETURN_IF_ERROR(CheckBytes(batch.values.size(),
                                   rows * fingerprint.value_dim * element_bytes, "values",
                                   "(count, kv_heads, value_dim)"));
  if (batch.query_sample.size() % (size_t{fingerprint.q_heads} * fingerprint.head_dim) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("query_sample: ", batch.query_sample.size(),
                     " numbers are no whole number of (q_heads, head_dim)"));
  }
  const size_t sampled = batch.query_sample.size() / fingerprint.head_dim;
  if (sampled > limits.query_sample_max) {
    return OverLimit("query_sample", sampled, "query_sample_max", limits.query_sample_max);
  }
  return absl::OkStatus();
}

absl::Status ValidateAppendContent(const AppendBatch& batch, const Fingerprint& fingerprint) {
  const ElementType type = fingerprint.element_type;
  if (!AllFinite(batch.keys.data(), type, batch.keys.size() / ElementBytes(type))) {
    return absl::InvalidArgumentError("keys: NaN or infinity");
  }
  if (!AllFinite(batch.values.data(), type, batch.values.size() / ElementBytes(type))) {
    return absl::InvalidArgumentError("values: NaN or infinity");
  }
  if (!Finite(batch.query_sample)) {
    return absl::InvalidArgumentError("query_sample: NaN or infinity");
  }
  return absl::OkStatus();
}

absl::Status ValidateQueries(std::span<const float> queries, const Fingerprint& fingerprint) {
  const size_t expected = size_t{fingerprint.q_heads} * fingerprint.head_dim;
  if (queries.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queries: ", queries.size(), " numbers, but (q_heads, head_dim) takes ", expected));
  }
  if (!Finite(queries)) return absl::InvalidArgumentError("queries: NaN or infinity");
  return absl::OkStatus();
}

absl::Status ValidateRange(const PositionRange& range) {
  if (range.begin < 0) return absl::InvalidArgumentError("range.begin: must not be negative");
  if (range.end < range.begin)
    return absl::InvalidArgumentError("range.end: is before range.begin");
  return absl::OkStatus();
}

absl::Status ValidateSearch(const SearchRequest& request, const Fingerprint& fingerprint,
                            const Limits& limits) {
  if (request.selection.goal == SelectionGoal::kMaxError) {
    return absl::InvalidArgumentError("selection.max_error: a search has no output to err in");
  }
  if (request.k == 0) return absl::InvalidArgumentError("k: must not be 0");
  if (request.k > limits.search_k_max) {
    return OverLimit("k", request.k, "search_k_max", limits.search_k_max);
  }
  const size_t vector_bytes = ElementBytes(fingerprint.element_type) *
                              (size_t{fingerprint.head_dim} + fingerprint.value_dim);
  const size_t hit_bytes =
      sizeof(int64_t) + sizeof(float) + (request.with_vectors ? vector_bytes : 0);
  const size_t answer_bytes = size_t{request.k} * fingerprint.q_heads * hit_bytes;
  if (answer_bytes <= limits.message_bytes_max) return absl::OkStatus();
  return OverLimit("k", answer_bytes, "message_bytes_max", limits.message_bytes_max);
}

}  // namespace attic
