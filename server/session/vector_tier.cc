#include "server/session/vector_tier.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/time/clock.h"

namespace attic {
namespace {

constexpr size_t kLoadsTogether = 16;  // before the budget is looked at again by others

}  // namespace

// All vectors of the store, each once.
struct VectorTier::Inventory {
  std::vector<std::shared_ptr<const Segment>> on_disk;    // and perhaps in memory, too
  std::vector<std::shared_ptr<const Segment>> in_memory;  // only
  uint64_t bytes = 0;                                     // of all
  uint64_t resident_bytes = 0;
};

VectorTier::VectorTier(std::shared_ptr<DurableStore> disk, std::shared_ptr<MemoryBudget> budget,
                       std::function<std::vector<std::shared_ptr<const Segment>>()> segments,
                       const VectorTierOptions& options)
    : disk_(std::move(disk)),
      budget_(std::move(budget)),
      segments_(std::move(segments)),
      options_(options),
      cache_charge_(budget_),
      thread_([this] { Run(); }) {}

VectorTier::~VectorTier() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  thread_.join();
}

absl::Status VectorTier::MakeRoom(uint64_t bytes, absl::Time deadline) {
  if (budget_->used_bytes() + bytes <= budget_->bytes_max()) return absl::OkStatus();
  MutexLock lock(mutex_);
  needed_ = std::max(needed_, bytes);
  wake_.NotifyAll();
  // The round after the one that is under way has seen the need.
  const uint64_t enough = rounds_ + 2;
  while (rounds_ < enough && !stopping_) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("memory_bytes_max: vectors are still being evicted");
    }
    balanced_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Seconds(1))));
    if (budget_->used_bytes() + bytes <= budget_->bytes_max()) break;
    wake_.NotifyAll();
  }
  return absl::OkStatus();
}

void VectorTier::Run() {
  for (;;) {
    uint64_t needed;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      needed = std::exchange(needed_, 0);
    }
    const bool more = Balance(needed);
    MutexLock lock(mutex_);
    ++rounds_;
    balanced_.NotifyAll();
    if (!more && needed_ == 0 && !stopping_) {
      wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(options_.interval));
    }
  }
}

VectorTier::Inventory VectorTier::TakeInventory() const {
  Inventory inventory;
  std::unordered_set<const SegmentVectors*> seen;
  for (auto& segment : segments_()) {
    const SegmentVectors& vectors = *segment->vectors;
    if (!seen.insert(&vectors).second) continue;
    inventory.bytes += vectors.bytes();
    inventory.resident_bytes += vectors.resident_bytes();
    auto& list = vectors.source() == nullptr ? inventory.in_memory : inventory.on_disk;
    list.push_back(std::move(segment));
  }
  return inventory;
}

bool VectorTier::Balance(uint64_t needed) {
  Inventory inventory = TakeInventory();
  const uint64_t used = budget_->used_bytes();
  const uint64_t fixed = used - std::min(used, inventory.resident_bytes + cache_bytes_) + needed;
  // Between the watermarks it stays as it was.
  if (fixed + inventory.bytes > Share(options_.high_watermark)) fits_ = false;
  if (fixed + inventory.bytes < Share(options_.low_watermark)) fits_ = true;
  if (fits_) {
    SetCacheBytes(options_.cache_bytes_min);
    return LoadSome(inventory);
  }
  for (const auto& segment : inventory.on_disk) {
    if (segment->vectors->resident()) segment->vectors->Evict(segment->clusters.row_begin);
  }
  const uint64_t high = Share(options_.high_watermark);
  const uint64_t left = high - std::min(high, fixed);
  const uint64_t kept = SpillDownTo(left - std::min(left, options_.cache_bytes_min), inventory);
  SetCacheBytes(std::max(options_.cache_bytes_min, left - std::min(left, kept)));
  return false;
}

void VectorTier::SetCacheBytes(uint64_t bytes) {
  if (bytes == cache_bytes_) return;
  disk_->SetCacheBytes(bytes);
  cache_charge_.Set(bytes);
  cache_bytes_ = bytes;
}

// The least read first. Returns the bytes that stay.
uint64_t VectorTier::SpillDownTo(uint64_t bytes_max, const Inventory& inventory) {
  uint64_t kept = 0;
  for (const auto& segment : inventory.in_memory) kept += segment->vectors->bytes();
  if (kept <= bytes_max) return kept;
  std::vector<std::pair<uint64_t, const Segment*>> by_heat;
  for (const auto& segment : inventory.in_memory) {
    by_heat.emplace_back(segment->vectors->Heat(/*halve=*/true), segment.get());
  }
  std::sort(by_heat.begin(), by_heat.end());
  for (const auto& [heat, segment] : by_heat) {
    if (kept <= bytes_max || stopping()) return kept;
    const uint64_t spilled = Spill(*segment);
    if (spilled == 0) return kept;  // the disk is full or fails
    kept -= spilled;
  }
  return kept;
}

uint64_t VectorTier::Spill(const Segment& segment) {
  const std::shared_ptr<const VectorArrays> arrays = segment.vectors->arrays();
  auto source = disk_->SpillSegment(segment, *arrays);
  if (!source.ok()) return 0;
  segment.vectors->AttachSource(*std::move(source));
  return segment.vectors->Evict(segment.clusters.row_begin);
}

// The most read first. True when there is more to load: the budget is to be looked at in between.
bool VectorTier::LoadSome(const Inventory& inventory) {
  std::vector<std::pair<uint64_t, const Segment*>> absent;
  for (const auto& segment : inventory.on_disk) {
    if (segment->vectors->resident()) continue;
    absent.emplace_back(segment->vectors->Heat(/*halve=*/false), segment.get());
  }
  std::stable_sort(absent.begin(), absent.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const size_t count = std::min(absent.size(), kLoadsTogether);
  for (size_t i = 0; i < count && !stopping(); ++i) {
    // What cannot be read stays where it is: who needs it will be told.
    if (!absent[i].second->vectors->Load().ok()) return false;
  }
  return absent.size() > count;
}

}  // namespace attic
