// The keys and values of one (session, layer, kv head), and the index over them.
//
// Tokens arrive in the tail, which is scanned exactly. A background builder turns the oldest
// options.segment_tokens of the tail into a segment: immutable, clustered, with sums, one-bit codes
// and its vectors in cluster order. The centroid graph spans the centroids of all segments.
// Searches work on an immutable HeadSnapshot and take no lock while they scan.
#ifndef ATTIC_SERVER_INDEX_HEAD_INDEX_H_
#define ATTIC_SERVER_INDEX_HEAD_INDEX_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "attention/element_type.h"
#include "attention/partial_attention.h"
#include "base/memory_budget.h"
#include "server/index/graph/query_aware_graph.h"

namespace attic {

struct HeadShape {
  uint32_t head_dim = 0;
  uint32_t value_dim = 0;
  uint32_t group = 1;  // query heads that share this kv head
  ElementType element_type = ElementType::kBFloat16;
  float logit_scale = 1.0f;
};

struct IndexOptions {
  int64_t segment_tokens = 8192;
  int64_t cluster_tokens = 32;          // mean members of a cluster
  int64_t super_cluster_clusters = 16;  // mean clusters of a super-cluster
  int kmeans_iterations = 10;
  int64_t exact_scan_tokens_max = 65536;  // shorter ranges are scanned exactly
  double max_error = 0.05;                // of outputs, where a request says nothing else
  // Scan everything where a walk would take longer, or was not seen to keep what is asked for.
  bool exact_when_better = true;
  size_t needle_candidates = 16384;  // that may matter by code, scored exactly at most
  // A graph over the centroids leads searches for the best keys to them. Attention does without;
  // it takes 3 to 10 percent of the memory of the vectors and a third of the time of a build.
  bool centroid_graph = false;
  size_t graph_clusters_min = 8192;    // fewer centroids are searched without the graph
  size_t training_queries_max = 8192;  // query vectors kept to teach the index
  GraphOptions graph;
  std::shared_ptr<MemoryBudget> vectors_budget;  // of vectors in segments; null: not counted
};

class ThreadPool;
struct Segment;

// Buffers of one searching thread, reused between calls. Not thread-safe.
class SearchScratch;
struct SearchScratchDeleter {
  void operator()(SearchScratch* scratch) const;
};
using SearchScratchPtr = std::unique_ptr<SearchScratch, SearchScratchDeleter>;
// Threads of `helpers`, if not null, take parts of a long search; it must outlive the buffers.
SearchScratchPtr MakeSearchScratch(ThreadPool* helpers = nullptr);

// What a query asks of a head.
struct HeadRequest {
  std::span<const float> queries;  // (group, head_dim)
  PositionRange range;             // clipped to [0, token_count())
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;
  absl::Time deadline = absl::InfiniteFuture();
};

// The answer of one kv head for its group of query heads.
struct HeadAnswer {
  std::vector<float> output;       // (group, value_dim)
  std::vector<float> log_sum_exp;  // (group)
  std::vector<float> coverage;     // (group)
  std::vector<float> error;        // (group), estimated, of the output's length
  bool degraded = false;
  ReadStatistics read;
};

// An immutable view of a head at one moment. Thread-safe.
class HeadSnapshot {
 public:
  virtual ~HeadSnapshot() = default;
  virtual int64_t token_count() const = 0;
  virtual int64_t indexed_tokens() const = 0;

  // Attention over positions of the range. When the deadline comes near, stops reading keys and
  // sets degraded; every token is still in the estimate. When keys or values that it needs are on
  // disk and cannot be read: UNAVAILABLE, or DATA_LOSS where they are damaged.
  virtual absl::Status Attend(const HeadRequest& request, SearchScratch& scratch,
                              HeadAnswer& answer) const = 0;

  // For each query of the group the k best positions by q.k, best first; with kIndexed they are
  // found through the index. Errors as of Attend.
  virtual absl::Status Search(const HeadRequest& request, size_t k, SearchScratch& scratch,
                              std::vector<std::vector<SearchHit>>& hits,
                              ReadStatistics& read) const = 0;

  // Copies keys and values of some positions (each < token_count()) in the head's element type.
  // Errors as of Attend.
  virtual absl::Status CopyVectors(std::span<const int64_t> positions, std::byte* keys,
                                   std::byte* values) const = 0;
  // The same for a range within [0, token_count()), in order of position.
  virtual absl::Status CopyRange(PositionRange range, std::byte* keys, std::byte* values) const = 0;
};

// Thread-safe: appends, builds and snapshots may run at the same time; BuildNext is called by one
// thread at a time.
class HeadIndex {
 public:
  static std::unique_ptr<HeadIndex> Create(const HeadShape& shape, const IndexOptions& options);
  virtual ~HeadIndex() = default;

  // Appends keys.count tokens after the last. The caller has validated them. Copies.
  virtual void Append(const VectorsView& keys, const VectorsView& values) = 0;

  // Queries (n, head_dim) float32 that teach the index; a bounded reservoir is kept.
  virtual void AddTrainingQueries(std::span<const float> queries) = 0;

  virtual int64_t token_count() const = 0;
  // Segments' worth of tail waiting to be built, and one more while BuildNext has published a
  // segment but not finished.
  virtual int64_t pending_segments() const = 0;

  // Builds and publishes the next segment (and, when it is due, the graph). Returns false when
  // there was nothing to do. On error nothing changed; the tail goes on being scanned.
  virtual absl::StatusOr<bool> BuildNext() = 0;

  virtual std::shared_ptr<const HeadSnapshot> Snapshot() const = 0;

  // Forgets positions >= position (<= token_count()). A segment that straddles it returns to the
  // tail. Errors as of HeadSnapshot::Attend; then nothing changed.
  virtual absl::Status Truncate(int64_t position) = 0;

  // A new head holding [0, position), sharing segments. Errors as of HeadSnapshot::Attend.
  virtual absl::StatusOr<std::unique_ptr<HeadIndex>> Fork(int64_t position) const = 0;

  // In order of position.
  virtual std::vector<std::shared_ptr<const Segment>> Segments() const = 0;

  // Adds a segment that was read from disk, behind the others of a head whose tail is empty.
  // INVALID_ARGUMENT when it does not fit the head.
  virtual absl::Status AddSegment(std::shared_ptr<const Segment> segment) = 0;

  // What the head has learnt from its segments and queries, as bytes of a form of its own; what is
  // not in them is learnt anew.
  virtual std::string LearntState() const = 0;
  // Grows whenever the head has learnt enough to be worth saving.
  virtual uint64_t learnt_version() const = 0;
  // Of an empty head that `segments` segments will be added to, with what LearntState said when
  // there were these, or some of them. INVALID_ARGUMENT when the bytes make no sense; then nothing
  // changed.
  virtual absl::Status RestoreLearntState(const std::string& state, size_t segments) = 0;
  // Learns from all segments what can be learnt without queries; reads all vectors. Errors as of
  // HeadSnapshot::Attend.
  virtual absl::Status LearnFromSegments() = 0;

  virtual MemoryUse memory_use() const = 0;

  // Without layer and kv_head, which a head does not know.
  virtual HeadPlan Plan() const = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_HEAD_INDEX_H_
