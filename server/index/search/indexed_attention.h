// Attention over the segments of a head through their index.
#ifndef ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_
#define ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_

#include <span>
#include <vector>

#include "absl/time/time.h"
#include "api/types.h"
#include "server/index/indexed_part.h"
#include "server/index/search/search_scratch.h"

namespace attic {

// log_sum_exp of everything an accumulator holds.
float LogSumExpOf(const AttentionAccumulator& accumulator);

struct IndexedAnswer {
  std::vector<double> exact_share;  // (group): of the mass
  // (group): estimated squared error of the output, in units of squared values.
  std::vector<double> squared_error;
  bool in_time = true;  // false: the deadline ended the selection before it was met
  absl::Status status;  // not OK when rows could not be read: then there is no answer
};

// Adds every position of `range` held by `part` to scratch.accumulators, as far down as `policy`
// asks for, all others by estimate; and what scratch.tail has scored. scratch.queries is set, and
// the accumulators hold what was attended elsewhere, all of it exactly.
IndexedAnswer AttendIndexed(const IndexedPart& part, PositionRange range,
                            const SelectionPolicy& policy, absl::Time deadline,
                            SearchScratch& scratch, ReadStatistics& read);

// Adds the positions of `range` held by the segment exactly; scratch.descent.rows has begun.
// Returns false when its rows cannot be read; the reader's status says why.
bool AttendSegmentExactly(const IndexedPart& part, size_t segment, PositionRange range,
                          SearchScratch& scratch, ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_INDEXED_ATTENTION_H_
