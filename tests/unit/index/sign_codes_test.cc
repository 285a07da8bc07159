#include "server/index/codes/sign_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

std::vector<float> RandomRows(size_t count, size_t dim, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> rows(count * dim);
  for (float& x : rows) x = normal(random);
  return rows;
}

struct Coded {
  SignRotation rotation;
  std::vector<float> rows;
  std::vector<uint32_t> group_begin;
  SignCodes codes;
  // The rows fall into groups of about `group_rows`, one of them empty.
  Coded(size_t dim, size_t count, size_t group_rows, std::mt19937_64& random)
      : rotation(dim), rows(RandomRows(count, dim, random)), group_begin{0, 0} {
    for (size_t end = group_rows; end < count; end += group_rows) {
      group_begin.push_back(static_cast<uint32_t>(end));
    }
    group_begin.push_back(static_cast<uint32_t>(count));
    codes = MakeSignCodes(rotation, rows, group_begin);
  }
  const float* row(size_t i) const { return rows.data() + i * rotation.dim(); }
};

struct CodedQuery {
  std::vector<float> query, rotated;
  std::vector<uint8_t> tables;
  SignQuery code;
  CodedQuery(const SignRotation& rotation, std::vector<float> vector)
      : query(std::move(vector)),
        rotated(rotation.code_dim()),
        tables(rotation.code_dim() / 4 * kNibbleTableBytes),
        code(MakeSignQuery(rotation, query.data(), rotated.data(), tables.data())) {}
};

// The sum that the scan must report for a slot: looked up byte by byte.
uint32_t SlowSum(const SignCodes& codes, size_t block, size_t slot, const uint8_t* tables) {
  uint32_t sum = 0;
  for (size_t p = 0; p < codes.code_bytes; ++p) {
    const uint8_t code = codes.block(block)[p * kCodeBlockRows + slot];
    sum += tables[2 * p * kNibbleTableBytes + (code & 15)] +
           tables[(2 * p + 1) * kNibbleTableBytes + (code >> 4)];
  }
  return sum;
}

float Factor(const SignCodes& codes, size_t block, size_t slot) {
  const uint8_t units = codes.block(block)[codes.code_bytes * kCodeBlockRows + slot];
  return units * codes.factor[block] / kCodeFactorMax;
}

TEST(SignCodesTest, TheRotationKeepsInnerProductsAndCanBeUndone) {
  std::mt19937_64 random(1);
  for (size_t dim : {3, 8, 64, 80, 128}) {
    const SignRotation rotation(dim);
    const std::vector<float> rows = RandomRows(2, dim, random);
    std::vector<float> a(rotation.code_dim()), b(rotation.code_dim());
    rotation.Apply(rows.data(), a.data());
    rotation.Apply(rows.data() + dim, b.data());
    EXPECT_NEAR(Dot(a.data(), b.data(), a.size()), Dot(rows.data(), rows.data() + dim, dim), 1e-3);
    std::vector<float> back(dim);
    rotation.Undo(a.data(), back.data());
    for (size_t j = 0; j < dim; ++j) EXPECT_NEAR(back[j], rows[j], 1e-4);
  }
}

