#include "server/index/segment/segment_vectors.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace attic {
namespace {

// Of the clusters of an evicted segment, those read at least so often are kept by its source.
constexpr uint8_t kOftenRead = 2;

struct ChargedArrays {
  ChargedArrays(VectorArrays vectors, std::shared_ptr<MemoryBudget> budget)
      : arrays(std::move(vectors)), charge(std::move(budget)) {
    charge.Set(arrays.bytes());
  }
  VectorArrays arrays;
  MemoryCharge charge;
};

}  // namespace

SegmentVectors::SegmentVectors(VectorArrays arrays, size_t clusters,
                               std::shared_ptr<MemoryBudget> budget)
    : clusters_(clusters),
      budget_(std::move(budget)),
      resident_bytes_(arrays.bytes()),
      bytes_(arrays.bytes()),
      reads_(new std::atomic<uint8_t>[clusters]()),
      arrays_(Charge(std::move(arrays))) {}

SegmentVectors::SegmentVectors(std::shared_ptr<const VectorSource> source, size_t clusters,
                               std::shared_ptr<MemoryBudget> budget)
    : clusters_(clusters),
      budget_(std::move(budget)),
      bytes_(source->bytes()),
      reads_(new std::atomic<uint8_t>[clusters]()),
      source_(std::move(source)) {}

std::shared_ptr<const VectorArrays> SegmentVectors::Charge(VectorArrays arrays) const {
  if (budget_ == nullptr) return std::make_shared<const VectorArrays>(std::move(arrays));
  const auto charged = std::make_shared<const ChargedArrays>(std::move(arrays), budget_);
  return {charged, &charged->arrays};
}

std::shared_ptr<const VectorArrays> SegmentVectors::arrays() const {
  MutexLock lock(mutex_);
  return arrays_;
}

std::shared_ptr<const VectorSource> SegmentVectors::source() const {
  MutexLock lock(mutex_);
  return source_;
}

void SegmentVectors::AttachSource(std::shared_ptr<const VectorSource> source) {
  ATTIC_CHECK(source != nullptr && source->bytes() == bytes_);
  MutexLock lock(mutex_);
  source_ = std::move(source);
}

absl::StatusOr<std::shared_ptr<const VectorArrays>> SegmentVectors::ArraysOrRead() const {
  std::shared_ptr<const VectorSource> source;
  {
    MutexLock lock(mutex_);
    if (arrays_ != nullptr) return arrays_;
    source = source_;
  }
  ATTIC_ASSIGN_OR_RETURN(VectorArrays arrays, source->ReadAll());
  return std::make_shared<const VectorArrays>(std::move(arrays));
}

uint64_t SegmentVectors::Evict(std::span<const uint32_t> row_begin) {
  ATTIC_CHECK(row_begin.size() == clusters_ + 1);
  std::shared_ptr<const VectorArrays> arrays;
  std::shared_ptr<const VectorSource> source;
  {
    MutexLock lock(mutex_);
    if (arrays_ == nullptr || source_ == nullptr) return 0;
    arrays = std::exchange(arrays_, nullptr);
    source = source_;
    resident_bytes_.store(0, std::memory_order_relaxed);
  }
  const size_t rows = row_begin.back();
  const size_t key_bytes = arrays->keys.size() / std::max<size_t>(rows, 1);
  const size_t value_bytes = arrays->values.size() / std::max<size_t>(rows, 1);
  for (size_t cluster = 0; cluster < clusters_; ++cluster) {
    if (reads_[cluster].load(std::memory_order_relaxed) < kOftenRead) continue;
    const size_t begin = row_begin[cluster], count = row_begin[cluster + 1] - begin;
    source->Keep(static_cast<uint32_t>(cluster),
                 std::span(arrays->keys).subspan(begin * key_bytes, count * key_bytes),
                 std::span(arrays->values).subspan(begin * value_bytes, count * value_bytes));
  }
  return arrays->bytes();
}

absl::Status SegmentVectors::Load() {
  std::shared_ptr<const VectorSource> source;
  {
    MutexLock lock(mutex_);
    if (arrays_ != nullptr) return absl::OkStatus();
    source = source_;
  }
  ATTIC_ASSIGN_OR_RETURN(VectorArrays read, source->ReadAll());
  std::shared_ptr<const VectorArrays> arrays = Charge(std::move(read));
  MutexLock lock(mutex_);
  if (arrays_ != nullptr) return absl::OkStatus();
  arrays_ = std::move(arrays);
  resident_bytes_.store(bytes_, std::memory_order_relaxed);
  return absl::OkStatus();
}

uint64_t SegmentVectors::Heat(bool halve) {
  uint64_t sum = 0;
  for (size_t cluster = 0; cluster < clusters_; ++cluster) {
    const uint8_t reads = reads_[cluster].load(std::memory_order_relaxed);
    sum += reads;
    if (halve) reads_[cluster].store(reads / 2, std::memory_order_relaxed);
  }
  return sum;
}

}  // namespace attic
