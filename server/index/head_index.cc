#include "server/index/head_index.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "server/index/head_index_impl.h"

namespace attic {
namespace {

constexpr int64_t kChunkTokensMax = 1024;

// The largest divisor of the segment length that is a reasonable allocation.
size_t ChunkTokens(int64_t segment_tokens) {
  int64_t chunk = std::min(segment_tokens, kChunkTokensMax);
  while (segment_tokens % chunk != 0) --chunk;
  return static_cast<size_t>(chunk);
}

SegmentOptions MakeSegmentOptions(const IndexOptions& options) {
  SegmentOptions result;
  const int64_t clusters = std::max<int64_t>(1, options.segment_tokens / options.cluster_tokens);
  const int64_t supers = std::max<int64_t>(1, clusters / options.super_cluster_clusters);
  result.clusters = static_cast<size_t>(clusters);
  result.super_clusters = static_cast<size_t>(supers);
  result.kmeans_iterations = options.kmeans_iterations;
  return result;
}

// Appends the positions of `segment` below `end` to a tail that ends where the segment begins.
void ReturnToTail(const Segment& segment, const VectorArrays& arrays, int64_t end, Tail& tail) {
  const VectorsView keys = segment.key_rows(arrays), values = segment.value_rows(arrays);
  const std::vector<uint32_t> rows = segment.RowsByPosition();
  for (int64_t i = 0; i < end - segment.begin_position; ++i) {
    const size_t row = rows[static_cast<size_t>(i)];
    AppendToTail(keys.rows(row, 1), values.rows(row, 1), tail);
  }
}

}  // namespace

std::unique_ptr<HeadIndex> HeadIndex::Create(const HeadShape& shape, const IndexOptions& options) {
  ATTIC_CHECK(shape.head_dim > 0 && shape.value_dim > 0 && shape.group > 0);
  ATTIC_CHECK(options.segment_tokens > 0 && options.segment_tokens <= Segment::kTokensMax);
  ATTIC_CHECK(options.cluster_tokens > 0 && options.super_cluster_clusters > 0);
  return std::make_unique<HeadIndexImpl>(shape, options);
}

HeadIndexImpl::HeadIndexImpl(const HeadShape& shape, const IndexOptions& options)
    : shape_(shape),
      options_(options),
      segment_options_(MakeSegmentOptions(options)),
      rotation_(std::make_shared<const SignRotation>(shape.head_dim)),
      tail_shape_({shape.element_type, shape.head_dim, shape.value_dim,
                   ChunkTokens(options.segment_tokens)}),
      pooled_(shape.head_dim, shape.value_dim),
      tail_(tail_shape_, 0),
      training_(shape.head_dim, options.training_queries_max, options.graph.seed),
      graph_growth_(shape.head_dim, options.graph, options.graph_clusters_min) {
  part_ = MakePart({}, nullptr);
}

void HeadIndexImpl::Append(const VectorsView& keys, const VectorsView& values) {
  ATTIC_CHECK(keys.count == values.count && keys.dim == shape_.head_dim &&
              values.dim == shape_.value_dim && keys.type == shape_.element_type &&
              values.type == shape_.element_type);
  MutexLock writer(writer_mutex_);
  for (size_t done = 0; done < keys.count;) {
    Tail::Room room = Reserve();
    room.rows = std::min(room.rows, keys.count - done);
    FillRoom(tail_shape(), room, keys, values, done);
    Advance(room.rows);
    done += room.rows;
  }
}

std::shared_ptr<const HeadSnapshot> HeadIndexImpl::Snapshot() const {
  MutexLock lock(mutex_);
  if (snapshot_ == nullptr || snapshot_->part() != part_ ||
      snapshot_->token_count() != tail_.end_position()) {
    snapshot_ = std::make_shared<const IndexedHeadSnapshot>(part_, tail_.View());
  }
  return snapshot_;
}

std::shared_ptr<const IndexedPart> HeadIndexImpl::MakePart(
    SegmentList segments, std::shared_ptr<const QueryAwareGraph> graph) const {
  auto part = std::make_shared<IndexedPart>();
  part->shape = shape_;
  part->options = options_;
  part->clusters_per_segment = segment_options_.clusters;
  part->super_clusters_per_segment = segment_options_.super_clusters;
  part->segments = std::move(segments);
  part->tables = tables_.Views();
  part->terms = pooled_.Terms();
  part->calibration = calibration_;
  part->graph = std::move(graph);
  part->rotation = rotation_;
  return part;
}

absl::StatusOr<std::shared_ptr<const VectorArrays>> HeadIndexImpl::ArraysOfCut(
    const IndexedPart& part, int64_t position) const {
  if (position >= part.token_count()) return nullptr;
  const auto cut = static_cast<size_t>(position / options_.segment_tokens);
  return part.segments[cut]->vectors->ArraysOrRead();
}

absl::Status HeadIndexImpl::Truncate(int64_t position) {
  ATTIC_CHECK(position >= 0);
  // Builders only add segments, so one that is cut now is cut later, too.
  std::shared_ptr<const VectorArrays> arrays;
  ATTIC_ASSIGN_OR_RETURN(arrays, ArraysOfCut(*part(), position));
  MutexLock writer(writer_mutex_);
  const std::shared_ptr<const IndexedPart> old = part();
  const int64_t indexed = old->token_count();
  if (position < indexed && arrays == nullptr) {  // built meanwhile, so in memory
    ATTIC_ASSIGN_OR_RETURN(arrays, ArraysOfCut(*old, position));
  }
  if (position < indexed + options_.segment_tokens) ++front_cuts_;
  if (position >= indexed) {
    MutexLock lock(mutex_);
    ATTIC_CHECK(position <= tail_.end_position());
    tail_.Truncate(position);
    return absl::OkStatus();
  }
  ++segment_cuts_;
  const auto kept = static_cast<size_t>(position / options_.segment_tokens);
  SegmentList segments(old->segments.begin(), old->segments.begin() + kept);
  Tail tail(tail_shape(), static_cast<int64_t>(kept) * options_.segment_tokens);
  ReturnToTail(*old->segments[kept], *arrays, position, tail);
  tables_.Truncate(kept, old->segments.size());
  pooled_.Truncate(kept);
  const bool graph_fits =
      old->graph != nullptr && old->graph->node_count() <= kept * segment_options_.clusters;
  std::shared_ptr<const IndexedPart> next =
      MakePart(std::move(segments), graph_fits ? old->graph : nullptr);
  MutexLock lock(mutex_);
  tail_ = std::move(tail);
  part_ = std::move(next);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<HeadIndex>> HeadIndexImpl::Fork(int64_t position) const {
  auto fork = std::make_unique<HeadIndexImpl>(shape_, options_);
  std::shared_ptr<const VectorArrays> arrays;
  ATTIC_ASSIGN_OR_RETURN(arrays, ArraysOfCut(*part(), position));
  MutexLock fork_writer(fork->writer_mutex_);
  {
    MutexLock writer(writer_mutex_);
    const std::shared_ptr<const IndexedPart> old = part();
    const bool cuts_segment = position < old->token_count();
    const size_t kept = cuts_segment ? static_cast<size_t>(position / options_.segment_tokens)
                                     : old->segments.size();
    fork->tables_ = tables_.Prefix(kept, old->segments.size());
    SegmentList segments(old->segments.begin(), old->segments.begin() + kept);
    fork->pooled_ = pooled_;
    fork->calibration_ = calibration_;
    if (cuts_segment) fork->pooled_.Truncate(kept);
    const bool graph_fits =
        old->graph != nullptr && old->graph->node_count() <= kept * segment_options_.clusters;
    auto part = fork->MakePart(std::move(segments), graph_fits ? old->graph : nullptr);
    Tail tail(tail_shape(), part->token_count());
    if (cuts_segment) {
      if (arrays == nullptr) {  // built meanwhile, so in memory
        ATTIC_ASSIGN_OR_RETURN(arrays, ArraysOfCut(*old, position));
      }
      ReturnToTail(*old->segments[kept], *arrays, position, tail);
    } else {
      MutexLock lock(mutex_);
      tail = tail_.Prefix(position);
    }
    MutexLock fork_lock(fork->mutex_);
    fork->part_ = std::move(part);
    fork->tail_ = std::move(tail);
  }
  MutexLock training(training_mutex_);
  MutexLock fork_training(fork->training_mutex_);
  fork->training_ = training_;
  return std::unique_ptr<HeadIndex>(std::move(fork));
}

absl::Status HeadIndexImpl::AddSegment(std::shared_ptr<const Segment> segment) {
  const bool fits = segment->element_type == shape_.element_type &&
                    segment->head_dim == shape_.head_dim &&
                    segment->value_dim == shape_.value_dim &&
                    static_cast<int64_t>(segment->tokens) == options_.segment_tokens &&
                    segment->clusters.count == segment_options_.clusters &&
                    segment->super_clusters.count == segment_options_.super_clusters &&
                    segment->codes.code_bytes == rotation_->code_dim() / 8 &&
                    segment->residuals.row_bytes == ResidualRowBytes(*rotation_);
  if (!fits) {
    return absl::InvalidArgumentError(
        "segment: was built with other options, or is of another shape than the head");
  }
  MutexLock writer(writer_mutex_);
  const std::shared_ptr<const IndexedPart> old = part();
  if (token_count() > old->token_count() || segment->begin_position != old->token_count()) {
    return absl::InvalidArgumentError("segment: does not begin where the head ends");
  }
  tables_.Append(*segment, options_.centroid_graph);
  auto next = std::make_shared<IndexedPart>(*old);
  next->tables = tables_.Views();
  next->segments.push_back(segment);
  MutexLock lock(mutex_);
  tail_ = Tail(tail_shape(), segment->end_position());
  part_ = std::move(next);
  growing_graph_ = options_.centroid_graph;
  return absl::OkStatus();
}

HeadPlan HeadIndexImpl::Plan() const {
  const std::shared_ptr<const IndexedPart> part = this->part();
  const Calibration& calibration = part->calibration;
  return {.indexed_tokens = part->token_count(),
          .answers_measured = calibration.errors.samples,
          .scans_by_default = part->ScanIsBetter({}),
          .scan_faster_below = calibration.scan_faster_below,
          .least_error = calibration.least_error,
          .coverage_max = calibration.coverage_max,
          .hidden_mass = calibration.hidden_mass};
}

MemoryUse HeadIndexImpl::memory_use() const {
  MemoryUse use;
  std::shared_ptr<const IndexedPart> part;
  {
    MutexLock writer(writer_mutex_);
    use.summaries_bytes += tables_.memory_bytes();
    MutexLock lock(mutex_);
    use.tail_bytes = tail_.memory_bytes();
    part = part_;
  }
  for (const auto& segment : part->segments) {
    const uint64_t resident = segment->vectors->resident_bytes();
    use.vectors_bytes += resident;
    use.evicted_bytes += segment->vectors->bytes() - resident;
    use.summaries_bytes += segment->summaries_bytes();
    use.codes_bytes += segment->codes_bytes();
  }
  use.graph_bytes = builder_bytes_.load(std::memory_order_relaxed);
  if (part->graph != nullptr) use.graph_bytes += part->graph->memory_bytes();
  return use;
}

}  // namespace attic
