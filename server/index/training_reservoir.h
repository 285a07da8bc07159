// A bounded uniform sample of the queries a head has seen.
#ifndef ATTIC_SERVER_INDEX_TRAINING_RESERVOIR_H_
#define ATTIC_SERVER_INDEX_TRAINING_RESERVOIR_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "base/byte_codec.h"

namespace attic {

// Not thread-safe.
class TrainingReservoir {
 public:
  TrainingReservoir(size_t dim, size_t count_max, uint64_t seed)
      : dim_(dim), count_max_(count_max), random_(seed) {}

  // Adds queries (n, dim). Every query ever added is kept with the same probability (Vitter's
  // algorithm R).
  void Add(std::span<const float> queries) {
    for (size_t at = 0; at + dim_ <= queries.size(); at += dim_, ++seen_) {
      const std::span<const float> query = queries.subspan(at, dim_);
      recent_.resize(kRecent * dim_);
      std::copy(query.begin(), query.end(), recent_.begin() + seen_ % kRecent * dim_);
      if (kept_.size() < count_max_ * dim_) {
        kept_.insert(kept_.end(), query.begin(), query.end());
        continue;
      }
      const uint64_t slot = std::uniform_int_distribution<uint64_t>(0, seen_)(random_);
      if (slot < count_max_) std::copy(query.begin(), query.end(), kept_.begin() + slot * dim_);
    }
  }

  const std::vector<float>& queries() const { return kept_; }  // (kept, dim)

  // The latest, and at most `kept_max` of the others.
  void Encode(size_t kept_max, ByteWriter& writer) const {
    writer.Put<uint64_t>(seen_);
    const size_t kept = std::min(kept_.size() / dim_, kept_max);
    writer.PutArray(std::span<const float>(kept_).first(kept * dim_));
    writer.PutArray(recent_);
  }

  // False when it is not of this dimension; then nothing changed.
  bool Decode(ByteReader& reader) {
    const auto seen = reader.Get<uint64_t>();
    std::vector<float> kept = reader.GetArray<float>();
    std::vector<float> recent = reader.GetArray<float>();
    const bool fits = kept.size() % dim_ == 0 && kept.size() / dim_ <= count_max_ &&
                      recent.size() == (seen > 0 ? kRecent * dim_ : 0);
    if (!reader.ok() || !fits) return false;
    for (const float x : kept) {
      if (!std::isfinite(x)) return false;
    }
    for (const float x : recent) {
      if (!std::isfinite(x)) return false;
    }
    seen_ = seen;
    kept_ = std::move(kept);
    recent_ = std::move(recent);
    return true;
  }

  // (at most kRecent, dim): the latest, in no order. What is asked next looks like them.
  std::span<const float> recent() const {
    return std::span(recent_).first(std::min<uint64_t>(seen_, kRecent) * dim_);
  }

 private:
  static constexpr size_t kRecent = 64;

  size_t dim_;
  size_t count_max_;
  uint64_t seen_ = 0;
  std::mt19937_64 random_;
  std::vector<float> kept_;
  std::vector<float> recent_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_TRAINING_RESERVOIR_H_
