#include "server/index/segment/kmeans.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

std::vector<float> RandomPoints(size_t count, size_t dim, uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> points(count * dim);
  for (float& x : points) x = normal(random);
  return points;
}

double Inertia(const std::vector<float>& points, size_t dim, const KMeansResult& result) {
  double sum = 0;
  for (size_t i = 0; i < result.assignment.size(); ++i) {
    const float* centroid = result.centroids.data() + result.assignment[i] * dim;
    sum += SquaredDistance(points.data() + i * dim, centroid, dim);
  }
  return sum;
}

TEST(KMeansTest, EveryPointIsWithItsNearestCentroid) {
  const size_t dim = 20, clusters = 37;
  const std::vector<float> points = RandomPoints(1000, dim, 1);
  const KMeansResult result = KMeans(points, dim, clusters, 10);
  ASSERT_EQ(result.assignment.size(), 1000u);
  ASSERT_EQ(result.centroids.size(), clusters * dim);
  std::vector<int> sizes(clusters);
  for (size_t i = 0; i < 1000; ++i) {
    ASSERT_LT(result.assignment[i], clusters);
    ++sizes[result.assignment[i]];
    const auto distance = [&](size_t c) {
      return SquaredDistance(points.data() + i * dim, result.centroids.data() + c * dim, dim);
    };
    for (size_t c = 0; c < clusters; ++c) {
      EXPECT_LE(distance(result.assignment[i]), distance(c) + 1e-3f);
    }
  }
  for (int size : sizes) EXPECT_GT(size, 0);
}

TEST(KMeansTest, IterationsReduceTheError) {
  const size_t dim = 16;
  const std::vector<float> points = RandomPoints(2000, dim, 2);
  double last = Inertia(points, dim, KMeans(points, dim, 50, 0));
  for (int iterations : {1, 3, 10}) {
    const double next = Inertia(points, dim, KMeans(points, dim, 50, iterations));
    EXPECT_LT(next, last);
    last = next;
  }
}

TEST(KMeansTest, FewerDistinctPointsThanClustersIsNoError) {
  std::vector<float> points(100 * 8, 1.0f);
  const KMeansResult same = KMeans(points, 8, 10, 5);
  EXPECT_LT(Inertia(points, 8, same), 1e-6);
  const std::vector<float> one = RandomPoints(1, 8, 3);
  const KMeansResult single = KMeans(one, 8, 4, 5);
  EXPECT_EQ(single.centroids.size(), 32u);
  EXPECT_EQ(Inertia(one, 8, single), 0.0);
}

}  // namespace
}  // namespace attic
