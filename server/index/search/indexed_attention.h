// Attention over the segments of a head through their index.
#ifndef ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_
#define ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_

#include <span>

#include "absl/time/time.h"
#include "api/types.h"
#include "server/index/indexed_part.h"
#include "server/index/search/search_scratch.h"

namespace attic {

// True when what is left until `deadline` is only enough to finish an answer.
bool DeadlineIsNear(absl::Time deadline);

// log_sum_exp of everything an accumulator holds.
float LogSumExpOf(const AttentionAccumulator& accumulator);

// Adds every position of `range` held by `part` to scratch.accumulators: the clusters that matter
// exactly, all others by estimate; and what scratch.tail has scored. scratch.queries is set, and
// the accumulators hold what was attended elsewhere, all of it exactly. Sets exact_log_mass (group)
// to the log_sum_exp of all that is exact. Returns false when the deadline cut the exact part
// short.
bool AttendIndexed(const IndexedPart& part, PositionRange range, absl::Time deadline,
                   SearchScratch& scratch, std::span<float> exact_log_mass, ReadStatistics& read);

// Adds the positions of `range` held by `segment` exactly.
void AttendSegmentExactly(const Segment& segment, PositionRange range, SearchScratch& scratch,
                          ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_
