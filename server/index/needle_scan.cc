#include "server/index/needle_scan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSqrtTwoOverPi = 0.79788456f;
constexpr size_t kBlocksTogether = 16;  // scanned
constexpr size_t kBlocksAhead = 32;     // on their way from memory meanwhile
constexpr size_t kRaisesMax = 4;  // keys scored to raise the floor, of blocks scanned together
constexpr size_t kFirstScored = 32;
constexpr size_t kPrefetchKeys = 8;
constexpr size_t kCacheLineBytes = 64;
// The super-clusters that may hide the largest logits come first, one in so many: what is found
// there raises the floor for the others.
constexpr size_t kFirstShare = 64;
constexpr size_t kSampleStride = 8;
// Where codes err by fewer logits than this, no key that they miss outweighs the others by much:
// fewer candidates do, one in kFewerCandidates.
constexpr float kSmallMargin = 10.0f;
constexpr size_t kFewerCandidates = 16;

bool HigherLogit(const NeedleCandidate& a, const NeedleCandidate& b) { return a.logit > b.logit; }

void PrefetchBytes(const void* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kCacheLineBytes) {
    __builtin_prefetch(static_cast<const std::byte*>(begin) + i);
  }
}

// What one query of the group has found and still looks for.
class NeedleQuery {
 public:
  NeedleQuery(const IndexedPart& part, const NeedleRequest& request, size_t g, float& log_total,
              NeedleScratch& scratch, ReadStatistics& read)
      : part_(part),
        request_(request),
        query_(request.queries.data() + g * part.shape.head_dim),
        tables_(scratch.tables.data() + g * TableBytes(part)),
        code_(MakeSignQuery(*part.rotation, query_, scratch.rotated.data(), tables_)),
        inverse_step_(1.0f / code_.step),
        radius_per_factor_(std::sqrt(static_cast<float>(part.rotation->code_dim())) *
                           kSqrtTwoOverPi),
        count_(request.count),
        log_total_(log_total),
        best_(scratch.best[g]),
        read_(read) {}

  // `radius` is that of an ordinary row.
  void LimitCandidates(float radius) {
    if (request_.log_share_min == -kInfinity) return;  // the best are wanted, not those that matter
    const float margin = CodeMargin(code_, code_.length * radius, 0.0f, 0.0f);
    if (margin < kSmallMargin) count_ = std::max<size_t>(1, count_ / kFewerCandidates);
  }

  static size_t TableBytes(const IndexedPart& part) {
    return part.rotation->code_dim() / 8 * 2 * kNibbleTableBytes;
  }

  const uint8_t* tables() const { return tables_; }
  float length() const { return code_.length; }
  float floor() const { return log_total_ + request_.log_share_min; }

  // The largest logit of a row at most `radius` from a reference with q.c = base: no exception,
  // |q.r| <= |q| |r|; a little more, for rounding.
  float Bound(float base, float radius) const { return base + code_.length * radius * (1 + 1e-5f); }

  // The smallest radius with which Bound reaches the floor.
  float RadiusToReachFloor(float base) const {
    return (floor() - base) / (code_.length * (1 + 1e-5f));
  }

  // The smallest code sum of a row of the block that may matter: from
  // base + f (step * sum + offset) >= floor - margin with the block's largest f and |r|.
  uint32_t Threshold(const CodeBlockBounds& block, float base) const {
    const float missing = floor() - base;
    const float margin = CodeMargin(code_, code_.length * block.radius, missing, block.factor);
    return SumOf(std::max(missing - margin, estimate_floor_ - base), block);
  }

  // The smallest code sum of a row that seems to outweigh everything known.
  uint32_t PromisingThreshold(const CodeBlockBounds& block, float base) const {
    return SumOf(log_total_ - base, block);
  }

  // A row of the block whose code has this sum, and this factor in units of the block's.
  void Consider(const PendingBlock& block, size_t row, uint32_t sum, uint8_t factor) {
    NeedleCandidate key;
    key.base = block.base;
    key.factor = block.factor_unit * factor;
    key.logit = key.base + key.factor * (code_.step * static_cast<float>(sum) + code_.offset);
    if (key.logit < estimate_floor_ || !MayMatter(key)) return;
    key.segment = block.segment;
    key.slot = static_cast<uint32_t>(block.block * kCodeBlockRows + row);
    // Elsewhere the row, which costs a read from memory, is found for those that are scored.
    if (IsCut(*part_.segments[key.segment])) {
      FindRows({&key, 1});
      if (!key.in_range) return;
    }
    promising_ |= key.logit > log_total_;
    best_.push_back(key);
  }

