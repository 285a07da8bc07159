#include "tests/unit/gpu_worker/tiny_model.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "base/check.h"

namespace attic::worker {
namespace {

template <typename T>
std::vector<T> ReadNpy(const std::string& path, const std::string& type) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  ATTIC_CHECK(bytes.size() > 10 && bytes.compare(1, 5, "NUMPY") == 0);
  const size_t header = static_cast<uint8_t>(bytes[8]) + 256u * static_cast<uint8_t>(bytes[9]);
  ATTIC_CHECK(bytes.substr(10, header).find(type) != std::string::npos);
  std::vector<T> elements((bytes.size() - 10 - header) / sizeof(T));
  std::memcpy(elements.data(), bytes.data() + 10 + header, elements.size() * sizeof(T));
  return elements;
}

class RandomWeights {
 public:
  RandomWeights(uint64_t seed, Backend& backend) : random_(seed), backend_(backend) {}

  std::vector<float> Vector(size_t size, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> x(size);
    for (float& value : x) value = normal(random_);
    return x;
  }
  std::unique_ptr<Matrix> Make(size_t outputs, size_t inputs) {
    const float deviation = 1.5f / std::sqrt(static_cast<float>(inputs));
    return *backend_.LoadMatrix(Vector(outputs * inputs, 0.0f, deviation), outputs, inputs);
  }

 private:
  std::mt19937_64 random_;
  Backend& backend_;
};

}  // namespace

std::vector<int32_t> ReadNpyInt32(const std::string& path) { return ReadNpy<int32_t>(path, "<i4"); }
std::vector<float> ReadNpyFloat32(const std::string& path) { return ReadNpy<float>(path, "<f4"); }

std::unique_ptr<Model> MakeRandomModel(const RandomModelShape& shape, uint64_t seed,
                                       Backend& backend) {
  RandomWeights random(seed, backend);
  auto model = std::make_unique<Model>();
  model->config = {.model_id = "random",
                   .hidden_size = shape.hidden_size,
                   .intermediate_size = shape.intermediate_size,
                   .q_heads = shape.q_heads,
                   .kv_heads = shape.kv_heads,
                   .head_dim = shape.head_dim,
                   .vocab_size = shape.vocab_size,
                   .sliding_window = shape.sliding_window,
                   .length_scaling_context = shape.length_scaling_context,
                   .layers = shape.layers};
  model->revision = "test";
  const size_t hidden = shape.hidden_size;
  model->embeddings = random.Vector(shape.vocab_size * hidden, 0.0f, 1.0f);
  model->final_norm = random.Vector(hidden, 1.0f, 0.3f);
  model->lm_head = random.Make(shape.vocab_size, hidden);
  model->layers.resize(shape.layers.size());
  for (size_t i = 0; i < shape.layers.size(); ++i) {
    LayerWeights& layer = model->layers[i];
    layer.input_norm = random.Vector(hidden, 1.0f, 0.3f);
    layer.q = random.Make(shape.q_heads * shape.head_dim, hidden);
    layer.k = random.Make(shape.kv_heads * shape.head_dim, hidden);
    layer.v = random.Make(shape.kv_heads * shape.head_dim, hidden);
    layer.o = random.Make(hidden, shape.q_heads * shape.head_dim);
    if (shape.head_norms) {
      layer.q_norm = random.Vector(shape.head_dim, 1.0f, 0.3f);
      layer.k_norm = random.Vector(shape.head_dim, 1.0f, 0.3f);
    }
    if (!shape.layers[i].dense) continue;
    layer.post_attention_norm = random.Vector(hidden, 1.0f, 0.3f);
    layer.gate = random.Make(shape.intermediate_size, hidden);
    layer.up = random.Make(shape.intermediate_size, hidden);
    layer.down = random.Make(hidden, shape.intermediate_size);
  }
  return model;
}

std::vector<uint32_t> RandomTokens(size_t count, uint32_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % vocab_size);
  return tokens;
}

}  // namespace attic::worker
