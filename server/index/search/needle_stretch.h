// The scan of one stretch of super-clusters by one thread; the workings of needle_scan.h.
#ifndef ATTIC_SERVER_INDEX_SEARCH_NEEDLE_STRETCH_H_
#define ATTIC_SERVER_INDEX_SEARCH_NEEDLE_STRETCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/index/search/needle_query.h"
#include "server/index/search/needle_scan.h"

namespace attic {

struct SuperRange {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// Scans super-clusters for all queries of the group together. Not thread-safe.
class NeedleStretch {
 public:
  // `blocks_read` (super-clusters) counts, for the statistics, the blocks of each read so far;
  // stretches that do not overlap share it.
  NeedleStretch(const IndexedPart& part, const NeedleRequest& request,
                std::span<uint32_t> blocks_read, NeedleStretchScratch& scratch);
  NeedleStretch(const NeedleStretch&) = delete;  // its queries refer to it
  NeedleStretch& operator=(const NeedleStretch&) = delete;

  // Candidates of the query, at most `count`, will be in scratch.best, at the next place.
  void AddQuery(const CodedQuery& query, std::atomic<float>& log_total, size_t count);

  // Looks among the super-clusters whose rows may have a logit of at least `bound`, only to raise
  // the floor.
  void RaiseFloor(size_t g, const SuperRange& range, float bound);

  // Collects the candidates of `range`.
  void Collect(const SuperRange& range);

  const ReadStatistics& read() const { return read_; }

 private:
  struct SegmentCodes {
    size_t begin = 0, end = 0;  // its super-clusters
    uint32_t segment = 0;
    uint32_t first_block = 0;  // through all segments
    const SignCodes* codes = nullptr;
  };

  float Base(size_t g, size_t super) const {
    return request_.super_logits[g * super_count_ + super];
  }
  std::span<const uint32_t> InReach(size_t g, const SuperRange& range, float floor);
  void ListTurn(size_t begin, size_t end);
  void List(size_t turn, size_t g, std::span<const uint32_t> supers);
  ListedBlocks& Listed(size_t turn, size_t g) {
    return scratch_.listed[turn * queries_.size() + g];
  }
  const SegmentCodes& CodesOf(size_t super);
  void ListBlocks(size_t g, uint32_t super, ListedBlocks& list);
  void Reserve(size_t blocks, ListedBlocks& list);
  void Fetch(size_t from);
  size_t Scan(size_t turn, size_t g, size_t fetched);
  void Consider(NeedleQuery& query, const ListedBlocks& list, const CodeHit& hit);

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

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_NEEDLE_STRETCH_H_
