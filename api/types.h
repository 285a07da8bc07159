// The plain C++ vocabulary of Attic's interface: what a caller says and what a store answers.
// Shared by the client library, the store and the worker; the protocol buffers in proto/attic/v1
// say the same on the wire (wire/ converts). Arrays are row-major and little-endian.
#ifndef ATTIC_API_TYPES_H_
#define ATTIC_API_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "api/prefix_hashes.h"
#include "api/selection.h"
#include "attention/element_type.h"
#include "attention/partial_attention.h"

namespace attic {

// Describes the model whose keys and values a session holds. Sessions opened with a different
// fingerprint are refused: keys of one model are garbage to another.
struct Fingerprint {
  std::string model_id;
  std::string revision;
  uint32_t layers = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t value_dim = 0;
  ElementType element_type = ElementType::kBFloat16;
  float logit_scale = 0.0f;       // logits are logit_scale * q.k
  std::string position_encoding;  // free text, e.g. "rope theta=500000" or "none"

  uint32_t group() const { return kv_heads == 0 ? 0 : q_heads / kv_heads; }
  bool operator==(const Fingerprint&) const = default;
};

// Half-open range of token positions.
struct PositionRange {
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();

  bool operator==(const PositionRange&) const = default;
};

// What becomes of a session when the store's process ends.
enum class Durability : uint8_t {
  kMemory = 1,   // lost
  kDurable = 2,  // what lies below the durable watermark survives, loss of power included
};

// "memory" or "durable".
const char* DurabilityName(Durability durability);

// When an append to a session with several replicas is acknowledged.
enum class AckPolicy : uint8_t {
  kOne = 1,     // a replica holds it
  kQuorum = 2,  // most of all replicas hold it, those that are down counted too
  kAll = 3,     // every replica that the cluster does not call down holds it
};

// How many copies of a session a cluster keeps, and how it is cut. One store ignores it.
struct Replication {
  uint32_t replicas = 0;  // 1 to 3; 0: as the cluster says
  AckPolicy ack_policy = AckPolicy::kAll;
  // Positions a shard holds, for contexts that one node has no room for; a multiple of
  // kPrefixBlockTokens. 0: all of them. A session cut so neither finds nor offers prefixes.
  int64_t shard_tokens = 0;

  bool operator==(const Replication&) const = default;
};

// Of what one node of a cluster holds, a shard or a manifest (api/shard.h): where it belongs.
struct Placement {
  uint32_t slot = 0;
  std::string key;  // what the session's shards are placed by
  Replication replication;
  uint32_t kv_head = 0;  // of a shard
  uint32_t block = 0;    // of a shard

  bool operator==(const Placement&) const = default;
};

struct OpenSessionRequest {
  std::string session_id;  // empty: the store chooses one
  Fingerprint fingerprint;
  std::vector<uint32_t> stored_layers;  // the layers whose keys and values will be appended

