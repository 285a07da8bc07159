#include "server/index/needle_scan.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

#include "server/index/needle_query.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Super-clusters of one turn: their blocks are scanned for one query after the other, which finds
// them in the cache, while those of the next turn come from memory.
constexpr size_t kTurnSupers = 16;
// The super-clusters that may hide the largest logits come first, one in so many: what is found
// there raises the floor for the others.
constexpr size_t kFirstShare = 64;
constexpr size_t kSampleStride = 8;
// A stretch is long enough to be worth the hand-over to another thread.
constexpr size_t kStretchSupersMin = 256;
constexpr size_t kStretchesMax = 8;

struct SuperRange {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// The super-clusters of segments with positions in `range`.
SuperRange SupersOf(const IndexedPart& part, PositionRange range) {
  size_t begin = 0, end = part.segments.size();
  while (begin < end && part.segments[begin]->end_position() <= range.begin) ++begin;
  while (end > begin && part.segments[end - 1]->begin_position >= range.end) --end;
  return {begin * part.super_clusters_per_segment, end * part.super_clusters_per_segment};
}

struct SegmentCodes {
  size_t begin = 0, end = 0;  // its super-clusters
  uint32_t segment = 0;
  uint32_t first_block = 0;  // through all segments
  const SignCodes* codes = nullptr;
};

// Scans super-clusters for all queries of the group together.
class StretchScan {
 public:
  StretchScan(const IndexedPart& part, const NeedleRequest& request,
              std::span<uint32_t> blocks_read, NeedleStretchScratch& scratch)
      : part_(part),
        request_(request),
        super_count_(part.super_cluster_count()),
        code_bytes_(part.rotation->code_dim() / 8),
        blocks_read_(blocks_read),
        scratch_(scratch) {}

  void AddQuery(const CodedQuery& query, std::atomic<float>& log_total, size_t count) {
    const size_t g = queries_.size();
    scratch_.best[g].clear();
    queries_.emplace_back(part_, request_, query, log_total, count, scratch_.best[g], read_);
  }

  // Looks among the super-clusters whose rows may have a logit of at least `bound`, only to raise
  // the floor.
  void RaiseFloor(size_t g, const SuperRange& range, float bound) {
    keep_ = false;
    const std::span<const uint32_t> supers = InReach(g, range, bound);
    for (size_t i = 0; i < supers.size(); i += kTurnSupers) {
      scratch_.ahead.clear();
      List(turn_, g, supers.subspan(i, std::min(kTurnSupers, supers.size() - i)));
      Fetch(0);
      Scan(turn_, g, scratch_.ahead.size());
    }
  }

