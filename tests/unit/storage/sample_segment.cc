#include "tests/unit/storage/sample_segment.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>

#include "server/index/segment/segment_builder.h"

namespace attic {
namespace {

struct Rows {
  std::vector<std::byte> bytes;
  VectorsView view;
};

Rows NormalRows(ElementType type, size_t count, size_t dim, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count * dim);
  for (float& x : numbers) x = normal(random);
  Rows rows{.bytes = std::vector<std::byte>(numbers.size() * ElementBytes(type))};
  FromFloat32(numbers, type, rows.bytes.data());
  rows.view = {rows.bytes.data(), type, count, dim};
  return rows;
}

std::vector<std::byte> InRowOrder(const VectorsView& by_position, const Segment& segment) {
  std::vector<std::byte> rows(by_position.bytes());
  for (size_t row = 0; row < segment.tokens; ++row) {
    std::memcpy(rows.data() + row * by_position.row_bytes(),
                by_position.row(segment.row_position[row]), by_position.row_bytes());
  }
  return rows;
}

// Multiples of 1/8, exact as bfloat16.
std::vector<std::byte> CountedBFloat16(size_t count, int first) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < count; ++i) {
    const float x = static_cast<float>((first + static_cast<int>(i) * 5) % 31 - 15) / 8;
    const auto bits = std::bit_cast<uint32_t>(x);
    bytes.push_back(static_cast<std::byte>(bits >> 16));
    bytes.push_back(static_cast<std::byte>(bits >> 24));
  }
  return bytes;
}

template <typename T>
std::vector<T> Counted(size_t count, int first, float scale) {
  std::vector<T> numbers;
  for (size_t i = 0; i < count; ++i) {
    numbers.push_back(static_cast<T>(static_cast<float>(first + static_cast<int>(i)) * scale));
  }
  return numbers;
}

// Groups of at most five rows, whose logarithms need no library.
ClusterSums HandMadeSums(const std::vector<uint32_t>& row_begin, size_t head_dim, size_t value_dim,
                         int first) {
  constexpr float kLogs[] = {
      -std::numeric_limits<float>::infinity(), 0.0f, 0.693147f, 1.098612f, 1.386294f, 1.609438f};
  constexpr float kLimits[] = {0.0f, 0.0f, 1.177410f, 1.482304f, 1.665109f, 1.794123f};
  ClusterSums sums;
  sums.count = row_begin.size() - 1;
  sums.row_begin = row_begin;
  sums.centroids = CountedBFloat16(sums.count * head_dim, first);
  sums.mean_values = CountedBFloat16(sums.count * value_dim, first + 1);
  for (size_t group = 0; group < sums.count; ++group) {
    sums.log_count.push_back(kLogs[sums.rows(group)]);
    sums.deviation_limit.push_back(kLimits[sums.rows(group)]);
  }
  sums.deviation = Counted<float>(sums.count, first, 0.125f);
  sums.radius = Counted<float>(sums.count, first, 0.25f);
  sums.scatter = first + 0.5;
  sums.value_scatter = first + 0.25;
  return sums;
}

}  // namespace

SampleSegment BuiltSegment(const SampleShape& shape, uint32_t seed) {
  std::mt19937 random(seed);
  const Rows keys = NormalRows(shape.element_type, shape.tokens, shape.head_dim, random);
  const Rows values = NormalRows(shape.element_type, shape.tokens, shape.value_dim, random);
  const SegmentOptions options{
      .clusters = shape.clusters, .super_clusters = shape.super_clusters, .kmeans_iterations = 2};
  const auto built = BuildSegment(keys.view, values.view, shape.begin_position, options,
                                  SignRotation(shape.head_dim));
  SampleSegment sample{.segment = std::make_shared<Segment>(*built)};
  sample.vectors.keys = InRowOrder(keys.view, *built);
  sample.vectors.values = InRowOrder(values.view, *built);
  return sample;
}

