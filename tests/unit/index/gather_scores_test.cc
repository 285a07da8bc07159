#include "attention/gather_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/unit/index/attention_like_data.h"

namespace attic {
namespace {

TEST(GatherScoresTest, MatchesDoubleForEveryTypeAndDimension) {
  auto random = SeededRandom(41);
  for (const size_t dim : {1, 2, 7, 8, 15, 16, 31, 32, 33, 64, 65, 100, 128, 131}) {
    const auto data = MakeAttentionLikeData(50, 1, dim, random);
    for (const ElementType type :
         {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
      // Exactly as many bytes as rows, so that the address sanitizer sees reads beyond the end.
      std::vector<std::byte> bytes(50 * dim * ElementBytes(type));
      FromFloat32(data.keys, type, bytes.data());
      const VectorsView vectors{bytes.data(), type, 50, dim};
      std::vector<float> packed(PackedQueryFloats(dim));
      PackQuery(data.query(0), dim, type, packed.data());
      for (const size_t count : {0, 1, 3, 4, 5, 23}) {
        std::vector<uint32_t> rows;
        for (size_t i = 0; i < count; ++i) rows.push_back(random() % 50);
        std::vector<float> scores(count);
        GatherScores(packed.data(), vectors, rows, scores.data());
        std::vector<const std::byte*> addresses;
        for (const uint32_t row : rows) addresses.push_back(vectors.row(row));
        std::vector<float> scattered(count);
        GatherScores(packed.data(), ScatteredRows{addresses, type, dim}, scattered.data());
        EXPECT_EQ(scattered, scores);
        for (size_t i = 0; i < count; ++i) {
          std::vector<float> row(dim);
          ToFloat32(vectors.row(rows[i]), type, row);
          double expected = 0, magnitude = 0;
          for (size_t d = 0; d < dim; ++d) {
            expected += static_cast<double>(row[d]) * data.query(0)[d];
            magnitude += std::abs(static_cast<double>(row[d]) * data.query(0)[d]);
          }
          EXPECT_NEAR(scores[i], expected, 1e-5 * magnitude + 1e-6)
              << ElementTypeName(type) << " dim " << dim;
        }
      }
    }
  }
}

}  // namespace
}  // namespace attic
