// The weights of a decoder, read from model.safetensors and handed to a backend.
#ifndef ATTIC_GPU_WORKER_MODEL_MODEL_WEIGHTS_H_
#define ATTIC_GPU_WORKER_MODEL_MODEL_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/model/model_config.h"
#include "gpu_worker/model/safetensors.h"

namespace attic::worker {

// Matrices are (outputs, inputs); vectors float32.
struct LayerWeights {
  std::vector<float> input_norm;           // (hidden_size)
  std::vector<float> q_norm;               // (head_dim), empty: queries are not normed
  std::vector<float> k_norm;               // (head_dim), empty: keys are not normed
  std::unique_ptr<Matrix> q, k, v;         // (heads * head_dim, hidden_size)
  std::unique_ptr<Matrix> o;               // (hidden_size, q_heads * head_dim)
  std::vector<float> post_attention_norm;  // (hidden_size); it and the rest only in dense layers
  std::unique_ptr<Matrix> gate, up;        // (intermediate_size, hidden_size)
  std::unique_ptr<Matrix> down;            // (hidden_size, intermediate_size)
};

// Immutable after loading. Belongs to the backend that holds the matrices.
struct Model {
  ModelConfig config;
  std::string revision;           // hash of the weights file, 16 hexadecimal digits
  uint64_t parameters = 0;        // elements of all tensors used
  std::vector<float> embeddings;  // (vocab_size, hidden_size)
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;    // (hidden_size)
  std::unique_ptr<Matrix> lm_head;  // (vocab_size, hidden_size)
};

// Takes the tensors `config` calls for out of `file`, under Hugging Face's names for Llama.
// INVALID_ARGUMENT names the file and the tensor that is missing, has another shape, is not finite,
// or that this decoder would not use (such as a bias).
absl::StatusOr<std::unique_ptr<Model>> LoadModelWeights(const ModelConfig& config,
                                                        const SafetensorsFile& file,
                                                        Backend& backend);

// Reads `folder`/config.json and `folder`/model.safetensors.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& folder, Backend& backend);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_MODEL_WEIGHTS_H_
