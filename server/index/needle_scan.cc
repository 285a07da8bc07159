#include "server/index/needle_scan.h"

#include <algorithm>

#include "server/index/bfloat16.h"

namespace attic {
namespace {

constexpr size_t kPrefetchHits = 12;

class NeedleScan {
 public:
  NeedleScan(const IndexedPart& part, size_t group, std::span<const float> super_logits,
             PositionRange range, size_t count, NeedleScratch& scratch)
      : part_(part),
        group_(group),
        super_logits_(super_logits),
        range_(range),
        count_(count),
        scratch_(scratch) {}

  void PrepareQueries(std::span<const float> queries) {
    const SignRotation& rotation = *part_.rotation;
    const size_t table_bytes = rotation.code_dim() / 8 * 2 * kNibbleTableBytes;
    scratch_.tables.resize(group_ * table_bytes);
    scratch_.rotated.resize(rotation.code_dim());
    scratch_.sign_queries.resize(group_);
    for (size_t g = 0; g < group_; ++g) {
      scratch_.sign_queries[g] =
          MakeSignQuery(rotation, queries.data() + g * rotation.dim(), scratch_.rotated.data(),
                        scratch_.tables.data() + g * table_bytes);
    }
  }

  void ScanSegment(size_t index) {
    const Segment& segment = *part_.segments[index];
    const size_t blocks = segment.codes.block_count();
    check_positions_ = range_.begin > segment.begin_position || range_.end < segment.end_position();
    scratch_.thresholds.resize(group_ * blocks);
    scratch_.block_base.resize(blocks);
    scratch_.hits.resize(group_ * blocks * kCodeBlockRows);
    for (size_t g = 0; g < group_; ++g) {
      SetBlockBases(segment, BaseLogits(index, g));
      SetThresholds(segment.codes, g);
    }
    const size_t hits = ScanCodeBlocks(segment.codes.blocks.data(), blocks,
                                       segment.codes.code_bytes, scratch_.tables.data(), group_,
                                       scratch_.thresholds.data(), scratch_.hits.data());
    for (size_t i = 0; i < hits; ++i) {
      // Hits are scattered, so without this each would wait for memory.
      const size_t ahead = scratch_.hits[std::min(i + kPrefetchHits, hits - 1)].row;
      __builtin_prefetch(segment.codes.factor.data() + std::min(ahead, segment.tokens - 1));
      Consider(index, segment, scratch_.hits[i]);
    }
  }

  // Keeps the best `count` of each query.
  void Finish() {
    for (size_t g = 0; g < group_; ++g) Prune(g);
  }

 private:
  const float* BaseLogits(size_t segment, size_t g) const {
    return super_logits_.data() + g * part_.super_cluster_count() +
           segment * part_.super_clusters_per_segment;
  }

  // The largest q.c among the super-clusters with rows in each block.
  void SetBlockBases(const Segment& segment, const float* base_logits) {
    const uint32_t* super_begin = segment.super_clusters.row_begin.data();
    for (size_t b = 0; b < scratch_.block_base.size(); ++b) {
      size_t super = segment.block_super_cluster[b];
      float base = base_logits[super];
      const size_t end = std::min((b + 1) * kCodeBlockRows, segment.tokens);
      while (super_begin[super + 1] < end) base = std::max(base, base_logits[++super]);
      scratch_.block_base[b] = base;
    }
  }

  // The smallest code sum with which a row of the block could reach the floor: from
  // base + f (step * sum + offset) >= floor with the block's largest f.
  void SetThresholds(const SignCodes& codes, size_t g) {
    const float inverse_step = 1.0f / scratch_.sign_queries[g].step;
    const float offset = scratch_.sign_queries[g].offset;
    const float floor = scratch_.floors[g];
    const size_t blocks = codes.block_count();
    const float* base = scratch_.block_base.data();
    const float* inverse = codes.block_inverse.data();
    uint16_t* thresholds = scratch_.thresholds.data() + g * blocks;
    for (size_t b = 0; b < blocks; ++b) {
      const float missing = floor - base[b];
      const float sum = (missing * inverse[b] - offset) * inverse_step;
      const float needed = missing > 0 ? sum : 0.0f;
      const float clamped = std::min(std::max(needed, 0.0f), float{kSkipCodeBlock});
      thresholds[b] = static_cast<uint16_t>(static_cast<int32_t>(clamped));
    }
  }

  void Consider(size_t index, const Segment& segment, const CodeHit& hit) {
    if (hit.row >= segment.tokens) return;
    const std::vector<uint32_t>& begin = segment.super_clusters.row_begin;
    const size_t super = static_cast<size_t>(std::upper_bound(begin.begin(), begin.end(), hit.row) -
                                             begin.begin() - 1);
    const SignQuery& query = scratch_.sign_queries[hit.query];
    const float factor = WidenBFloat16(segment.codes.factor[hit.row]);
    const float logit = BaseLogits(index, hit.query)[super] +
                        factor * (query.step * static_cast<float>(hit.sum) + query.offset);
    if (logit < scratch_.floors[hit.query]) return;
    if (check_positions_) {
      const int64_t position = segment.position(hit.row);
      if (position < range_.begin || position >= range_.end) return;
    }
    std::vector<NeedleCandidate>& best = scratch_.best[hit.query];
    best.push_back({logit, static_cast<uint32_t>(index), hit.row});
    if (best.size() >= 2 * count_) Prune(hit.query);
  }

  void Prune(size_t g) {
    std::vector<NeedleCandidate>& best = scratch_.best[g];
    if (best.size() <= count_) return;
    std::nth_element(
        best.begin(), best.begin() + (count_ - 1), best.end(),
        [](const NeedleCandidate& a, const NeedleCandidate& b) { return a.logit > b.logit; });
    scratch_.floors[g] = best[count_ - 1].logit;
    best.resize(count_);
  }

  const IndexedPart& part_;
  const size_t group_;
  const std::span<const float> super_logits_;
  const PositionRange range_;
  const size_t count_;
  NeedleScratch& scratch_;
  bool check_positions_ = false;  // of the segment being scanned
};

}  // namespace

void FindNeedleCandidates(const IndexedPart& part, std::span<const float> queries,
                          std::span<const float> super_logits, PositionRange range,
                          std::span<const float> floors, size_t count, NeedleScratch& scratch,
                          ReadStatistics& read) {
  const size_t group = floors.size();
  scratch.best.resize(group);
  for (auto& best : scratch.best) best.clear();
  if (count == 0) return;
  scratch.floors.assign(floors.begin(), floors.end());
  NeedleScan scan(part, group, super_logits, range, count, scratch);
  scan.PrepareQueries(queries);
  for (size_t i = 0; i < part.segments.size(); ++i) {
    const Segment& segment = *part.segments[i];
    if (segment.end_position() <= range.begin || segment.begin_position >= range.end) continue;
    scan.ScanSegment(i);
    read.bytes_read += segment.codes.blocks.size();
  }
  scan.Finish();
}

}  // namespace attic
