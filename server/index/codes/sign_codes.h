// One-bit codes of keys: the signs of a randomly rotated residual (RaBitQ, arXiv 2405.12497).
//
// For a key k = c + r with a known reference c, a random rotation R over D dimensions and a query
// q: with b = sign(R r),
//   q.k ~ q.c + f * sum_j b_j (R q)_j,   f = |r|^2 / |R r|_1
// which is unbiased over rotations (equation 20 there, with <o_bar, o> = |R r|_1 / (sqrt(D) |r|)).
// A key far from the others keeps its full length in f, which cluster means would hide.
//
// The error comes from the part of q across r, so it vanishes as the two align (theorem 3.2 there):
// with x = q.r its variance is (pi / 2 - 1) (|q|^2 |r|^2 - x^2) / (D - 1), writing sqrt(2 / pi),
// its limit, for <o_bar, o>.
#ifndef ATTIC_SERVER_INDEX_CODES_SIGN_CODES_H_
#define ATTIC_SERVER_INDEX_CODES_SIGN_CODES_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/index/codes/code_kernels.h"

namespace attic {

// The random rotation of vectors of `dim` elements, padded with zeros to code_dim() = 8, 16, 32,
// ...: three rounds of random sign flips and a Walsh-Hadamard transform. Fixed by dim, so codes and
// queries of any node agree. Thread-safe.
class SignRotation {
 public:
  explicit SignRotation(size_t dim);
  size_t dim() const { return dim_; }
  size_t code_dim() const { return code_dim_; }
  // in has dim() elements, out code_dim(); lengths and inner products are kept.
  void Apply(const float* in, float* out) const;
  // The inverse; in has code_dim() elements and is overwritten, out dim().
  void Undo(float* in, float* out) const;

 private:
  static constexpr int kRounds = 3;
  size_t dim_;
  size_t code_dim_;
  std::vector<float> signs_;  // (kRounds, code_dim), scaled
};

// The codes of rows that lie in groups, each group with one reference c, in blocks of
// kCodeBlockRows (code_kernels.h). A block holds rows of one group, the blocks of a group the rows
// by descending |r|: so the radius bounds tightly what a block can hide.
struct SignCodes {
  static constexpr uint16_t kNoRow = 0xFFFF;  // the last block of a group is padded

  size_t code_bytes = 0;              // per row: code_dim / 8
  std::vector<uint32_t> group_block;  // (groups + 1): first block of each group
  // (blocks, code_bytes + 1, kCodeBlockRows): the codes, byte by byte, then f of each row in units
  // of the block's largest / kCodeFactorMax. Together, because a hit needs both.
  std::vector<uint8_t> blocks;
  std::vector<uint16_t> row;  // (blocks, kCodeBlockRows): the row coded, or kNoRow
  std::vector<float> radius;  // (blocks): largest |r| of a block
  std::vector<float> factor;  // (blocks): largest f

  size_t block_count() const { return radius.size(); }
  size_t block_bytes() const { return (code_bytes + 1) * kCodeBlockRows; }
  const uint8_t* block(size_t b) const { return blocks.data() + b * block_bytes(); }
  // (groups): largest |r| of each group, 0 of an empty one.
  std::vector<float> GroupRadii() const;
  uint64_t memory_bytes() const;
};

// Codes of the residuals of rows to the references of their groups. Group i is the rows from
// group_begin[i] to group_begin[i + 1].
//   residuals: (n, rotation.dim()), n < kNoRow
SignCodes MakeSignCodes(const SignRotation& rotation, std::span<const float> residuals,
                        std::span<const uint32_t> group_begin);

// A rotated query as tables of partial sums of four dimensions, rounded to multiples of `step`:
// sum_j b_j (R q)_j ~ step * (sum of the entries the code selects) + offset.
struct SignQuery {
  float step = 0;
  float offset = 0;
  float length = 0;       // |q|
  float error = 0;        // sqrt((pi / 2 - 1) / (D - 1)): standard deviation for |q| |r| = 1, x = 0
  float table_error = 0;  // of the rounded tables, for f = 1: standard deviation
};

// A code's estimate is trusted within so many standard deviations.
inline constexpr float kCodeErrors = 3.0f;

// How far the estimate of a key may lie below its logit: base + missing with base = q.c, a residual
// with |q| |r| = reach, and factor f.
inline float CodeMargin(const SignQuery& query, float reach, float missing, float factor) {
  const float along = std::max(missing, 0.0f);
  const float across = std::max(reach * reach - along * along, 0.0f);
  const float table_error = query.table_error * factor;
  return kCodeErrors * std::sqrt(query.error * query.error * across + table_error * table_error);
}

// Fills `tables` (2 * code_bytes, kNibbleTableBytes). `rotated` is scratch of code_dim() elements.
SignQuery MakeSignQuery(const SignRotation& rotation, const float* query, float* rotated,
                        uint8_t* tables);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_CODES_SIGN_CODES_H_
