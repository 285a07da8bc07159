#include "server/index/sign_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "attention/vector_kernels.h"
#include "server/index/bfloat16.h"
#include "server/index/index_kernels.h"

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
  SignCodes codes;
  Coded(size_t dim, size_t count, std::mt19937_64& random)
      : rotation(dim), rows(RandomRows(count, dim, random)), codes(MakeSignCodes(rotation, rows)) {}
};

// Sums that the scan must report: looked up one by one.
uint16_t SlowSum(const SignCodes& codes, size_t row, const uint8_t* tables) {
  uint16_t sum = 0;
  for (size_t p = 0; p < codes.code_bytes; ++p) {
    const size_t block = row / kCodeBlockRows;
    const uint8_t code =
        codes.blocks[(block * codes.code_bytes + p) * kCodeBlockRows + row % kCodeBlockRows];
    sum += tables[2 * p * kNibbleTableBytes + (code & 15)] +
           tables[(2 * p + 1) * kNibbleTableBytes + (code >> 4)];
  }
  return sum;
}

TEST(SignCodesTest, TheRotationKeepsInnerProducts) {
  std::mt19937_64 random(1);
  for (size_t dim : {3, 8, 64, 80, 128}) {
    const SignRotation rotation(dim);
    const std::vector<float> rows = RandomRows(2, dim, random);
    std::vector<float> a(rotation.code_dim()), b(rotation.code_dim());
    rotation.Apply(rows.data(), a.data());
    rotation.Apply(rows.data() + dim, b.data());
    EXPECT_NEAR(Dot(a.data(), b.data(), a.size()), Dot(rows.data(), rows.data() + dim, dim), 1e-3);
  }
}

TEST(SignCodesTest, TheScanReportsExactlyTheRowsThatReachTheThreshold) {
  std::mt19937_64 random(2);
  for (size_t dim : {5, 16, 64, 128, 256}) {
    for (size_t group = 1; group <= 7; ++group) {
      const Coded coded(dim, 300, random);
      const size_t blocks = coded.codes.block_count();
      const size_t table_bytes = 2 * coded.codes.code_bytes * kNibbleTableBytes;
      std::vector<uint8_t> tables(group * table_bytes);
      std::vector<float> rotated(coded.rotation.code_dim());
      const std::vector<float> queries = RandomRows(group, dim, random);
      std::vector<uint16_t> thresholds(group * blocks);
      for (size_t g = 0; g < group; ++g) {
        MakeSignQuery(coded.rotation, queries.data() + g * dim, rotated.data(),
                      tables.data() + g * table_bytes);
      }
      const auto middle = static_cast<uint16_t>(coded.codes.code_bytes * 15);
      for (uint16_t& threshold : thresholds)
        threshold = random() % 5 == 0 ? kSkipCodeBlock : middle;
      std::vector<CodeHit> hits(group * blocks * kCodeBlockRows);
      const size_t count = ScanCodeBlocks(coded.codes.blocks.data(), blocks, coded.codes.code_bytes,
                                          tables.data(), group, thresholds.data(), hits.data());
      size_t expected = 0;
      for (size_t g = 0; g < group; ++g) {
        for (size_t row = 0; row < blocks * kCodeBlockRows; ++row) {
          expected += SlowSum(coded.codes, row, tables.data() + g * table_bytes) >=
                      thresholds[g * blocks + row / kCodeBlockRows];
        }
      }
      EXPECT_EQ(count, expected) << dim << " " << group;
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(hits[i].sum,
                  SlowSum(coded.codes, hits[i].row, tables.data() + hits[i].query * table_bytes));
      }
    }
  }
}

TEST(SignCodesTest, EstimatesAreUnbiasedAndAsCloseAsThePaperSays) {
  std::mt19937_64 random(3);
  const size_t dim = 64, rows = 128;
  double sum = 0, squares = 0;
  size_t n = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const Coded coded(dim, rows, random);
    const std::vector<float> query = RandomRows(1, dim, random);
    std::vector<uint8_t> tables(2 * coded.codes.code_bytes * kNibbleTableBytes);
    std::vector<float> rotated(coded.rotation.code_dim());
    const SignQuery sign =
        MakeSignQuery(coded.rotation, query.data(), rotated.data(), tables.data());
    for (size_t row = 0; row < rows; ++row) {
      const float* key = coded.rows.data() + row * dim;
      const float estimate = WidenBFloat16(coded.codes.factor[row]) *
                             (sign.step * SlowSum(coded.codes, row, tables.data()) + sign.offset);
      const double lengths = std::sqrt(Dot(key, key, dim) * Dot(query.data(), query.data(), dim));
      const double error = (estimate - Dot(query.data(), key, dim)) / lengths;
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

}  // namespace
}  // namespace attic
