#include "server/index/needle_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/index/bfloat16.h"

namespace attic {
namespace {

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
    for (size_t i = 0; i < hits; ++i) Consider(index, segment, scratch_.hits[i]);
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
    const ClusterSums& supers = segment.super_clusters;
    std::fill(scratch_.block_base.begin(), scratch_.block_base.end(),
              -std::numeric_limits<float>::infinity());
    for (size_t s = 0; s < supers.count; ++s) {
      const size_t begin = supers.row_begin[s], end = supers.row_begin[s + 1];
      if (begin == end) continue;
      for (size_t b = begin / kCodeBlockRows; b <= (end - 1) / kCodeBlockRows; ++b) {
        scratch_.block_base[b] = std::max(scratch_.block_base[b], base_logits[s]);
      }
    }
  }

  // The smallest code sum with which a row of the block could reach the floor: from
  // base + f (step * sum + offset) >= floor with the block's largest f.
  void SetThresholds(const SignCodes& codes, size_t g) {
    const SignQuery& query = scratch_.sign_queries[g];
    const float floor = scratch_.floors[g];
    const float inverse_step = 1.0f / query.step;
    const size_t blocks = codes.block_count();
    uint16_t* thresholds = scratch_.thresholds.data() + g * blocks;
    for (size_t b = 0; b < blocks; ++b) {
      const float missing = floor - scratch_.block_base[b];
      const float factor = std::max(codes.block_factor[b], std::numeric_limits<float>::min());
      const float sum = (missing / factor - query.offset) * inverse_step;
      const float needed = missing > 0 ? std::max(sum, 0.0f) : 0.0f;
      thresholds[b] = needed < kSkipCodeBlock ? static_cast<uint16_t>(needed) : kSkipCodeBlock;
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
    const int64_t position = segment.position(hit.row);
    if (position < range_.begin || position >= range_.end) return;
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