  // An existing session must belong to the same tenant and be at least as durable; the rest is for
  // new sessions.
  Durability durability = Durability::kMemory;
  // Whose session it is: prefixes are reused and quotas counted within a tenant. Not authenticated:
  // a caller says who it is.
  std::string tenant;
  // A session that nobody used for so long may be closed by the store; 0: never for this reason.
  uint32_t ttl_seconds = 0;
  bool pinned = false;  // neither closed when the lease ends, nor to make room
  // The tokens that will be appended, or the first of them, as a chain over whole blocks:
  // registered for others to find, as far as they are held.
  std::vector<PrefixHash> prefix_hashes;
  // Starts with the longest prefix that a session of the same tenant, fingerprint and stored layers
  // holds; see SessionDescription::reused_tokens.
  bool reuse_prefix = false;
  Replication replication;             // for a cluster
  std::optional<Placement> placement;  // for one node of it: said by the client library
};

struct ForkOptions {
  int64_t position = 0;                  // the new session holds [0, position)
  std::string new_session_id;            // empty: the store chooses one
  std::optional<Durability> durability;  // none: as the source
};

struct ExportOptions {
  // The snapshot holds [0, position); none: up to the watermark.
  std::optional<int64_t> position;
  // Of the cluster map by which the node was found: it answers as it does to a read by that map. 0:
  // it gives what it has.
  uint64_t epoch = 0;
};

struct ImportOptions {
  std::string session_id;  // empty: that of the snapshot
  Durability durability = Durability::kMemory;
  // For a cluster: how many copies it keeps; 0: as many as the snapshot says. One store ignores it.
  uint32_t replicas = 0;
  uint64_t epoch = 0;  // of the cluster map by which the node was found; 0 for one store
  std::optional<Placement> placement;  // for one node: said by the client library; none: snapshot's
};

struct LayerDescription {
  uint32_t layer = 0;
  int64_t watermark = 0;          // every position below it is held
  int64_t indexed_tokens = 0;     // those in segments, found through the index
  int64_t tail_tokens = 0;        // those scanned exactly
  int64_t durable_watermark = 0;  // every position below it is durable; 0 in memory
  bool operator==(const LayerDescription&) const = default;
};

struct SessionDescription {
  std::string session_id;
  Fingerprint fingerprint;
  std::vector<LayerDescription> layers;
  int64_t watermark = 0;  // smallest over layers
  uint64_t memory_bytes = 0;
  uint64_t evicted_bytes = 0;  // keys and values on disk only
  Durability durability = Durability::kMemory;
  int64_t durable_watermark = 0;  // smallest over layers
  std::string tenant;
  int64_t reused_tokens = 0;  // there from the start, through a prefix
  uint32_t ttl_seconds = 0;
  double lease_seconds_left = 0;  // 0: no lease, or it has ended
  bool pinned = false;
  bool created = false;                // by the call that returns this
  std::optional<Placement> placement;  // on a node of a cluster
  bool operator==(const SessionDescription&) const = default;
};

// Keys and values of consecutive positions of one layer, plus a sample of the queries computed
// there. Borrows its arrays for the duration of the call.
struct AppendBatch {
  std::string session_id;
  uint32_t layer = 0;
  int64_t begin_position = 0;
  size_t count = 0;
  std::span<const std::byte> keys;      // (count, kv_heads, head_dim), fingerprint.element_type
  std::span<const std::byte> values;    // (count, kv_heads, value_dim), fingerprint.element_type
  std::span<const float> query_sample;  // (n, q_heads, head_dim), any n >= 0
};

struct AppendAck {
  int64_t watermark = 0;          // of the layer
  int64_t durable_watermark = 0;  // 0 for sessions in memory
};

enum class AttendMode : uint8_t {
  kIndexed = 1,  // search, attend the best exactly, estimate the rest
  kExact = 2,    // scan everything
};

// One sequence's query in one layer. Borrows `queries` for the duration of the call.
struct AttendItem {
  std::string session_id;
  uint32_t layer = 0;
  PositionRange range;  // positions attended; end beyond the watermark means "up to the watermark"
  int64_t min_watermark = 0;  // FAILED_PRECONDITION when the store holds less
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;       // how far to go; without effect with kExact, but checked
  std::span<const float> queries;  // (q_heads, head_dim)
};

// What answering cost.
struct ReadStatistics {
  uint64_t tokens = 0;        // tokens in the range, times kv heads
  uint64_t exact_tokens = 0;  // attended exactly, times kv heads
  uint64_t estimated_clusters = 0;
  uint64_t estimated_super_clusters = 0;
  uint64_t graph_visits = 0;     // centroids read by graph searches
  uint64_t bytes_read = 0;       // keys, values, sums, codes, centroids and links
  uint64_t disk_bytes_read = 0;  // for clusters that were not in memory, with all their rows
  ReadStatistics& operator+=(const ReadStatistics& other);
};

// The answer to one item. Every query head has its own log_sum_exp and coverage.
struct AttendAnswer {
  absl::Status status;             // when not OK the rest is empty
  std::vector<float> output;       // (q_heads, value_dim)
  std::vector<float> log_sum_exp;  // (q_heads), natural logarithm, -infinity over no tokens
  std::vector<float> coverage;  // (q_heads), share of the softmax mass attended exactly, estimated
  // (q_heads), |output - exact| / |exact| as calibrated on sampled exact answers; 0 when exact
  std::vector<float> estimated_error;
  PositionRange range;    // positions actually answered for
  bool degraded = false;  // the deadline cut the exact part short
  ReadStatistics read;
  uint64_t epoch = 0;
  std::string boot_id;
};

struct SearchRequest {
  std::string session_id;
  uint32_t layer = 0;
  PositionRange range;
  AttendMode mode = AttendMode::kIndexed;
  uint32_t k = 0;  // hits at most
  // kCoverage and kInnerProductRange may end before k hits; kMaxError is refused, for there is no
  // output. Without effect with kExact, but checked.
  SelectionPolicy selection;
  bool with_vectors = false;
  std::span<const float> queries;  // (q_heads, head_dim)
};

struct SearchHit {
  int64_t position = 0;
  float score = 0.0f;  // q.k, without the logit scale
};

struct SearchAnswer {
  std::vector<std::vector<SearchHit>> hits;  // per query head, best first, at most k
  // With with_vectors: per query head, rows in the order of hits, fingerprint.element_type.
  std::vector<std::vector<std::byte>> keys;    // (hits, head_dim)
  std::vector<std::vector<std::byte>> values;  // (hits, value_dim)
  ReadStatistics read;
};

// How a store answers for one kv head, learnt from queries that were answered exactly as well.
struct HeadPlan {
  uint32_t layer = 0;
  uint32_t kv_head = 0;
  int64_t indexed_tokens = 0;
  uint64_t answers_measured = 0;  // 0: not learnt yet, experience with other heads stands in
  // Where no more is asked for than the store's own max_error, everything is scanned.
  bool scans_by_default = false;
  // Where errors up to these are asked for, everything is scanned: walks through the index took
  // longer, or were not seen to keep to them.
  double scan_faster_below = 0;
  double least_error = 0;
  double coverage_max = 1;  // where more than this coverage is asked for, everything is scanned
  double hidden_mass = 1;   // mean share of the mass found in keys that sums hide
};

struct MemoryUse {
  uint64_t vectors_bytes = 0;    // keys and values in segments
  uint64_t tail_bytes = 0;       // keys and values not yet in segments
  uint64_t summaries_bytes = 0;  // centroids, sums, super-clusters, assignments
  uint64_t codes_bytes = 0;      // of keys, one and two bits an element
  uint64_t graph_bytes = 0;      // links, side edges, builder
  uint64_t evicted_bytes = 0;    // keys and values on disk only: not in memory, not in total()
  uint64_t total() const {
    return vectors_bytes + tail_bytes + summaries_bytes + codes_bytes + graph_bytes;
  }
  MemoryUse& operator+=(const MemoryUse& other);
};

// Something on disk that cannot be used: found while opening, or later.
struct DamageReport {
  std::string file;
  std::string what;
  bool operator==(const DamageReport&) const = default;
};

struct StoreStatus {
  std::string version;
  std::string boot_id;
  uint64_t epoch = 0;
  uint64_t sessions = 0;
  uint64_t tokens = 0;            // tokens times stored layers, over all sessions
  uint64_t pending_segments = 0;  // waiting for the background builder, or being built
  uint64_t threads = 0;
  double uptime_seconds = 0;
  std::string vector_target;  // instruction set in use
  MemoryUse memory;
  std::vector<DamageReport> damage;
  uint64_t disk_bytes = 0;   // of segment files
  uint64_t cache_bytes = 0;  // keys and values read from disk and kept, beside memory
  uint64_t cache_hits = 0;
  uint64_t cache_misses = 0;
  uint64_t recovering_sessions = 0;  // being read from disk
  uint64_t evicted_sessions = 0;     // closed by the store since its start: lease ended
  uint64_t memory_limit_bytes = 0;   // limits.memory_bytes_max in effect
  // Counted against it: what sessions share counts once, while `memory` has it for each.
  uint64_t memory_charged_bytes = 0;
};

}  // namespace attic

#endif  // ATTIC_API_TYPES_H_
