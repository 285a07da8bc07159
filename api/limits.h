// Every limit of the interface, in one place. A request over a limit gets RESOURCE_EXHAUSTED naming
// it; malformed input gets INVALID_ARGUMENT naming the field.
#ifndef ATTIC_API_LIMITS_H_
#define ATTIC_API_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace attic {

struct Limits {
  size_t sessions_max = 4096;
  size_t session_id_bytes_max = 128;
  size_t text_bytes_max = 256;         // model_id, revision, position_encoding, tenant
  size_t shard_suffix_bytes_max = 32;  // of a shard's id, behind the session's
  size_t shard_calls_max = 4096;       // in one message to a node
  uint32_t layers_max = 512;
  uint32_t q_heads_max = 512;
  uint32_t head_dim_max = 1024;      // also value_dim
  size_t append_tokens_max = 16384;  // one AppendBatch
  size_t query_sample_max = 4096;    // query vectors (times q_heads) in one AppendBatch
  size_t attend_items_max = 256;     // one batch
  uint32_t search_k_max = 4096;
  uint32_t selection_top_k_max = 1u << 20;  // SelectionGoal::kTopK
  size_t message_bytes_max = 64u << 20;
  size_t append_bytes_in_flight_max = 64u << 20;  // client side, one stream
  size_t attend_requests_in_flight_max = 64;      // one stream; of a cluster's client, calls
  size_t cluster_sessions_cached_max = 16384;     // client side: found without asking for them
  size_t requests_queued_max = 1024;              // one store, waiting for a thread
  int64_t session_tokens_max = int64_t{1} << 32;
  size_t prefix_hashes_max = 65536;  // of one session
  size_t tenant_sessions_max = 0;    // open at once; 0: no limit but sessions_max
  uint64_t tenant_bytes_max = 0;  // of a tenant's sessions in memory; 0: no limit but the store's
  uint64_t memory_bytes_max = 0;  // vectors and index; 0: three quarters of the machine's memory
  int64_t pending_segments_max = 64;  // per layer and head; appends wait beyond it
};

}  // namespace attic

#endif  // ATTIC_API_LIMITS_H_
