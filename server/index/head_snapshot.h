// The immutable view of a head that searches work on.
#ifndef ATTIC_SERVER_INDEX_HEAD_SNAPSHOT_H_
#define ATTIC_SERVER_INDEX_HEAD_SNAPSHOT_H_

#include <memory>
#include <span>
#include <vector>

#include "server/index/head_index.h"
#include "server/index/indexed_part.h"
#include "server/index/search/search_scratch.h"
#include "server/index/tail.h"

namespace attic {

class IndexedHeadSnapshot : public HeadSnapshot {
 public:
  // `tail` begins where `part` ends.
  IndexedHeadSnapshot(std::shared_ptr<const IndexedPart> part, TailView tail);

  int64_t token_count() const override { return tail_.end_position(); }
  int64_t indexed_tokens() const override { return part_->token_count(); }
  absl::Status Attend(const HeadRequest& request, SearchScratch& scratch,
                      HeadAnswer& answer) const override;
  absl::Status Search(const HeadRequest& request, size_t k, SearchScratch& scratch,
                      std::vector<std::vector<SearchHit>>& hits,
                      ReadStatistics& read) const override;
  absl::Status CopyVectors(std::span<const int64_t> positions, std::byte* keys,
                           std::byte* values) const override;
  absl::Status CopyRange(PositionRange range, std::byte* keys, std::byte* values) const override;

  const TailView& tail() const { return tail_; }
  const std::shared_ptr<const IndexedPart>& part() const { return part_; }

 private:
  PositionRange Clip(PositionRange range) const;
  bool ScansExactly(PositionRange range, AttendMode mode) const;
  absl::StatusOr<PositionRange> AttendSegments(PositionRange rest, absl::Time deadline,
                                               SearchScratch& scratch, ReadStatistics& read) const;
  void AttendTailExactly(PositionRange range, SearchScratch& scratch, ReadStatistics& read) const;

  const std::shared_ptr<const IndexedPart> part_;
  const TailView tail_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_HEAD_SNAPSHOT_H_
