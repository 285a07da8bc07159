#include "server/index/head_index.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/index/estimate/pooled_terms.h"
#include "server/index/graph_growth.h"
#include "server/index/head_snapshot.h"
#include "server/index/indexed_part.h"
#include "server/index/search/calibrate.h"
#include "server/index/segment/segment_builder.h"
#include "server/index/tail.h"
#include "server/index/training_reservoir.h"

namespace attic {
namespace {

constexpr int64_t kChunkTokensMax = 1024;
constexpr uint32_t kLearntVersion = 1;
constexpr size_t kTrainingQueriesSaved = 1024;

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

// Two locks, taken in this order: writer_mutex_ serialises everything that changes the head and is
// held while rows are copied; mutex_ covers only the hand-over of what readers see.
class HeadIndexImpl : public HeadIndex {
 public:
  HeadIndexImpl(const HeadShape& shape, const IndexOptions& options)
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

  void Append(const VectorsView& keys, const VectorsView& values) override {
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

  std::shared_ptr<const HeadSnapshot> Snapshot() const override {
    MutexLock lock(mutex_);
    if (snapshot_ == nullptr || snapshot_->part() != part_ ||
        snapshot_->token_count() != tail_.end_position()) {
      snapshot_ = std::make_shared<const IndexedHeadSnapshot>(part_, tail_.View());
    }
    return snapshot_;
  }

  absl::StatusOr<bool> BuildNext() override {
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

// Reads vectors without the lock; what is cut off meanwhile is left for the next time.
void HeadIndexImpl::RenewPooledTerms() {
  SegmentList segments;
  PooledTerms from(0, 0);
  uint64_t cuts;
  {
    MutexLock writer(writer_mutex_);
    if (!pooled_.stale()) return;
    from = pooled_;
    segments = part()->segments;
    cuts = segment_cuts_;
  }
  absl::StatusOr<PooledTerms> renewed = from.Renewed(segments);
  if (!renewed.ok()) return;  // those of more segments serve as well
  MutexLock writer(writer_mutex_);
  if (segment_cuts_ == cuts) pooled_ = *std::move(renewed);
}

// Whenever the head has doubled, and once all is built: so it takes a bounded share of the time.
void HeadIndexImpl::CalibrateErrors() {
  const std::shared_ptr<const IndexedPart> from = part();
  const size_t segments = from->segments.size();
  if (segments < calibrated_segments_) calibrated_segments_ = 0;  // truncated since
  const size_t calibrated = calibrated_segments_;
  const bool done = tail_segments() == 0;
  if (segments < (done ? calibrated + 1 + calibrated / 4 : 2 * calibrated + 1)) return;
  const absl::StatusOr<Calibration> calibration = Calibrate(*from, RecentQueries());
  if (!calibration.ok()) return;  // the one before stands
  calibrated_segments_ = segments;
  ++learnt_version_;
  MutexLock writer(writer_mutex_);
  calibration_ = *calibration;
  std::shared_ptr<const IndexedPart> next = MakePart(part()->segments, part()->graph);
  MutexLock lock(mutex_);
  part_ = std::move(next);
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

std::string HeadIndexImpl::LearntState() const {
  ByteWriter writer;
  writer.Put(kLearntVersion);
  {
    MutexLock lock(writer_mutex_);
    writer.Put<uint64_t>(calibrated_segments_.load(std::memory_order_relaxed));
    pooled_.Encode(writer);
    EncodeCalibration(calibration_, writer);
  }
  MutexLock lock(training_mutex_);
  training_.Encode(kTrainingQueriesSaved, writer);
  return writer.Take();
}

absl::Status HeadIndexImpl::RestoreLearntState(const std::string& state, size_t segments) {
  ByteReader reader(state);
  PooledTerms pooled(shape_.head_dim, shape_.value_dim);
  Calibration calibration;
  TrainingReservoir training(shape_.head_dim, options_.training_queries_max, options_.graph.seed);
  const bool known = reader.Get<uint32_t>() == kLearntVersion;
  const auto calibrated = reader.Get<uint64_t>();
  if (!known || !pooled.Decode(reader, segments) || !DecodeCalibration(reader, calibration) ||
      !training.Decode(reader) || !reader.AtEnd()) {
    return absl::InvalidArgumentError("what a head had learnt cannot be read");
  }
  calibrated_segments_ = std::min<size_t>(calibrated, segments);
  {
    MutexLock lock(training_mutex_);
    training_ = std::move(training);
  }
  MutexLock writer(writer_mutex_);
  pooled_ = std::move(pooled);
  calibration_ = calibration;
  std::shared_ptr<const IndexedPart> next = MakePart(part()->segments, part()->graph);
  MutexLock lock(mutex_);
  part_ = std::move(next);
  return absl::OkStatus();
}

absl::Status HeadIndexImpl::LearnFromSegments() {
  const SegmentList segments = Segments();
  PooledTerms none(shape_.head_dim, shape_.value_dim);
  none.Expect(segments.size());
  ATTIC_ASSIGN_OR_RETURN(PooledTerms renewed, none.Renewed(segments));
  MutexLock writer(writer_mutex_);
  if (part()->segments.size() != segments.size()) return absl::OkStatus();
  pooled_ = std::move(renewed);
  std::shared_ptr<const IndexedPart> next = MakePart(segments, part()->graph);
  MutexLock lock(mutex_);
  part_ = std::move(next);
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

}  // namespace

std::unique_ptr<HeadIndex> HeadIndex::Create(const HeadShape& shape, const IndexOptions& options) {
  ATTIC_CHECK(shape.head_dim > 0 && shape.value_dim > 0 && shape.group > 0);
  ATTIC_CHECK(options.segment_tokens > 0 && options.segment_tokens <= Segment::kTokensMax);
  ATTIC_CHECK(options.cluster_tokens > 0 && options.super_cluster_clusters > 0);
  return std::make_unique<HeadIndexImpl>(shape, options);
}

}  // namespace attic
