// Speed of the exact scan and the kernels below it, on one thread, beside a plain read of as much
// memory. bytes_per_second counts the bytes of keys and values (once, however many query heads).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "attention/exact_attention.h"
#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr size_t kLargeBytes = 128 << 20;  // of keys and of values each: larger than any cache
constexpr size_t kCachedRows = 256;        // of keys or values: in the second-level cache

// Random numbers near 1, repeated, so that filling many bytes takes no time.
std::vector<std::byte> RandomRows(ElementType type, size_t count, size_t dim) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  constexpr size_t kDistinct = 1 << 16;
  std::vector<float> floats(kDistinct + dim);
  for (float& x : floats) x = normal(random);
  std::vector<std::byte> rows(count * dim * ElementBytes(type));
  for (size_t i = 0; i < count; ++i) {
    const size_t offset = (i * 40503) % kDistinct;
    FromFloat32(std::span(floats).subspan(offset, dim), type,
                rows.data() + i * dim * ElementBytes(type));
  }
  return rows;
}

std::vector<float> RandomQueries(size_t count, size_t dim) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> queries(count * dim);
  for (float& x : queries) x = normal(random);
  return queries;
}

void BM_MemoryRead(benchmark::State& state) {
  std::vector<uint64_t> words(2 * kLargeBytes / sizeof(uint64_t), 1);
  for (auto _ : state) {
    uint64_t sum = std::accumulate(words.begin(), words.end(), uint64_t{0});
    benchmark::DoNotOptimize(sum);
  }
  state.SetBytesProcessed(state.iterations() * 2 * kLargeBytes);
}
BENCHMARK(BM_MemoryRead)->Unit(benchmark::kMillisecond);

// Arguments: element type, head_dim, query heads of the group.
void BM_ScanExact(benchmark::State& state) {
  const auto type = static_cast<ElementType>(state.range(0));
  const size_t dim = state.range(1);
  const size_t group = state.range(2);
  const size_t tokens = kLargeBytes / (dim * ElementBytes(type));
  const std::vector<std::byte> keys = RandomRows(type, tokens, dim);
  const std::vector<std::byte> values = RandomRows(type, tokens, dim);
  const std::vector<float> queries = RandomQueries(group, dim);
  const float logit_scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<AttentionAccumulator> accumulators(group, AttentionAccumulator(dim));
  ScanScratch scratch;
  for (auto _ : state) {
    for (AttentionAccumulator& accumulator : accumulators) accumulator.Reset(dim);
    ScanExact(queries.data(), logit_scale, {keys.data(), type, tokens, dim},
              {values.data(), type, tokens, dim}, accumulators, scratch);
    benchmark::DoNotOptimize(accumulators.data());
  }
  state.SetLabel(std::string(ElementTypeName(type)) + " " + VectorTargetName());
  state.SetBytesProcessed(state.iterations() * (keys.size() + values.size()));
}
BENCHMARK(BM_ScanExact)
    ->ArgNames({"type", "dim", "group"})
    ->ArgsProduct({{static_cast<int>(ElementType::kBFloat16)}, {64, 128}, {1, 2, 4, 8}})
    ->ArgsProduct({{static_cast<int>(ElementType::kFloat16),
                    static_cast<int>(ElementType::kFloat32)},
                   {128},
                   {2, 4}})
    ->Unit(benchmark::kMillisecond);

// Rows in cache. Arguments: head_dim, query heads.
void BM_ScoreVectors(benchmark::State& state) {
  const size_t dim = state.range(0);
  const size_t group = state.range(1);
  const std::vector<std::byte> rows = RandomRows(ElementType::kBFloat16, kCachedRows, dim);
  const std::vector<float> queries = RandomQueries(group, dim);
  std::vector<float> scores(group * kCachedRows);
  for (auto _ : state) {
    ScoreVectors(queries.data(), group, {rows.data(), ElementType::kBFloat16, kCachedRows, dim},
                 scores.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * rows.size());
}
BENCHMARK(BM_ScoreVectors)->ArgNames({"dim", "group"})->ArgsProduct({{64, 128}, {1, 2, 4, 8}});

void BM_AddWeightedVectors(benchmark::State& state) {
  const size_t dim = state.range(0);
  const size_t group = state.range(1);
  const std::vector<std::byte> rows = RandomRows(ElementType::kBFloat16, kCachedRows, dim);
  const std::vector<float> weights = RandomQueries(group, kCachedRows);
  std::vector<float> sums(group * dim);
  for (auto _ : state) {
    AddWeightedVectors(weights.data(), group,
                       {rows.data(), ElementType::kBFloat16, kCachedRows, dim}, sums.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * rows.size());
}
BENCHMARK(BM_AddWeightedVectors)
    ->ArgNames({"dim", "group"})
    ->ArgsProduct({{64, 128}, {1, 2, 4, 8}});

// The logits of one block and head: scaled, maximum found, exponentials summed.
void BM_Softmax(benchmark::State& state) {
  const std::vector<float> scores = RandomQueries(1, kCachedRows);
  std::vector<float> weights(kCachedRows);
  for (auto _ : state) {
    std::memcpy(weights.data(), scores.data(), kCachedRows * sizeof(float));
    const float max = ScaleLogits(0.125f, weights);
    benchmark::DoNotOptimize(ExpInPlace(max, weights));
  }
  state.SetItemsProcessed(state.iterations() * kCachedRows);
}
BENCHMARK(BM_Softmax);

}  // namespace
}  // namespace attic

BENCHMARK_MAIN();
