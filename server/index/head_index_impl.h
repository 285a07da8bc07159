// What is behind HeadIndex: the tail and the segments of a head, and what it has learnt.
//
// Its functions are in three files: what the head holds (head_index.cc), how the next segment and
// the graph are built (head_index_build.cc), and what is learnt of both (head_index_learn.cc).
#ifndef ATTIC_SERVER_INDEX_HEAD_INDEX_IMPL_H_
#define ATTIC_SERVER_INDEX_HEAD_INDEX_IMPL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/index/estimate/pooled_terms.h"
#include "server/index/graph_growth.h"
#include "server/index/head_index.h"
#include "server/index/head_snapshot.h"
#include "server/index/indexed_part.h"
#include "server/index/search/calibrate.h"
#include "server/index/segment/segment_builder.h"
#include "server/index/tail.h"
#include "server/index/training_reservoir.h"

namespace attic {

// Two locks, taken in this order: writer_mutex_ serialises everything that changes the head and is
// held while rows are copied; mutex_ covers only the hand-over of what readers see.
class HeadIndexImpl final : public HeadIndex {
 public:
  HeadIndexImpl(const HeadShape& shape, const IndexOptions& options);

  void Append(const VectorsView& keys, const VectorsView& values) override;
  void AddTrainingQueries(std::span<const float> queries) override {
    MutexLock lock(training_mutex_);
    training_.Add(queries);
  }

  int64_t token_count() const override {
    MutexLock lock(mutex_);
    return tail_.end_position();
  }

  int64_t pending_segments() const override {
    MutexLock lock(mutex_);
    return tail_.token_count() / options_.segment_tokens + (growing_graph_ ? 1 : 0);
  }

  std::shared_ptr<const HeadSnapshot> Snapshot() const override;
  absl::StatusOr<bool> BuildNext() override;
  absl::Status Truncate(int64_t position) override;
  absl::StatusOr<std::unique_ptr<HeadIndex>> Fork(int64_t position) const override;
  std::vector<std::shared_ptr<const Segment>> Segments() const override { return part()->segments; }
  absl::Status AddSegment(std::shared_ptr<const Segment> segment) override;
  std::string LearntState() const override;
  uint64_t learnt_version() const override { return learnt_version_; }
  absl::Status RestoreLearntState(const std::string& state, size_t segments) override;
  absl::Status LearnFromSegments() override;
  MemoryUse memory_use() const override;
  HeadPlan Plan() const override;

 private:
  using SegmentList = std::vector<std::shared_ptr<const Segment>>;

  const TailShape& tail_shape() const { return tail_shape_; }

  Tail::Room Reserve() {
    MutexLock lock(mutex_);
    return tail_.Reserve();
  }
  void Advance(size_t rows) {
    MutexLock lock(mutex_);
    tail_.Advance(rows);
  }

  std::shared_ptr<const IndexedPart> MakePart(SegmentList segments,
                                              std::shared_ptr<const QueryAwareGraph> graph) const
      ATTIC_REQUIRES(writer_mutex_);
  std::shared_ptr<const IndexedPart> part() const {
    MutexLock lock(mutex_);
    return part_;
  }

  bool graph_is_due() const {
    MutexLock lock(mutex_);
    return growing_graph_;
  }

  int64_t tail_segments() const {
    MutexLock lock(mutex_);
    return tail_.token_count() / options_.segment_tokens;
  }

  // The vectors of the segment that `position` cuts, null when it cuts none. May read them.
  absl::StatusOr<std::shared_ptr<const VectorArrays>> ArraysOfCut(const IndexedPart& part,
                                                                  int64_t position) const;

  absl::StatusOr<bool> BuildSegmentAndGraph();
  bool BuildSegmentFromTail();
  void CalibrateErrors();
  void RenewPooledTerms();
  absl::StatusOr<bool> GrowGraph();
  std::vector<float> TrainingQueries() const {
    MutexLock lock(training_mutex_);
    return training_.queries();
  }

  std::vector<float> RecentQueries() const {
    MutexLock lock(training_mutex_);
    const std::span<const float> recent = training_.recent();
    return {recent.begin(), recent.end()};
  }

  const HeadShape shape_;
  const IndexOptions options_;
  const SegmentOptions segment_options_;
  const std::shared_ptr<const SignRotation> rotation_;

  const TailShape tail_shape_;  // of tail_, to be read without its lock

  mutable Mutex writer_mutex_;
  SummaryTables tables_ ATTIC_GUARDED_BY(writer_mutex_);
  PooledTerms pooled_ ATTIC_GUARDED_BY(writer_mutex_);
  Calibration calibration_ ATTIC_GUARDED_BY(writer_mutex_);
  uint64_t front_cuts_ ATTIC_GUARDED_BY(writer_mutex_) = 0;    // of the next segment's tokens
  uint64_t segment_cuts_ ATTIC_GUARDED_BY(writer_mutex_) = 0;  // of segments

  mutable Mutex mutex_;
  Tail tail_ ATTIC_GUARDED_BY(mutex_);
  std::shared_ptr<const IndexedPart> part_ ATTIC_GUARDED_BY(mutex_);
  // The newest segments are published, the graph over them not yet.
  bool growing_graph_ ATTIC_GUARDED_BY(mutex_) = false;
  mutable std::shared_ptr<const IndexedHeadSnapshot> snapshot_ ATTIC_GUARDED_BY(mutex_);

  mutable Mutex training_mutex_;
  TrainingReservoir training_ ATTIC_GUARDED_BY(training_mutex_);

  // Segments held when the error model was learnt; changed by BuildNext and while restoring.
  std::atomic<size_t> calibrated_segments_{0};
  std::atomic<uint64_t> learnt_version_{0};

  // Only BuildNext touches these.
  GraphGrowth graph_growth_;
  uint64_t graph_segment_cuts_ = 0;
  std::atomic<uint64_t> builder_bytes_{0};
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_HEAD_INDEX_IMPL_H_
