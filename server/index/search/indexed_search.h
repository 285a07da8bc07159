// The best keys of a head by inner product.
#ifndef ATTIC_SERVER_INDEX_SEARCH_INDEXED_SEARCH_H_
#define ATTIC_SERVER_INDEX_SEARCH_INDEXED_SEARCH_H_

#include <span>
#include <vector>

#include "api/types.h"
#include "server/index/indexed_part.h"
#include "server/index/search/search_scratch.h"
#include "server/index/tail.h"

namespace attic {

struct SearchParameters {
  std::span<const float> queries;  // (group, head_dim)
  size_t group = 1;
  PositionRange range;
  size_t k = 0;
};

// Replaces hits[g] by the k best positions of `range`, best first, scanning every key. Errors of
// VectorSource, when keys cannot be read.
absl::Status SearchExactly(const IndexedPart& part, const TailView& tail,
                           const SearchParameters& search, SearchScratch& scratch,
                           std::vector<std::vector<SearchHit>>& hits, ReadStatistics& read);

// The same among the tail, the members of the best clusters and the best keys by code.
absl::Status SearchIndexed(const IndexedPart& part, const TailView& tail,
                           const SearchParameters& search, SearchScratch& scratch,
                           std::vector<std::vector<SearchHit>>& hits, ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_INDEXED_SEARCH_H_
