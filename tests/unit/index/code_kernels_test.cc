#include "server/index/codes/code_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "attention/vector_kernels.h"
#include "server/index/codes/sign_codes.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Codes of random rows, a random query, and room for limits.
class Fixture {
 public:
  Fixture(uint64_t seed, size_t dim, size_t rows)
      : random_(seed), rotation(dim), keys(Normal(rows * dim)) {
    std::printf("seed %llu dim %zu\n", static_cast<unsigned long long>(seed), dim);
    // Lengths that differ, so that the rows of a block do.
    for (size_t i = 0; i < rows; ++i) {
      const float scale = std::exp(0.5f * normal_(random_));
      for (size_t j = 0; j < dim; ++j) keys[i * dim + j] *= scale;
    }
    const std::vector<uint32_t> groups = {0, static_cast<uint32_t>(rows / 3),
                                          static_cast<uint32_t>(rows)};
    codes = MakeSignCodes(rotation, keys, groups);
    query = Normal(dim);
    rotated_.resize(rotation.code_dim());
    tables.resize(rotation.code_dim() / 4 * kNibbleTableBytes);
    coded = MakeSignQuery(rotation, query.data(), rotated_.data(), tables.data());
    for (size_t b = 0; b < codes.block_count(); ++b) {
      blocks_.push_back(codes.block(b));
      base.push_back(2 * normal_(random_));
    }
    sum_min.resize(blocks_.size() + kCodeLimitsSlack);
    sum_offset.resize(sum_min.size());
    product_min.resize(sum_min.size());
  }

  CodeBlocks blocks() const {
    return {.count = blocks_.size(),
            .codes = blocks_.data(),
            .base = base.data(),
            .radius = codes.radius.data(),
            .factor = codes.factor.data()};
  }
  CodeLimits limits() { return {sum_min.data(), sum_offset.data(), product_min.data()}; }

  CodeQuestion Question(float floor) const {
    const float per_factor =
        std::sqrt(static_cast<float>(rotation.code_dim())) * std::sqrt(2 / 3.14159265f);
    return {.step = coded.step,
            .offset = coded.offset,
            .floor = floor,
            .estimate_floor = -kInfinity,
            .error = kCodeErrors * coded.error,
            .table_error = kCodeErrors * coded.table_error,
            .length = coded.length,
            .reach = coded.length * per_factor};
  }

  uint32_t Sum(size_t b, size_t row) const {
    uint32_t sum = 0;
    for (size_t p = 0; p < codes.code_bytes; ++p) {
      const uint8_t code = codes.block(b)[p * kCodeBlockRows + row];
      sum += tables[2 * p * kNibbleTableBytes + (code & 15)] +
             tables[(2 * p + 1) * kNibbleTableBytes + (code >> 4)];
    }
    return sum;
  }
  uint8_t Units(size_t b, size_t row) const {
    return codes.block(b)[codes.code_bytes * kCodeBlockRows + row];
  }
  float RowFactor(size_t b, size_t row) const {
    return Units(b, row) * codes.factor[b] / kCodeFactorMax;
  }
  float Estimate(size_t b, size_t row) const {
    return base[b] +
           RowFactor(b, row) * (coded.step * static_cast<float>(Sum(b, row)) + coded.offset);
  }

  std::set<std::pair<size_t, size_t>> Scan() {
    std::vector<CodeHit> hits(blocks_.size() * kCodeBlockRows);
    const size_t count =
        ScanCodeBlocks(blocks(), limits(), codes.code_bytes, tables.data(), {}, hits.data());
    std::set<std::pair<size_t, size_t>> found;
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(hits[i].sum, Sum(hits[i].block, hits[i].row));
      EXPECT_TRUE(found.insert({hits[i].block, hits[i].row}).second);
    }
    return found;
  }

 private:
  std::vector<float> Normal(size_t count) {
    std::vector<float> x(count);
    for (float& value : x) value = normal_(random_);
    return x;
  }

  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
  std::vector<float> rotated_;
  std::vector<const uint8_t*> blocks_;

 public:
  SignRotation rotation;
  std::vector<float> keys;
  SignCodes codes;
  std::vector<float> query;
  std::vector<uint8_t> tables;
  SignQuery coded;
  std::vector<float> base;
  std::vector<int32_t> sum_min, sum_offset, product_min;
};

