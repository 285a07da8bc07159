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

// A block of codes to scan for one query.
struct CodeBlock {
  const uint8_t* codes;   // (code_bytes, kCodeBlockRows): byte p of every row together
  const uint8_t* tables;  // (2 * code_bytes, kNibbleTableBytes), entries of at most 15: for the
                          // low, then the high nibble of each code byte
  uint32_t threshold;     // of the sums reported
};

struct CodeHit {
  uint16_t block;  // index into the blocks scanned
  uint16_t row;    // within the block
  uint32_t sum;
};

// Looks every row's code up in the tables of its block's query and lists the rows whose sum reaches
// the threshold of their block (the scheme of FastScan, VLDB 2015, and of RaBitQ, arXiv
// 2405.12497).
//   code_bytes: a power of two
//   hits: room for block_count * kCodeBlockRows
// Returns the number of hits.
size_t ScanCodeBlocks(const CodeBlock* blocks, size_t block_count, size_t code_bytes,
                      CodeHit* hits);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_INDEX_KERNELS_H_
