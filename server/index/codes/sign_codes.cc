#include "server/index/codes/sign_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>

#include "attention/vector_kernels.h"
#include "base/check.h"

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

// Appends blocks to codes; `radius` is the length of every residual.
class BlockAppender {
 public:
  BlockAppender(const SignRotation& rotation, std::span<const float> residuals,
                std::span<const float> radius, SignCodes& codes)
      : rotation_(rotation),
        residuals_(residuals),
        radius_(radius),
        codes_(codes),
        rotated_(rotation.code_dim()) {}

  // `rows`, at most kCodeBlockRows, the longest first.
  void Append(std::span<const uint16_t> rows) {
    const size_t block = codes_.block_count();
    codes_.row.resize((block + 1) * kCodeBlockRows, SignCodes::kNoRow);
    codes_.blocks.resize((block + 1) * codes_.block_bytes(), 0);
    uint8_t* const bytes = codes_.blocks.data() + block * codes_.block_bytes();
    float factors[kCodeBlockRows];
    float factor_max = std::numeric_limits<float>::min();
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      codes_.row[block * kCodeBlockRows + slot] = rows[slot];
      factors[slot] = Encode(residuals_.data() + rows[slot] * rotation_.dim(), bytes + slot);
      factor_max = std::max(factor_max, factors[slot]);
    }
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      bytes[codes_.code_bytes * kCodeBlockRows + slot] =
          static_cast<uint8_t>(std::lround(factors[slot] / factor_max * kCodeFactorMax));
    }
    codes_.radius.push_back(radius_[rows[0]]);
    codes_.factor.push_back(factor_max);
  }

 private:
  // Writes the signs of the rotated residual, kCodeBlockRows bytes apart; returns f.
  float Encode(const float* residual, uint8_t* bytes) {
    rotation_.Apply(residual, rotated_.data());
    double squares = 0, absolutes = 0;
    for (size_t j = 0; j < rotated_.size(); ++j) {
      squares += double{rotated_[j]} * rotated_[j];
      absolutes += std::abs(rotated_[j]);
      if (rotated_[j] > 0) bytes[(j / 8) * kCodeBlockRows] |= uint8_t(1u << (j % 8));
    }
    return absolutes > 0 ? static_cast<float>(squares / absolutes) : 0.0f;
  }

  const SignRotation& rotation_;
  const std::span<const float> residuals_;
  const std::span<const float> radius_;
  SignCodes& codes_;
  std::vector<float> rotated_;
};

std::vector<float> Lengths(std::span<const float> vectors, size_t dim) {
  std::vector<float> lengths(vectors.size() / dim);
  for (size_t i = 0; i < lengths.size(); ++i) {
    const float* v = vectors.data() + i * dim;
    lengths[i] = std::sqrt(Dot(v, v, dim));
  }
  return lengths;
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

void SignRotation::Undo(float* in, float* out) const {
  for (int round = kRounds - 1; round >= 0; --round) {
    const float* signs = signs_.data() + round * code_dim_;
    WalshHadamard(in, code_dim_);
    for (size_t j = 0; j < code_dim_; ++j) in[j] *= signs[j];
  }
  std::copy_n(in, dim_, out);
}

std::vector<float> SignCodes::GroupRadii() const {
  std::vector<float> radii;
  for (size_t group = 0; group + 1 < group_block.size(); ++group) {
    const uint32_t first = group_block[group];
    radii.push_back(first == group_block[group + 1] ? 0.0f : radius[first]);
  }
  return radii;
}

uint64_t SignCodes::memory_bytes() const {
  return group_block.size() * sizeof(uint32_t) + blocks.size() + row.size() * sizeof(uint16_t) +
         (radius.size() + factor.size()) * sizeof(float);
}

SignCodes MakeSignCodes(const SignRotation& rotation, std::span<const float> residuals,
                        std::span<const uint32_t> group_begin) {
  const size_t dim = rotation.dim();
  const std::vector<float> radius = Lengths(residuals, dim);
  ATTIC_CHECK(radius.size() < SignCodes::kNoRow && group_begin.back() == radius.size());
  SignCodes codes;
  codes.code_bytes = rotation.code_dim() / 8;
  codes.group_block.push_back(0);
  BlockAppender appender(rotation, residuals, radius, codes);
  std::vector<uint16_t> order;
  for (size_t group = 0; group + 1 < group_begin.size(); ++group) {
    order.resize(group_begin[group + 1] - group_begin[group]);
    std::iota(order.begin(), order.end(), static_cast<uint16_t>(group_begin[group]));
    std::stable_sort(order.begin(), order.end(),
                     [&](uint16_t a, uint16_t b) { return radius[a] > radius[b]; });
    for (size_t begin = 0; begin < order.size(); begin += kCodeBlockRows) {
      const size_t count = std::min(kCodeBlockRows, order.size() - begin);
      appender.Append(std::span(order).subspan(begin, count));
    }
    codes.group_block.push_back(static_cast<uint32_t>(codes.block_count()));
  }
  return codes;
}

SignQuery MakeSignQuery(const SignRotation& rotation, const float* query, float* rotated,
                        uint8_t* tables) {
  rotation.Apply(query, rotated);
  const size_t table_count = rotation.code_dim() / kTableDims;
  float range_max = 0;
  SignQuery result;
  result.length = std::sqrt(Dot(query, query, rotation.dim()));
  result.error =
      std::sqrt((std::numbers::pi_v<float> / 2 - 1) / static_cast<float>(rotation.code_dim() - 1));
  for (size_t t = 0; t < table_count; ++t) {
    float sum = 0;
    for (size_t j = 0; j < kTableDims; ++j) sum += std::abs(rotated[t * kTableDims + j]);
    range_max = std::max(range_max, 2 * sum);
    result.offset -= sum;
  }
  result.step = range_max > 0 ? range_max / kEntryMax : 1.0f;
  // Every entry is rounded by up to half a step, evenly: variance 1 / 12.
  result.table_error = result.step * std::sqrt(static_cast<float>(table_count) / 12.0f);
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
