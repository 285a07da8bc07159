// The next segment of a head, and the graph over all of them.
#include <new>
#include <utility>

#include "base/status_macros.h"
#include "server/index/head_index_impl.h"

namespace attic {

absl::StatusOr<bool> HeadIndexImpl::BuildNext() {
  absl::StatusOr<bool> built = false;
  try {
    built = BuildSegmentAndGraph();
  } catch (const std::bad_alloc&) {
    graph_growth_.Restart();
    built = absl::ResourceExhaustedError("memory ran out while a segment was built");
  }
  MutexLock lock(mutex_);
  growing_graph_ = false;
  return built;
}

absl::StatusOr<bool> HeadIndexImpl::BuildSegmentAndGraph() {
  const bool built = BuildSegmentFromTail();
  if (built) CalibrateErrors();
  if (!built && !graph_is_due()) return false;
  if (!options_.centroid_graph) return true;
  absl::StatusOr<bool> grown = GrowGraph();
  builder_bytes_.store(graph_growth_.memory_bytes(), std::memory_order_relaxed);
  // Without a newer graph searches go on through super-clusters, so the segment stands.
  if (!grown.ok()) graph_growth_.Restart();
  return true;
}

bool HeadIndexImpl::BuildSegmentFromTail() {
  uint64_t front_cuts;
  TailView tail;
  {
    MutexLock writer(writer_mutex_);
    MutexLock lock(mutex_);
    front_cuts = front_cuts_;
    tail = tail_.View();
  }
  const int64_t tokens = options_.segment_tokens;
  if (tail.token_count() < tokens) return false;
  const int64_t begin = tail.begin_position();
  const auto rows = static_cast<size_t>(tokens);
  std::vector<std::byte> keys(rows * tail_shape().key_row_bytes());
  std::vector<std::byte> values(rows * tail_shape().value_row_bytes());
  tail.Copy({begin, begin + tokens}, keys.data(), values.data());
  const std::shared_ptr<const Segment> segment =
      BuildSegment({keys.data(), shape_.element_type, rows, shape_.head_dim},
                   {values.data(), shape_.element_type, rows, shape_.value_dim}, begin,
                   segment_options_, *rotation_, options_.vectors_budget);
  const std::shared_ptr<const VectorArrays> arrays = segment->vectors->arrays();
  const SegmentMoments moments = MeasureMoments(*segment, *arrays);
  const TermErrors errors =
      MeasureTerms(*segment, *arrays, moments.clusters, shape_.logit_scale, TrainingQueries());
  RenewPooledTerms();

  MutexLock writer(writer_mutex_);
  if (front_cuts_ != front_cuts) return true;  // what was built is gone; there may be more to do
  const std::shared_ptr<const IndexedPart> old = part();
  SegmentList segments = old->segments;
  segments.push_back(segment);
  tables_.Append(*segment, options_.centroid_graph);
  pooled_.Add(*segment, moments, errors);
  std::shared_ptr<const IndexedPart> next = MakePart(std::move(segments), old->graph);
  MutexLock lock(mutex_);
  tail_.DropFront(tokens);
  part_ = std::move(next);
  growing_graph_ = true;
  return true;
}

absl::StatusOr<bool> HeadIndexImpl::GrowGraph() {
  std::shared_ptr<const IndexedPart> from;
  bool idle;
  {
    MutexLock writer(writer_mutex_);
    from = part();
    idle = tail_segments() == 0;
    if (graph_segment_cuts_ != segment_cuts_) graph_growth_.Restart();
    graph_segment_cuts_ = segment_cuts_;
  }
  const size_t published = from->graph == nullptr ? 0 : from->graph->node_count();
  ATTIC_ASSIGN_OR_RETURN(
      std::shared_ptr<const QueryAwareGraph> graph,
      graph_growth_.Grow(from->centroids(), published, idle, [this] { return TrainingQueries(); }));
  if (graph == nullptr) return false;
  MutexLock writer(writer_mutex_);
  if (graph_segment_cuts_ != segment_cuts_) return false;
  std::shared_ptr<const IndexedPart> next = MakePart(part()->segments, std::move(graph));
  MutexLock lock(mutex_);
  part_ = std::move(next);
  return true;
}

}  // namespace attic
