// Vector kernels that scan one-bit codes (sign_codes.h), compiled for several instruction sets and
// chosen at run time (Highway). All are thread-safe and allocate nothing.
#ifndef ATTIC_SERVER_INDEX_CODES_CODE_KERNELS_H_
#define ATTIC_SERVER_INDEX_CODES_CODE_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace attic {

inline constexpr size_t kCodeBlockRows = 64;
inline constexpr size_t kNibbleTableBytes = 16;
inline constexpr float kCodeFactorMax = 255.0f;
// Kernels that write whole vectors need room for so many elements more.
inline constexpr size_t kCodeLimitsSlack = 16;

// What one query asks of codes. A row with factor f whose code adds up to `sum` has the estimate
// f (step * sum + offset) + q.c, that of its logit, with c the reference of its group.
struct CodeQuestion {
  float step = 1;
  float offset = 0;
  float floor = 0;           // the row matters when its logit may be this...
  float estimate_floor = 0;  // ...and its estimate is at least this
  // Standard deviations of the estimate, times the number of them that it is trusted within:
  float error = 0;        // for |q| |r| = 1, of what lies across the query
  float table_error = 0;  // for f = 1, of the rounded tables
  float length = 0;       // |q|
  float reach = 0;        // |q| |r| / f of an ordinary row
};

// Blocks of codes to scan for one query, an element each.
struct CodeBlocks {
  size_t count = 0;
  const uint8_t* const* codes = nullptr;  // (code_bytes + 1, kCodeBlockRows): byte p of every row
                                          // together, then the rows' factors in units of the
                                          // block's largest / kCodeFactorMax
  const float* base = nullptr;            // q.c of the reference
  const float* radius = nullptr;          // largest |r|
  const float* factor = nullptr;          // largest f
};

// The rows of block i reported are those with sum >= sum_min[i], whose factor byte u also makes
//   max(0, CodeSumScale * sum + sum_offset[i]) * u / 256 >= product_min[i].
// The first says what the longest row of the block needs, the second what this one does.
struct CodeLimits {
  int32_t* sum_min;
  int32_t* sum_offset;
  int32_t* product_min;
};

// Keeps scaled sums within 15 bits. code_bytes: a power of two.
constexpr uint32_t CodeSumScale(size_t code_bytes) {
  uint32_t scale = 128;
  for (size_t bytes = 8; bytes < code_bytes; bytes *= 2) scale /= 2;
  return scale;
}

// Writes the limits of every block. The error of an estimate,
// sqrt(error^2 max(|q|^2 |r|^2 - (floor - base)^2, 0) + table_error^2 f^2), is concave in f with
// |r| proportional to it; the second limit takes its tangent at the block's largest f, so that no
// row is lost.
void MakeCodeLimits(const CodeQuestion& question, const CodeBlocks& blocks, size_t code_bytes,
                    const CodeLimits& limits);

// Appends to `out` the numbers from `first` on of the groups that may hold a row that matters: with
// base[i] + length * radius[i] >= floor. Room for count + kCodeLimitsSlack; returns how many.
size_t ListGroupsInReach(const float* base, const float* radius, size_t count, float length,
                         float floor, uint32_t first, uint32_t* out);

struct CodeHit {
  uint16_t block;  // index into the blocks scanned
  uint16_t row;    // within the block
  uint32_t sum;
};

// Looks every row's code up in the query's tables and lists the rows whose sum is within the limits
// (the scheme of FastScan, VLDB 2015, and of RaBitQ, arXiv 2405.12497). Meanwhile brings the blocks
// `ahead` into the cache, one for each block scanned.
//   code_bytes: a power of two
//   tables: (2 * code_bytes, kNibbleTableBytes), entries of at most 15: for the low, then the high
//           nibble of each code byte
//   hits: room for blocks.count * kCodeBlockRows
// Returns the number of hits.
size_t ScanCodeBlocks(const CodeBlocks& blocks, const CodeLimits& limits, size_t code_bytes,
                      const uint8_t* tables, std::span<const uint8_t* const> ahead, CodeHit* hits);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_CODES_CODE_KERNELS_H_
