// One-bit codes of keys: the signs of a randomly rotated residual (RaBitQ, arXiv 2405.12497).
//
// For a key k = c + r with a known reference c, a random rotation R over D dimensions and a query
// q: with b = sign(R r),
//   q.k ~ q.c + f * sum_j b_j (R q)_j,   f = |r|^2 / |R r|_1
// which is unbiased over rotations (equation 20 there, with <o_bar, o> = |R r|_1 / (sqrt(D) |r|)).
// A key far from the others keeps its full length in f, which cluster means would hide.
#ifndef ATTIC_SERVER_INDEX_SIGN_CODES_H_
#define ATTIC_SERVER_INDEX_SIGN_CODES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

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

 private:
  static constexpr int kRounds = 3;
  size_t dim_;
  size_t code_dim_;
  std::vector<float> signs_;  // (kRounds, code_dim), scaled
};

// The codes of consecutive rows, in blocks of kCodeBlockRows (index_kernels.h).
struct SignCodes {
  size_t code_bytes = 0;             // per row: code_dim / 8
  std::vector<uint8_t> blocks;       // (blocks, code_bytes, kCodeBlockRows), zero-padded
  std::vector<uint16_t> factor;      // (rows) bfloat16: f
  std::vector<float> block_inverse;  // (blocks): 1 / largest f in the block

  size_t block_count() const { return block_inverse.size(); }
  uint64_t memory_bytes() const {
    return blocks.size() + factor.size() * sizeof(uint16_t) + block_inverse.size() * sizeof(float);
  }
};

// Codes of `residuals` (n, rotation.dim()).
SignCodes MakeSignCodes(const SignRotation& rotation, std::span<const float> residuals);

// A rotated query as tables of partial sums of four dimensions, rounded to multiples of `step`:
// sum_j b_j (R q)_j ~ step * (sum of the entries the code selects) + offset.
struct SignQuery {
  float step = 0;
  float offset = 0;
};

// Fills `tables` (2 * code_bytes, kNibbleTableBytes). `rotated` is scratch of code_dim() elements.
SignQuery MakeSignQuery(const SignRotation& rotation, const float* query, float* rotated,
                        uint8_t* tables);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SIGN_CODES_H_