  // Collects the candidates of `range`.
  void Collect(const SuperRange& range) {
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

  const ReadStatistics& read() const { return read_; }

 private:
  float Base(size_t g, size_t super) const {
    return request_.super_logits[g * super_count_ + super];
  }

  // Those in which a row can reach `floor`. Valid until the next call.
  std::span<const uint32_t> InReach(size_t g, const SuperRange& range, float floor) {
    scratch_.supers.resize(std::max(scratch_.supers.size(), range.size() + kCodeLimitsSlack));
    const size_t count = ListGroupsInReach(
        request_.super_logits.data() + g * super_count_ + range.begin,
        part_.tables.super_radius.data() + range.begin, range.size(), queries_[g].length(), floor,
        static_cast<uint32_t>(range.begin), scratch_.supers.data());
    return {scratch_.supers.data(), count};
  }

  // Lists the blocks of the turn that starts at super-cluster `begin`; none at the end.
  void ListTurn(size_t begin, size_t end) {
    const SuperRange turn{std::min(begin, end), std::min(begin + kTurnSupers, end)};
    scratch_.ahead.clear();
    for (size_t g = 0; g < queries_.size(); ++g) {
      List(turn_, g, InReach(g, turn, queries_[g].floor()));
    }
  }

  void List(size_t turn, size_t g, std::span<const uint32_t> supers) {
    ListedBlocks& list = Listed(turn, g);
    list.count = 0;
    for (const uint32_t super : supers) ListBlocks(g, super, list);
  }

  ListedBlocks& Listed(size_t turn, size_t g) {
    return scratch_.listed[turn * queries_.size() + g];
  }

  // The codes of the segment of `super`. The same segment is asked for many times in a row.
  const SegmentCodes& CodesOf(size_t super) {
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

  void ListBlocks(size_t g, uint32_t super, ListedBlocks& list) {
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

  void Reserve(size_t blocks, ListedBlocks& list) {
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
  void Fetch(size_t from) {
    constexpr size_t kCacheLineBytes = 64;
    const size_t block_bytes = (code_bytes_ + 1) * kCodeBlockRows;
    for (; from < scratch_.ahead.size(); ++from) {
      for (size_t i = 0; i < block_bytes; i += kCacheLineBytes) {
        __builtin_prefetch(scratch_.ahead[from] + i);
      }
    }
  }

  // Scans what was listed for query `g`, and fetches meanwhile; returns how many blocks came.
  size_t Scan(size_t turn, size_t g, size_t fetched) {
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

  void Consider(NeedleQuery& query, const ListedBlocks& list, const CodeHit& hit) {
    const SegmentCodes& segment = CodesOf(list.super[hit.block]);
    const uint8_t units = list.codes[hit.block][code_bytes_ * kCodeBlockRows + hit.row];
    NeedleQuery::ScannedRow row;
    row.segment = segment.segment;
    row.slot = static_cast<uint32_t>(
        (list.block[hit.block] - segment.first_block) * kCodeBlockRows + hit.row);
    row.base = list.base[hit.block];
    row.factor = list.factor[hit.block] / kCodeFactorMax * units;
    row.sum = hit.sum;
    query.Consider(row);
  }

  const IndexedPart& part_;
  const NeedleRequest& request_;
  const size_t super_count_;
  const size_t code_bytes_;
  const std::span<uint32_t> blocks_read_;
  NeedleStretchScratch& scratch_;
  std::vector<NeedleQuery> queries_;
  ReadStatistics read_;
  SegmentCodes segment_;
  size_t turn_ = 0;    // listed; the other one is scanned
  bool keep_ = false;  // candidates
};

// The whole scan: raises the floors, hands out stretches, scores what they found.
class NeedleScan {
 public:
  NeedleScan(const IndexedPart& part, const NeedleRequest& request,
             std::span<const float> log_total, NeedleScratch& scratch, ReadStatistics& read)
      : part_(part),
        request_(request),
        range_(SupersOf(part, request.range)),
        stretches_(std::clamp<size_t>(range_.size() / kStretchSupersMin, 1, kStretchesMax)),
        log_total_(log_total.size()),
        scratch_(scratch),
        read_(read) {
    for (size_t g = 0; g < log_total.size(); ++g) log_total_[g] = log_total[g];
  }

  float log_total(size_t g) const { return log_total_[g]; }

  void Run(ThreadPool* helpers) {
    if (range_.size() == 0) return;
    Prepare();
    RaiseFloors();
    const auto scan = [this](size_t i) { Scan(scratch_.stretches[i], i); };
    if (helpers != nullptr) {
      helpers->ParallelFor(stretches_, scan);
    } else {
      for (size_t i = 0; i < stretches_; ++i) scan(i);
    }
    for (size_t g = 0; g < queries_.size(); ++g) Score(g);
    for (size_t i = 0; i < stretches_; ++i) read_ += scratch_.stretches[i].read;
  }

 private:
  void Prepare() {
    const size_t group = log_total_.size();
    const size_t head_dim = part_.shape.head_dim;
    const size_t table_bytes = CodedQuery::TableBytes(part_);
    scratch_.tables.resize(group * table_bytes);
    scratch_.rotated.resize(part_.rotation->code_dim());
    scratch_.blocks_read.assign(part_.super_cluster_count(), 0);
    scratch_.stretches.resize(std::max(scratch_.stretches.size(), stretches_));
    for (NeedleStretchScratch& stretch : scratch_.stretches) {
      stretch.best.resize(group);
      stretch.listed.resize(2 * group);
    }
    const float radius = OrdinaryRadius();
    for (size_t g = 0; g < group; ++g) {
      queries_.emplace_back(part_, request_.queries.data() + g * head_dim, scratch_.rotated.data(),
                            scratch_.tables.data() + g * table_bytes);
      const bool all = request_.log_share_min == -kInfinity;  // not only those that matter
      counts_.push_back(all ? request_.count
                            : CandidatesToKeep(queries_[g], radius, request_.count));
    }
  }

  // Half of a super-cluster's largest is about what an ordinary row of it has.
  float OrdinaryRadius() const {
    float sum = 0;
    size_t sampled = 0;
    for (size_t i = range_.begin; i < range_.end; i += kSampleStride, ++sampled) {
      sum += part_.tables.super_radius.data()[i];
    }
    return 0.5f * sum / static_cast<float>(sampled);
  }

  StretchScan NewScan(NeedleStretchScratch& stretch) {
    StretchScan scan(part_, request_, scratch_.blocks_read, stretch);
    for (size_t g = 0; g < queries_.size(); ++g) {
      scan.AddQuery(queries_[g], log_total_[g], StretchCount(g));
    }
    return scan;
  }

  // Candidates that one stretch keeps: its share, twice, because they may lie close together.
  size_t StretchCount(size_t g) const {
    return std::min(counts_[g], 1 + 2 * counts_[g] / stretches_);
  }

  void RaiseFloors() {
    StretchScan scan = NewScan(scratch_.stretches.front());
    for (size_t g = 0; g < queries_.size(); ++g) scan.RaiseFloor(g, range_, FirstBound(g));
    read_ += scan.read();
  }

  void Scan(NeedleStretchScratch& stretch, size_t i) {
    StretchScan scan = NewScan(stretch);
    scan.Collect({range_.begin + range_.size() * i / stretches_,
                  range_.begin + range_.size() * (i + 1) / stretches_});
    stretch.read = scan.read();
  }

  // What one in kFirstShare super-clusters reaches: the largest logit that a row of it can have.
  float FirstBound(size_t g) {
    const float* radius = part_.tables.super_radius.data();
    const float* base = request_.super_logits.data() + g * part_.super_cluster_count();
    std::vector<float>& sample = scratch_.sample;
    sample.clear();
    for (size_t i = range_.begin; i < range_.end; i += kSampleStride) {
      sample.push_back(base[i] + queries_[g].code.length * radius[i]);
    }
    const auto at = sample.begin() + static_cast<std::ptrdiff_t>(sample.size() / kFirstShare);
    std::nth_element(sample.begin(), at, sample.end(), std::greater<float>());
    return *at;
  }

  // Puts the candidates of all stretches together.
  void Score(size_t g) {
    std::vector<NeedleCandidate>& best = scratch_.best[g];
    for (size_t i = 0; i < stretches_; ++i) {
      const NeedleStretchScratch& stretch = scratch_.stretches[i];
      best.insert(best.end(), stretch.best[g].begin(), stretch.best[g].end());
    }
    NeedleQuery query(part_, request_, queries_[g], log_total_[g], counts_[g], best, read_);
    query.ScoreCandidates();
  }

  const IndexedPart& part_;
  const NeedleRequest& request_;
  const SuperRange range_;
  const size_t stretches_;
  std::vector<std::atomic<float>> log_total_;
  NeedleScratch& scratch_;
  ReadStatistics& read_;
  std::vector<CodedQuery> queries_;
  std::vector<size_t> counts_;  // candidates kept of each
};

}  // namespace

void FindNeedles(const IndexedPart& part, const NeedleRequest& request, ThreadPool* helpers,
                 std::span<float> log_total, NeedleScratch& scratch, ReadStatistics& read) {
  scratch.best.resize(log_total.size());
  for (auto& best : scratch.best) best.clear();
  if (request.count == 0) return;
  NeedleScan scan(part, request, log_total, scratch, read);
  scan.Run(helpers);
  for (size_t g = 0; g < log_total.size(); ++g) log_total[g] = scan.log_total(g);
}

}  // namespace attic
