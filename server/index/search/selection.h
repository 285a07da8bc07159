// Walks down until a selection policy is met.
#ifndef ATTIC_SERVER_INDEX_SEARCH_SELECTION_H_
#define ATTIC_SERVER_INDEX_SEARCH_SELECTION_H_

#include "absl/time/time.h"
#include "api/selection.h"
#include "server/index/search/descent.h"

namespace attic {

// Looks for keys that sums hide, as far as `policy` allows. `descent` has begun and has its totals.
void LookForHiddenKeys(const SelectionPolicy& policy, const IndexedPart& part, Descent& descent);

// Reads on in `descent`, which has begun and knows its doubts, until `policy` is met or nothing is
// left to read. Returns false when the deadline ended it before.
bool ReadUntilMet(const SelectionPolicy& policy, const IndexedPart& part, absl::Time deadline,
                  Descent& descent);

// Finds the `k` best keys of each query: those that codes tell, then whatever may be better than
// the k-th of them. They are among the exact rows.
void ReadBestKeys(size_t k, Descent& descent);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_SELECTION_H_