  // Of the candidates since the last call scores those that seem to outweigh everything, which
  // raises the floor for all that follow.
  void RaiseFloor(bool keep) {
    if (promising_) RaiseFloorBy(std::span(best_).subspan(settled_));
    promising_ = false;
    if (!keep) best_.resize(settled_);
    if (best_.size() >= 2 * count_) Prune();
    settled_ = best_.size();
  }

  // Scores the candidates exactly and keeps those that matter, best first. What the most promising
  // hold decides for most others.
  void ScoreCandidates() {
    Prune();
    const size_t first = std::min(kFirstScored, best_.size());
    std::nth_element(best_.begin(), best_.begin() + first, best_.end(), HigherLogit);
    ScoreExactly(std::span(best_).first(first));
    const auto rest = std::remove_if(best_.begin() + first, best_.end(),
                                     [&](const NeedleCandidate& key) { return !MayMatter(key); });
    best_.erase(rest, best_.end());
    ScoreExactly(std::span(best_).subspan(first));
    std::erase_if(best_,
                  [&](const NeedleCandidate& key) { return !key.in_range || key.logit < floor(); });
    std::sort(best_.begin(), best_.end(), HigherLogit);
  }

 private:
  uint32_t SumOf(float residual, const CodeBlockBounds& block) const {
    if (!(residual > 0)) return 0;
    constexpr float kSumMax = 65535.0f;  // more than any sum
    const float sum = (residual * block.inverse_factor - code_.offset) * inverse_step_;
    return static_cast<uint32_t>(static_cast<int32_t>(std::clamp(sum, 0.0f, kSumMax)));
  }

  void RaiseFloorBy(std::span<const NeedleCandidate> candidates) {
    NeedleCandidate keys[kRaisesMax];
    const auto end = std::partial_sort_copy(candidates.begin(), candidates.end(), std::begin(keys),
                                            std::end(keys), HigherLogit);
    const auto promising =
        std::find_if(keys, end, [&](const auto& key) { return key.logit <= log_total_; });
    ScoreExactly({keys, promising});
  }

  void ScoreExactly(std::span<NeedleCandidate> keys) {
    FindRows(keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (i + kPrefetchKeys < keys.size()) PrefetchKey(keys[i + kPrefetchKeys]);
      if (!keys[i].in_range) continue;
      keys[i].logit = Score(keys[i]);
      log_total_ = std::max(log_total_, keys[i].logit);
    }
  }

  bool MayMatter(const NeedleCandidate& key) const {
    const float reach = code_.length * radius_per_factor_ * key.factor;
    return key.logit >= floor() - CodeMargin(code_, reach, floor() - key.base, key.factor);
  }

  // Sets row and in_range.
  void FindRows(std::span<NeedleCandidate> keys) const {
    for (const NeedleCandidate& key : keys) {
      __builtin_prefetch(part_.segments[key.segment]->codes.row.data() + key.slot);
    }
    for (NeedleCandidate& key : keys) {
      const Segment& segment = *part_.segments[key.segment];
      key.row = segment.codes.row[key.slot];
      key.in_range = key.row != SignCodes::kNoRow;
      if (!key.in_range || !IsCut(segment)) continue;
      const int64_t position = segment.position(key.row);
      key.in_range = position >= request_.range.begin && position < request_.range.end;
    }
  }

  // Only segments cut by the range hold rows outside it.
  bool IsCut(const Segment& segment) const {
    return request_.range.begin > segment.begin_position ||
           request_.range.end < segment.end_position();
  }

  // Keeps the `count` candidates with the largest estimates.
  void Prune() {
    std::erase_if(best_, [&](const NeedleCandidate& key) { return !MayMatter(key); });
    if (best_.size() <= count_) return;
    std::nth_element(best_.begin(), best_.begin() + (count_ - 1), best_.end(), HigherLogit);
    estimate_floor_ = best_[count_ - 1].logit;
    best_.resize(count_);
  }

  VectorsView KeyOf(const NeedleCandidate& key) const {
    return part_.segments[key.segment]->key_rows().rows(key.row, 1);
  }

  void PrefetchKey(const NeedleCandidate& key) const {
    if (!key.in_range) return;
    const VectorsView row = KeyOf(key);
    PrefetchBytes(row.data, row.row_bytes());
  }

