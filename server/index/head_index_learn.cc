// What a head learns of its segments and queries, and how that is kept.
#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "server/index/head_index_impl.h"

namespace attic {
namespace {

constexpr uint32_t kLearntVersion = 1;
constexpr size_t kTrainingQueriesSaved = 1024;

}  // namespace

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

}  // namespace attic