TEST(SignCodesTest, EveryRowHasOneCodeInItsGroupsBlocksByDescendingLength) {
  std::mt19937_64 random(4);
  const size_t dim = 24, rows = 500;
  const Coded coded(dim, rows, 150, random);
  const SignCodes& codes = coded.codes;
  std::vector<int> seen(rows);
  ASSERT_EQ(codes.group_block.size(), coded.group_begin.size());
  EXPECT_EQ(codes.group_block.back(), codes.block_count());
  const std::vector<float> radii = codes.GroupRadii();
  for (size_t group = 0; group + 1 < coded.group_begin.size(); ++group) {
    float last = std::numeric_limits<float>::infinity();
    float longest = 0;
    for (size_t b = codes.group_block[group]; b < codes.group_block[group + 1]; ++b) {
      float block_radius = 0, block_factor = 0;
      for (size_t slot = 0; slot < kCodeBlockRows; ++slot) {
        const uint16_t row = codes.row[b * kCodeBlockRows + slot];
        if (row == SignCodes::kNoRow) continue;
        ++seen[row];
        EXPECT_GE(row, coded.group_begin[group]);
        EXPECT_LT(row, coded.group_begin[group + 1]);
        const float length = std::sqrt(Dot(coded.row(row), coded.row(row), dim));
        EXPECT_LE(length, last);
        last = length;
        block_radius = std::max(block_radius, length);
        block_factor = std::max(block_factor, Factor(codes, b, slot));
      }
      EXPECT_FLOAT_EQ(codes.radius[b], block_radius);
      EXPECT_FLOAT_EQ(codes.factor[b], block_factor);
      longest = std::max(longest, block_radius);
    }
    EXPECT_FLOAT_EQ(radii[group], longest);
  }
  for (size_t row = 0; row < rows; ++row) EXPECT_EQ(seen[row], 1) << row;
}

TEST(SignCodesTest, EstimatesAreUnbiasedAndAsCloseAsThePaperSays) {
  std::mt19937_64 random(3);
  const size_t dim = 64, rows = 128;
  double sum = 0, squares = 0;
  size_t n = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const Coded coded(dim, rows, rows, random);
    const CodedQuery query(coded.rotation, RandomRows(1, dim, random));
    for (size_t i = 0; i < coded.codes.row.size(); ++i) {
      if (coded.codes.row[i] == SignCodes::kNoRow) continue;
      const float* key = coded.row(coded.codes.row[i]);
      const size_t block = i / kCodeBlockRows, slot = i % kCodeBlockRows;
      const float estimate =
          Factor(coded.codes, block, slot) *
          (query.code.step * SlowSum(coded.codes, block, slot, query.tables.data()) +
           query.code.offset);
      const double lengths = std::sqrt(Dot(key, key, dim)) * query.code.length;
      const double error = (estimate - Dot(query.query.data(), key, dim)) / lengths;
      sum += error;
      squares += error * error;
      ++n;
    }
  }
  const double deviation = std::sqrt(squares / n);
  std::printf("mean %f deviation %f\n", sum / n, deviation);
  EXPECT_LT(std::abs(sum / n), 0.005);
  // sqrt((1 - x^2) / (x^2 (D - 1))) with x = sqrt(2 / pi), and a little for rounded tables.
  EXPECT_LT(deviation, 0.105);
  EXPECT_GT(deviation, 0.08);
}

// The margin must hold for keys along the query as well, where it is small.
TEST(SignCodesTest, EstimatesFallShortByMoreThanTheMarginAsSeldomAsTheNormalLawSays) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  const size_t dim = 64, rows = 2000;
  for (const float noise : {0.2f, 1.0f, 5.0f}) {
    const SignRotation rotation(dim);
    const CodedQuery query(rotation, RandomRows(1, dim, random));
    std::vector<float> keys;
    for (size_t i = 0; i < rows; ++i) {
      for (const float x : query.query) keys.push_back(x + noise * normal(random));
    }
    const std::vector<uint32_t> group = {0, rows};
    const SignCodes codes = MakeSignCodes(rotation, keys, group);
    size_t beyond = 0;
    for (size_t i = 0; i < codes.row.size(); ++i) {
      if (codes.row[i] == SignCodes::kNoRow) continue;
      const float* key = keys.data() + codes.row[i] * dim;
      const size_t block = i / kCodeBlockRows, slot = i % kCodeBlockRows;
      const float logit = Dot(query.query.data(), key, dim);
      const float factor = Factor(codes, block, slot);
      const float estimate =
          factor *
          (query.code.step * SlowSum(codes, block, slot, query.tables.data()) + query.code.offset);
      const float reach = query.code.length * std::sqrt(Dot(key, key, dim));
      beyond += estimate < logit - CodeMargin(query.code, reach, logit, factor);
    }
    std::printf("noise %.1f: %zu of %zu beyond\n", noise, beyond, rows);
    EXPECT_LE(beyond, rows / 200);
  }
}

}  // namespace
}  // namespace attic