  float Score(const NeedleCandidate& key) {
    const VectorsView row = KeyOf(key);
    float logit = 0;
    ScoreVectors(query_, 1, row, &logit);
    read_.bytes_read += row.bytes();
    return logit;
  }

  const IndexedPart& part_;
  const NeedleRequest& request_;
  const float* const query_;  // (head_dim)
  uint8_t* const tables_;
  const SignQuery code_;
  const float inverse_step_;
  const float radius_per_factor_;  // |r| / f, about
  size_t count_;                   // candidates kept
  float& log_total_;
  float estimate_floor_ = -kInfinity;  // of estimates, once more than `count` are known
  std::vector<NeedleCandidate>& best_;
  size_t settled_ = 0;      // of best_, seen by RaiseFloor
  bool promising_ = false;  // one that was not seems to outweigh everything
  ReadStatistics& read_;
};

// Walks the super-clusters for all queries of the group together, so that a block comes from memory
// once.
class NeedleScan {
 public:
  NeedleScan(const IndexedPart& part, const NeedleRequest& request, std::span<float> log_total,
             NeedleScratch& scratch, ReadStatistics& read)
      : part_(part),
        super_count_(part.super_cluster_count()),
        code_bytes_(part.rotation->code_dim() / 8),
        block_bytes_((code_bytes_ + 1) * kCodeBlockRows),
        super_logits_(request.super_logits),
        scratch_(scratch),
        read_(read) {
    scratch.tables.resize(log_total.size() * NeedleQuery::TableBytes(part));
    scratch.rotated.resize(part.rotation->code_dim());
    scratch.hits.resize(kBlocksTogether * kCodeBlockRows);
    scratch.pending.resize(kBlocksTogether + kBlocksAhead);
    scratch.blocks.resize(kBlocksTogether + kBlocksAhead);
    scratch.block_read.assign(part.tables.blocks.size(), 0);
    queries_.reserve(log_total.size());
    for (size_t g = 0; g < log_total.size(); ++g) {
      queries_.emplace_back(part, request, g, log_total[g], scratch, read);
    }
    SetRange(request.range);
  }

  void Run() {
    SetBounds();
    const size_t group = queries_.size();
    for (size_t g = 0; g < group; ++g) {
      const float* bounds = scratch_.bounds.data() + g;
      const float first = scratch_.first_bounds[g];
      for (size_t i = begin_; i < end_; ++i) {
        if (bounds[i * group] >= first) AddSuperCluster(g, i);
      }
      Flush();
    }
    keep_ = true;
    const float* bounds = scratch_.bounds.data();
    const float* floors = scratch_.floors.data();
    for (size_t i = begin_; i < end_; ++i) {
      for (size_t g = 0; g < group; ++g) {
        if (bounds[i * group + g] >= floors[g]) AddSuperCluster(g, i);
      }
    }
    Flush();
    for (NeedleQuery& query : queries_) query.ScoreCandidates();
  }

 private:
  const float* BaseLogits(size_t g) const { return super_logits_.data() + g * super_count_; }

  // The super-clusters of segments with positions in `range`.
  void SetRange(PositionRange range) {
    size_t begin = 0, end = part_.segments.size();
    while (begin < end && part_.segments[begin]->end_position() <= range.begin) ++begin;
    while (end > begin && part_.segments[end - 1]->begin_position >= range.end) --end;
    begin_ = begin * part_.super_clusters_per_segment;
    end_ = end * part_.super_clusters_per_segment;
  }