SampleSegment HandMadeSegment() {
  constexpr size_t kHeadDim = 5, kValueDim = 3, kTokens = 7;
  SampleSegment sample{.segment = std::make_shared<Segment>()};
  Segment& segment = *sample.segment;
  segment.element_type = ElementType::kBFloat16;
  segment.head_dim = kHeadDim;
  segment.value_dim = kValueDim;
  segment.begin_position = 8192;
  segment.tokens = kTokens;
  segment.row_position = {1, 4, 3, 0, 2, 5, 6};
  segment.clusters = HandMadeSums({0, 2, 2, 3, 7}, kHeadDim, kValueDim, 1);
  segment.super_clusters = HandMadeSums({0, 2, 7}, kHeadDim, kValueDim, 2);
  segment.super_cluster_begin = {0, 2, 4};
  segment.value_scatter = 12.5;
  SignCodes& codes = segment.codes;
  codes.code_bytes = 1;
  codes.group_block = {0, 1, 2};
  codes.row.assign(2 * kCodeBlockRows, SignCodes::kNoRow);
  for (uint16_t row = 0; row < 2; ++row) codes.row[row] = 1 - row;
  for (uint16_t row = 2; row < 7; ++row) codes.row[kCodeBlockRows + row - 2] = 8 - row;
  codes.blocks = Counted<uint8_t>(2 * codes.block_bytes(), 0, 0.75f);
  codes.radius = {1.5f, 2.5f};
  codes.factor = {0.5f, 0.25f};
  segment.residuals.row_bytes = 8;
  segment.residuals.codes = Counted<uint8_t>(kTokens * 8, 3, 4.0f);
  segment.residuals.factor = Counted<uint8_t>(kTokens, 200, 1.0f);
  segment.residuals.factor_unit = Counted<float>(4, 1, 0.0625f);
  sample.vectors.keys = CountedBFloat16(kTokens * kHeadDim, 7);
  sample.vectors.values = CountedBFloat16(kTokens * kValueDim, 11);
  return sample;
}

namespace {

void ExpectSameSums(const ClusterSums& actual, const ClusterSums& expected) {
  EXPECT_EQ(actual.count, expected.count);
  EXPECT_EQ(actual.row_begin, expected.row_begin);
  EXPECT_EQ(actual.centroids, expected.centroids);
  EXPECT_EQ(actual.mean_values, expected.mean_values);
  EXPECT_EQ(actual.log_count, expected.log_count);
  EXPECT_EQ(actual.deviation, expected.deviation);
  EXPECT_EQ(actual.deviation_limit, expected.deviation_limit);
  EXPECT_EQ(actual.radius, expected.radius);
  EXPECT_EQ(actual.scatter, expected.scatter);
  EXPECT_EQ(actual.value_scatter, expected.value_scatter);
}

}  // namespace

void ExpectSameSegment(const Segment& actual, const Segment& expected) {
  EXPECT_EQ(actual.version, expected.version);
  EXPECT_EQ(actual.element_type, expected.element_type);
  EXPECT_EQ(actual.head_dim, expected.head_dim);
  EXPECT_EQ(actual.value_dim, expected.value_dim);
  EXPECT_EQ(actual.begin_position, expected.begin_position);
  EXPECT_EQ(actual.tokens, expected.tokens);
  EXPECT_EQ(actual.row_position, expected.row_position);
  ExpectSameSums(actual.clusters, expected.clusters);
  ExpectSameSums(actual.super_clusters, expected.super_clusters);
  EXPECT_EQ(actual.super_cluster_begin, expected.super_cluster_begin);
  EXPECT_EQ(actual.value_scatter, expected.value_scatter);
  EXPECT_EQ(actual.codes.code_bytes, expected.codes.code_bytes);
  EXPECT_EQ(actual.codes.group_block, expected.codes.group_block);
  EXPECT_EQ(actual.codes.blocks, expected.codes.blocks);
  EXPECT_EQ(actual.codes.row, expected.codes.row);
  EXPECT_EQ(actual.codes.radius, expected.codes.radius);
  EXPECT_EQ(actual.codes.factor, expected.codes.factor);
  EXPECT_EQ(actual.residuals.row_bytes, expected.residuals.row_bytes);
  EXPECT_EQ(actual.residuals.codes, expected.residuals.codes);
  EXPECT_EQ(actual.residuals.factor, expected.residuals.factor);
  EXPECT_EQ(actual.residuals.factor_unit, expected.residuals.factor_unit);
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  ASSERT_TRUE(file.flush().good());
}

std::shared_ptr<rocksdb::FileSystem> MachineFileSystem() { return rocksdb::FileSystem::Default(); }

std::shared_ptr<ClusterCache> SmallCache(uint64_t bytes_max) {
  return std::make_shared<ClusterCache>(
      ClusterCacheOptions{.bytes_max = bytes_max, .read_threads = 2});
}

}  // namespace attic
