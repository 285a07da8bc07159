#include "server/index/sign_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "base/check.h"
#include "server/index/bfloat16.h"
#include "server/index/index_kernels.h"

namespace attic {
namespace {

constexpr uint64_t kRotationSeed = 0x5eed0a771c;
constexpr size_t kTableDims = 4;  // dimensions of one table of 16 entries
constexpr float kEntryMax = 15.0f;

// In place, unscaled: x -> H x.
void WalshHadamard(float* x, size_t n) {
  for (size_t half = 1; half < n; half *= 2) {
    for (size_t i = 0; i < n; i += 2 * half) {
      for (size_t j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
}

}  // namespace

SignRotation::SignRotation(size_t dim)
    : dim_(dim), code_dim_(std::max<size_t>(8, std::bit_ceil(dim))), signs_(kRounds * code_dim_) {
  std::mt19937_64 random(kRotationSeed);
  const float scale = 1.0f / std::sqrt(static_cast<float>(code_dim_));
  for (float& sign : signs_) sign = (random() >> 63) != 0 ? scale : -scale;
}

void SignRotation::Apply(const float* in, float* out) const {
  std::copy_n(in, dim_, out);
  std::fill(out + dim_, out + code_dim_, 0.0f);
  for (int round = 0; round < kRounds; ++round) {
    const float* signs = signs_.data() + round * code_dim_;
    for (size_t j = 0; j < code_dim_; ++j) out[j] *= signs[j];
    WalshHadamard(out, code_dim_);
  }
}

SignCodes MakeSignCodes(const SignRotation& rotation, std::span<const float> residuals) {
  const size_t dim = rotation.dim();
  const size_t rows = residuals.size() / dim;
  SignCodes codes;
  codes.code_bytes = rotation.code_dim() / 8;
  const size_t block_count = (rows + kCodeBlockRows - 1) / kCodeBlockRows;
  codes.blocks.assign(block_count * codes.code_bytes * kCodeBlockRows, 0);
  codes.factor.resize(rows);
  codes.block_inverse.resize(block_count);
  std::vector<float> block_factor(block_count, std::numeric_limits<float>::min());
  std::vector<float> rotated(rotation.code_dim());
  for (size_t row = 0; row < rows; ++row) {
    rotation.Apply(residuals.data() + row * dim, rotated.data());
    const size_t block = row / kCodeBlockRows;
    uint8_t* bytes = codes.blocks.data() + block * codes.code_bytes * kCodeBlockRows;
    double squares = 0, absolutes = 0;
    for (size_t j = 0; j < rotated.size(); ++j) {
      squares += double{rotated[j]} * rotated[j];
      absolutes += std::abs(rotated[j]);
      if (rotated[j] > 0) {
        bytes[(j / 8) * kCodeBlockRows + row % kCodeBlockRows] |= uint8_t(1u << (j % 8));
      }
    }
    const float factor = absolutes > 0 ? static_cast<float>(squares / absolutes) : 0.0f;
    codes.factor[row] = NarrowToBFloat16(factor);
    block_factor[block] = std::max(block_factor[block], WidenBFloat16(codes.factor[row]));
  }
  for (size_t block = 0; block < block_count; ++block) {
    codes.block_inverse[block] = 1.0f / block_factor[block];
  }
  return codes;
}

SignQuery MakeSignQuery(const SignRotation& rotation, const float* query, float* rotated,
                        uint8_t* tables) {
  rotation.Apply(query, rotated);
  const size_t table_count = rotation.code_dim() / kTableDims;
  float range_max = 0;
  SignQuery result;
  for (size_t t = 0; t < table_count; ++t) {
    float sum = 0;
    for (size_t j = 0; j < kTableDims; ++j) sum += std::abs(rotated[t * kTableDims + j]);
    range_max = std::max(range_max, 2 * sum);
    result.offset -= sum;
  }
  result.step = range_max > 0 ? range_max / kEntryMax : 1.0f;
  for (size_t t = 0; t < table_count; ++t) {
    const float* part = rotated + t * kTableDims;
    for (size_t code = 0; code < kNibbleTableBytes; ++code) {
      // b_j q_j + |q_j| is 2 |q_j| where the sign of the code agrees with the query's, else 0.
      float sum = 0;
      for (size_t j = 0; j < kTableDims; ++j) {
        const bool positive = ((code >> j) & 1) != 0;
        if (positive == (part[j] > 0)) sum += 2 * std::abs(part[j]);
      }
      tables[t * kNibbleTableBytes + code] =
          static_cast<uint8_t>(std::min(kEntryMax, std::round(sum / result.step)));
    }
  }
  return result;
}

}  // namespace attic
