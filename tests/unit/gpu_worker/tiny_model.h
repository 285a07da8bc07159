// Models for tests: the golden one of model/testdata/tiny, and random ones of any shape.
#ifndef ATTIC_TESTS_UNIT_GPU_WORKER_TINY_MODEL_H_
#define ATTIC_TESTS_UNIT_GPU_WORKER_TINY_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gpu_worker/backend/backend.h"
#include "gpu_worker/model/model_weights.h"

namespace attic::worker {

inline constexpr char kTinyFolder[] = "model/testdata/tiny";

// The elements of a .npy file, whose element type must have sizeof(T) bytes.
std::vector<int32_t> ReadNpyInt32(const std::string& path);
std::vector<float> ReadNpyFloat32(const std::string& path);

struct RandomModelShape {
  std::vector<LayerConfig> layers;
  uint32_t hidden_size = 32;
  uint32_t intermediate_size = 40;
  uint32_t q_heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t vocab_size = 64;
  uint32_t sliding_window = 7;
  uint32_t length_scaling_context = 20;
  bool head_norms = true;
};

// Weights drawn from a normal distribution, scaled so that activations keep their size.
std::unique_ptr<Model> MakeRandomModel(const RandomModelShape& shape, uint64_t seed,
                                       Backend& backend);

std::vector<uint32_t> RandomTokens(size_t count, uint32_t vocab_size, uint64_t seed);

}  // namespace attic::worker

#endif  // ATTIC_TESTS_UNIT_GPU_WORKER_TINY_MODEL_H_