  // The largest logit that a row of each super-cluster can have, and the bound that one in
  // kFirstShare of them reaches.
  void SetBounds() {
    const float* radius = part_.tables.super_radius.data();
    const size_t group = queries_.size();
    scratch_.bounds.resize(super_count_ * group);
    scratch_.first_bounds.assign(group, kInfinity);
    scratch_.floors.resize(group);
    float radius_sum = 0;
    size_t sampled = 0;
    for (size_t i = begin_; i < end_; i += kSampleStride, ++sampled) radius_sum += radius[i];
    for (NeedleQuery& query : queries_) {
      // Half of a super-cluster's largest is about what an ordinary row of it has.
      if (sampled > 0) query.LimitCandidates(0.5f * radius_sum / static_cast<float>(sampled));
    }
    for (size_t g = 0; g < group; ++g) {
      const NeedleQuery& query = queries_[g];
      const float* logits = BaseLogits(g);
      float* bounds = scratch_.bounds.data() + g;
      for (size_t i = begin_; i < end_; ++i) bounds[i * group] = query.Bound(logits[i], radius[i]);
      scratch_.floors[g] = query.floor();
      scratch_.sample.clear();
      for (size_t i = begin_; i < end_; i += kSampleStride) {
        scratch_.sample.push_back(bounds[i * group]);
      }
      if (scratch_.sample.empty()) continue;
      const auto at = scratch_.sample.begin() + scratch_.sample.size() / kFirstShare;
      std::nth_element(scratch_.sample.begin(), at, scratch_.sample.end(), std::greater<float>());
      scratch_.first_bounds[g] = *at;
    }
    read_.bytes_read += (end_ - begin_) * sizeof(float);
  }

  void AddSuperCluster(size_t g, size_t super) {
    const NeedleQuery& query = queries_[g];
    const auto index = static_cast<uint32_t>(super / part_.super_clusters_per_segment);
    const SignCodes& codes = part_.segments[index]->codes;
    const uint32_t before = part_.first_block(index * part_.super_clusters_per_segment);
    const float base = BaseLogits(g)[super];
    const float radius_min = query.RadiusToReachFloor(base);
    const CodeBlockBounds* bounds = part_.tables.blocks.data();
    const uint32_t last = part_.last_block(super);
    // By descending radius: what follows a block that cannot reach the floor cannot either.
    for (uint32_t b = part_.first_block(super); b < last && bounds[b].radius >= radius_min; ++b) {
      const uint8_t* block = codes.block(b - before);
      if (scratch_.block_read[b] == 0) {
        // It waits in the cache for the other queries of the group.
        PrefetchBytes(block, block_bytes_);
        read_.bytes_read += block_bytes_ + sizeof(bounds[b]);
        scratch_.block_read[b] = 1;
      }
      scratch_.pending[pending_] = {index, b - before, static_cast<uint32_t>(g), base,
                                    bounds[b].factor / SignCodes::kFactorMax};
      scratch_.blocks[pending_] = {
          block, query.tables(),
          keep_ ? query.Threshold(bounds[b], base) : query.PromisingThreshold(bounds[b], base)};
      if (++pending_ == kBlocksTogether + kBlocksAhead) Scan(kBlocksTogether);
    }
  }

  void Flush() {
    while (pending_ > 0) Scan(std::min(kBlocksTogether, pending_));
  }

  // The `count` blocks that have waited longest.
  void Scan(size_t count) {
    const size_t hits =
        ScanCodeBlocks(scratch_.blocks.data(), count, code_bytes_, scratch_.hits.data());
    for (size_t i = 0; i < hits; ++i) {
      const CodeHit& hit = scratch_.hits[i];
      const PendingBlock& block = scratch_.pending[hit.block];
      const uint8_t* factors = scratch_.blocks[hit.block].codes + code_bytes_ * kCodeBlockRows;
      queries_[block.query].Consider(block, hit.row, hit.sum, factors[hit.row]);
    }
    for (size_t g = 0; g < queries_.size(); ++g) {
      queries_[g].RaiseFloor(keep_);
      scratch_.floors[g] = queries_[g].floor();
    }
    pending_ -= count;
    std::copy_n(scratch_.pending.begin() + count, pending_, scratch_.pending.begin());
    std::copy_n(scratch_.blocks.begin() + count, pending_, scratch_.blocks.begin());
  }

  const IndexedPart& part_;
  const size_t super_count_;
  const size_t code_bytes_;
  const size_t block_bytes_;
  const std::span<const float> super_logits_;
  NeedleScratch& scratch_;
  ReadStatistics& read_;
  std::vector<NeedleQuery> queries_;
  size_t begin_ = 0, end_ = 0;  // super-clusters in range
  size_t pending_ = 0;          // blocks waiting to be scanned
  bool keep_ = false;           // candidates; the first pass only raises the floor
};

}  // namespace

void FindNeedles(const IndexedPart& part, const NeedleRequest& request, std::span<float> log_total,
                 NeedleScratch& scratch, ReadStatistics& read) {
  scratch.best.resize(log_total.size());
  for (auto& best : scratch.best) best.clear();
  if (request.count == 0) return;
  NeedleScan(part, request, log_total, scratch, read).Run();
}

}  // namespace attic
