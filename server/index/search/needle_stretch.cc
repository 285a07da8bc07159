#include "server/index/search/needle_stretch.h"

#include <algorithm>

#include "base/prefetch.h"

namespace attic {
namespace {

// Super-clusters of one turn: their blocks are scanned for one query after the other, which finds
// them in the cache, while those of the next turn come from memory.
constexpr size_t kTurnSupers = 16;

}  // namespace

NeedleStretch::NeedleStretch(const IndexedPart& part, const NeedleRequest& request,
                             std::span<uint32_t> blocks_read, NeedleStretchScratch& scratch)
    : part_(part),
      request_(request),
      super_count_(part.super_cluster_count()),
      code_bytes_(part.rotation->code_dim() / 8),
      blocks_read_(blocks_read),
      scratch_(scratch) {}

void NeedleStretch::AddQuery(const CodedQuery& query, std::atomic<float>& log_total, size_t count) {
  const size_t g = queries_.size();
  scratch_.best[g].clear();
  queries_.emplace_back(part_, request_, query, log_total, count, scratch_.best[g], scratch_.rows,
                        read_);
}

void NeedleStretch::RaiseFloor(size_t g, const SuperRange& range, float bound) {
  keep_ = false;
  const std::span<const uint32_t> supers = InReach(g, range, bound);
  for (size_t i = 0; i < supers.size(); i += kTurnSupers) {
    scratch_.ahead.clear();
    List(turn_, g, supers.subspan(i, std::min(kTurnSupers, supers.size() - i)));
    Fetch(0);
    Scan(turn_, g, scratch_.ahead.size());
  }
}

void NeedleStretch::Collect(const SuperRange& range) {
  keep_ = true;
  ListTurn(range.begin, range.end);
  for (size_t i = range.begin; i < range.end; i += kTurnSupers) {
    turn_ = 1 - turn_;
    ListTurn(i + kTurnSupers, range.end);
    size_t fetched = 0;
    for (size_t g = 0; g < queries_.size(); ++g) fetched += Scan(1 - turn_, g, fetched);
    Fetch(fetched);
  }
  read_.bytes_read += range.size() * sizeof(float);
}

// Those in which a row can reach `floor`. Valid until the next call.
std::span<const uint32_t> NeedleStretch::InReach(size_t g, const SuperRange& range, float floor) {
  scratch_.supers.resize(std::max(scratch_.supers.size(), range.size() + kCodeLimitsSlack));
  const size_t count = ListGroupsInReach(
      request_.super_logits.data() + g * super_count_ + range.begin,
      part_.tables.super_radius.data() + range.begin, range.size(), queries_[g].length(), floor,
      static_cast<uint32_t>(range.begin), scratch_.supers.data());
  return {scratch_.supers.data(), count};
}

// Lists the blocks of the turn that starts at super-cluster `begin`; none at the end.
void NeedleStretch::ListTurn(size_t begin, size_t end) {
  const SuperRange turn{std::min(begin, end), std::min(begin + kTurnSupers, end)};
  scratch_.ahead.clear();
  for (size_t g = 0; g < queries_.size(); ++g) {
    List(turn_, g, InReach(g, turn, queries_[g].floor()));
  }
}

void NeedleStretch::List(size_t turn, size_t g, std::span<const uint32_t> supers) {
  ListedBlocks& list = Listed(turn, g);
  list.count = 0;
  for (const uint32_t super : supers) ListBlocks(g, super, list);
}

// The codes of the segment of `super`. The same segment is asked for many times in a row.
const NeedleStretch::SegmentCodes& NeedleStretch::CodesOf(size_t super) {
  if (super < segment_.begin || super >= segment_.end) {
    const size_t per_segment = part_.super_clusters_per_segment;
    segment_.segment = static_cast<uint32_t>(super / per_segment);
    segment_.begin = segment_.segment * per_segment;
    segment_.end = segment_.begin + per_segment;
    segment_.codes = &part_.segments[segment_.segment]->codes;
    segment_.first_block = part_.first_block(segment_.begin);
  }
  return segment_;
}

void NeedleStretch::ListBlocks(size_t g, uint32_t super, ListedBlocks& list) {
  const NeedleQuery& query = queries_[g];
  const SegmentCodes& segment = CodesOf(super);
  const SignCodes& codes = *segment.codes;
  const uint32_t before = segment.first_block;
  const uint32_t first = part_.first_block(super), last = part_.last_block(super);
  const float base = Base(g, super);
  const float* radius = part_.tables.block_radius.data();
  const float* factor = part_.tables.block_factor.data();
  Reserve(list.count + last - first, list);
  // By descending radius: what follows a block that cannot reach the floor cannot either.
  const float radius_min = (query.floor() - base) / query.length();
  uint32_t b = first;
  for (; b < last && radius[b] >= radius_min; ++b) {
    const size_t i = list.count++;
    list.super[i] = super;
    list.block[i] = b;
    list.codes[i] = codes.block(b - before);
    list.base[i] = base;
    list.radius[i] = radius[b];
    list.factor[i] = factor[b];
  }
  for (uint32_t& read = blocks_read_[super]; read < b - first; ++read) {
    scratch_.ahead.push_back(codes.block(first + read - before));
    read_.bytes_read += codes.block_bytes() + 2 * sizeof(float);
  }
}

void NeedleStretch::Reserve(size_t blocks, ListedBlocks& list) {
  if (blocks <= list.super.size()) return;
  list.super.resize(blocks);
  list.block.resize(blocks);
  list.codes.resize(blocks);
  list.base.resize(blocks);
  list.radius.resize(blocks);
  list.factor.resize(blocks);
  if (blocks + kCodeLimitsSlack <= scratch_.sum_min.size()) return;
  scratch_.sum_min.resize(blocks + kCodeLimitsSlack);
  scratch_.sum_offset.resize(blocks + kCodeLimitsSlack);
  scratch_.product_min.resize(blocks + kCodeLimitsSlack);
  scratch_.hits.resize(blocks * kCodeBlockRows);
}

// Brings what was listed, but for the first `from`, into the cache.
void NeedleStretch::Fetch(size_t from) {
  const size_t block_bytes = (code_bytes_ + 1) * kCodeBlockRows;
  for (; from < scratch_.ahead.size(); ++from) PrefetchBytes(scratch_.ahead[from], block_bytes);
}

// Scans what was listed for query `g`, and fetches meanwhile; returns how many blocks came.
size_t NeedleStretch::Scan(size_t turn, size_t g, size_t fetched) {
  const ListedBlocks& list = Listed(turn, g);
  if (list.count == 0) return 0;
  NeedleQuery& query = queries_[g];
  const CodeBlocks blocks{.count = list.count,
                          .codes = list.codes.data(),
                          .base = list.base.data(),
                          .radius = list.radius.data(),
                          .factor = list.factor.data()};
  const CodeLimits limits{scratch_.sum_min.data(), scratch_.sum_offset.data(),
                          scratch_.product_min.data()};
  MakeCodeLimits(query.Question(!keep_), blocks, code_bytes_, limits);
  const auto ahead = std::span<const uint8_t* const>(scratch_.ahead).subspan(fetched);
  const size_t hits =
      ScanCodeBlocks(blocks, limits, code_bytes_, query.tables(), ahead, scratch_.hits.data());
  for (size_t i = 0; i < hits; ++i) Consider(query, list, scratch_.hits[i]);
  query.RaiseFloor(keep_);
  return std::min(ahead.size(), list.count);
}

void NeedleStretch::Consider(NeedleQuery& query, const ListedBlocks& list, const CodeHit& hit) {
  const SegmentCodes& segment = CodesOf(list.super[hit.block]);
  const uint8_t units = list.codes[hit.block][code_bytes_ * kCodeBlockRows + hit.row];
  NeedleQuery::ScannedRow row;
  row.segment = segment.segment;
  row.slot = static_cast<uint32_t>((list.block[hit.block] - segment.first_block) * kCodeBlockRows +
                                   hit.row);
  row.base = list.base[hit.block];
  row.factor = list.factor[hit.block] / kCodeFactorMax * units;
  row.sum = hit.sum;
  query.Consider(row);
}

}  // namespace attic
