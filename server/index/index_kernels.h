// Vector kernels of the index, compiled for several instruction sets and chosen at run time
// (Highway). All are thread-safe and allocate nothing.
#ifndef ATTIC_SERVER_INDEX_INDEX_KERNELS_H_
#define ATTIC_SERVER_INDEX_INDEX_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace attic {

// Index of the largest a[i] + b[i], and that value in `best`. count >= 1.
size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best);

inline constexpr size_t kCodeBlockRows = 64;
inline constexpr size_t kNibbleTableBytes = 16;
// Threshold that no sum of code tables reaches: the block is skipped for that query.
inline constexpr uint16_t kSkipCodeBlock = 0xFFFF;

struct CodeHit {
  uint32_t row;    // from the first block's first row
  uint16_t query;  // index into the queries of the group
  uint16_t sum;
};

// Looks every row's code up in each query's tables and lists the rows whose sum reaches the
// threshold of their block (the scheme of FastScan, VLDB 2015, and of RaBitQ, arXiv 2405.12497).
//   blocks: (block_count, code_bytes, kCodeBlockRows) bytes: byte p of every row of a block
//   together tables: (query_count, 2 * code_bytes, kNibbleTableBytes) entries of at most 15: for
//   the low,
//     then the high nibble of each code byte
//   thresholds: (query_count, block_count)
//   hits: room for query_count * block_count * kCodeBlockRows
// Returns the number of hits. Rows of the last block beyond the data may be among them.
size_t ScanCodeBlocks(const uint8_t* blocks, size_t block_count, size_t code_bytes,
                      const uint8_t* tables, size_t query_count, const uint16_t* thresholds,
                      CodeHit* hits);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_INDEX_KERNELS_H_
