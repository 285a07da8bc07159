#include "server/index/codes/residual_codes.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"
#include "base/check.h"
#include "server/index/codes/residual_kernels.h"

namespace attic {
namespace {

constexpr float kLevelDistance = 0.996f;  // in standard deviations (Max 1960, table II)
constexpr float kCoefficientMax = 8191.0f;

// Encodes one rotated residual; returns f.
float EncodeRow(std::span<const float> x, size_t code_dim, uint8_t* code) {
  double squares = 0;
  for (const float element : x) squares += double{element} * element;
  const auto deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(x.size())));
  const float inverse = deviation > 0 ? 1.0f / (kLevelDistance * deviation) : 0.0f;
  double along = 0, length = 0;
  for (size_t j = 0; j < x.size(); ++j) {
    const float level = std::clamp(std::floor(x[j] * inverse) + 2.0f, 0.0f, 3.0f);
    const float centered = level - kResidualMiddle;
    along += double{x[j]} * centered;
    length += double{centered} * centered;
    PutResidualLevel(code, code_dim, j, static_cast<uint8_t>(level));
  }
  return length > 0 ? static_cast<float>(std::max(along / length, 0.0)) : 0.0f;
}

}  // namespace

size_t ResidualCodeDim(const SignRotation& rotation) {
  return std::max(rotation.code_dim(), kResidualDimMin);
}

ResidualCodes MakeResidualCodes(const SignRotation& rotation, std::span<const float> residuals,
                                std::span<const uint32_t> group_begin) {
  const size_t rows = residuals.size() / rotation.dim();
  ATTIC_CHECK(!group_begin.empty() && group_begin.back() == rows);
  ResidualCodes codes;
  codes.row_bytes = ResidualRowBytes(rotation);
  codes.codes.resize(rows * codes.row_bytes);
  codes.factor.resize(rows);
  std::vector<float> rotated(rotation.code_dim());
  std::vector<float> factors;
  for (size_t group = 0; group + 1 < group_begin.size(); ++group) {
    const size_t begin = group_begin[group], end = group_begin[group + 1];
    factors.clear();
    for (size_t row = begin; row < end; ++row) {
      rotation.Apply(residuals.data() + row * rotation.dim(), rotated.data());
      uint8_t* const code = codes.codes.data() + row * codes.row_bytes;
      factors.push_back(EncodeRow(rotated, codes.row_bytes * 4, code));
    }
    const float unit = factors.empty() ? 0.0f : MaxElement(factors) / kResidualFactorMax;
    codes.factor_unit.push_back(unit);
    for (size_t i = 0; i < factors.size() && unit > 0; ++i) {
      codes.factor[begin + i] = static_cast<uint8_t>(std::lround(factors[i] / unit));
    }
  }
  return codes;
}

ResidualQuery MakeResidualQuery(const SignRotation& rotation, const float* query, float* rotated,
                                int16_t* coefficients) {
  rotation.Apply(query, rotated);
  const std::span<const float> x(rotated, rotation.code_dim());
  float largest = 0, sum = 0;
  for (const float element : x) {
    largest = std::max(largest, std::abs(element));
    sum += element;
  }
  ResidualQuery result;
  result.step = largest > 0 ? largest / kCoefficientMax : 1.0f;
  result.offset = -kResidualMiddle * sum;
  result.variance = kResidualVariance * Dot(query, query, rotation.dim());
  std::fill_n(coefficients, ResidualCodeDim(rotation), int16_t{0});
  for (size_t j = 0; j < x.size(); ++j) {
    coefficients[j] = static_cast<int16_t>(std::lround(x[j] / result.step));
  }
  return result;
}

}  // namespace attic