TEST(CodeKernelsTest, TheScanReportsExactlyTheRowsWithinTheLimits) {
  for (const size_t dim : {5, 16, 64, 128, 256}) {
    Fixture f(dim, dim, 700);
    const auto scale = static_cast<int32_t>(CodeSumScale(f.codes.code_bytes));
    const auto middle = static_cast<int32_t>(f.codes.code_bytes * 15);
    for (size_t b = 0; b < f.codes.block_count(); ++b) {
      f.sum_min[b] = b % 5 == 4 ? 0 : b % 5 == 3 ? 65535 : middle;
      f.sum_offset[b] = b % 3 == 0 ? -middle * scale / 2 : b % 3 == 1 ? 1000 : 0;
      f.product_min[b] = b % 2 == 0 ? middle * scale / 2 : 0;
    }
    std::set<std::pair<size_t, size_t>> expected;
    for (size_t b = 0; b < f.codes.block_count(); ++b) {
      for (size_t row = 0; row < kCodeBlockRows; ++row) {
        const auto sum = static_cast<int32_t>(f.Sum(b, row));
        const int32_t scaled = std::max(0, scale * sum + f.sum_offset[b]);
        if (sum < f.sum_min[b] || scaled * f.Units(b, row) / 256 < f.product_min[b]) continue;
        expected.insert({b, row});
      }
    }
    EXPECT_EQ(f.Scan(), expected) << dim;
    EXPECT_FALSE(expected.empty());
  }
}

// The limits are those of CodeMargin, but for rounding and the tangent.
TEST(CodeKernelsTest, LimitsLoseNoRowThatMayMatterAndFewOthersPass) {
  for (const size_t dim : {16, 64, 128}) {
    Fixture f(100 + dim, dim, 5000);
    size_t wanted = 0, passed = 0;
    for (const float floor : {5.0f, 20.0f, 40.0f}) {
      const CodeQuestion question = f.Question(floor);
      MakeCodeLimits(question, f.blocks(), f.codes.code_bytes, f.limits());
      const auto found = f.Scan();
      passed += found.size();
      for (size_t b = 0; b < f.codes.block_count(); ++b) {
        for (size_t row = 0; row < kCodeBlockRows; ++row) {
          if (f.codes.row[b * kCodeBlockRows + row] == SignCodes::kNoRow) continue;
          const float reach =
              std::min(question.reach * f.RowFactor(b, row), question.length * f.codes.radius[b]);
          const float missing = floor - f.base[b];
          if (reach < missing) continue;  // cannot reach the floor
          const float margin = CodeMargin(f.coded, reach, missing, f.RowFactor(b, row));
          if (f.Estimate(b, row) < floor - margin + 1e-3f) continue;
          ++wanted;
          EXPECT_TRUE(found.contains({b, row})) << "block " << b << " row " << row;
        }
      }
    }
    std::printf("%zu rows may matter, %zu pass\n", wanted, passed);
    EXPECT_GT(wanted, 100u);
    EXPECT_LT(passed, wanted * 3 / 2 + 100);
  }
}

TEST(CodeKernelsTest, TheFloorOfEstimatesIsALimitOfItsOwn) {
  Fixture f(7, 64, 2000);
  CodeQuestion question = f.Question(-kInfinity);
  question.estimate_floor = 6.0f;
  MakeCodeLimits(question, f.blocks(), f.codes.code_bytes, f.limits());
  const auto found = f.Scan();
  size_t expected = 0;
  for (size_t b = 0; b < f.codes.block_count(); ++b) {
    for (size_t row = 0; row < kCodeBlockRows; ++row) {
      const float estimate = f.Estimate(b, row);
      if (estimate < question.estimate_floor - 0.1f) {
        EXPECT_FALSE(found.contains({b, row})) << estimate;
      } else if (estimate >= question.estimate_floor + 1e-3f) {
        ++expected;
        EXPECT_TRUE(found.contains({b, row})) << estimate;
      }
    }
  }
  EXPECT_GT(expected, 20u);
  // Nothing asked: everything passes.
  MakeCodeLimits(f.Question(-kInfinity), f.blocks(), f.codes.code_bytes, f.limits());
  EXPECT_EQ(f.Scan().size(), f.codes.block_count() * kCodeBlockRows);
}

TEST(CodeKernelsTest, GroupsInReachAreThoseOfTheBound) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (const size_t count : {0, 1, 15, 16, 17, 33, 500}) {
    std::vector<float> base(count), radius(count);
    for (float& x : base) x = uniform(random);
    for (float& x : radius) x = uniform(random);
    std::vector<uint32_t> expected;
    for (uint32_t i = 0; i < count; ++i) {
      if (std::fma(2.0f, radius[i], base[i]) >= 1.5f) expected.push_back(10 + i);
    }
    std::vector<uint32_t> found(count + kCodeLimitsSlack);
    found.resize(
        ListGroupsInReach(base.data(), radius.data(), count, 2.0f, 1.5f, 10, found.data()));
    EXPECT_EQ(found, expected) << count;
  }
}

}  // namespace
}  // namespace attic
