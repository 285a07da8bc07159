// The shape of a Llama-family decoder, read from a config.json with Hugging Face's keys.
#ifndef ATTIC_GPU_WORKER_MODEL_MODEL_CONFIG_H_
#define ATTIC_GPU_WORKER_MODEL_MODEL_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu_worker/backend/backend.h"

namespace attic::worker {

struct LayerConfig {
  bool full_attention = true;  // otherwise sliding-window attention
  bool rotary = true;          // queries and keys carry the rotary position encoding
  bool dense = true;           // has an MLP
};

struct ModelConfig {
  std::string model_id;  // _name_or_path, or the folder's name
  uint32_t hidden_size = 0;
  uint32_t intermediate_size = 0;  // 0 only when no layer is dense
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t vocab_size = 0;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 10000.0;
  uint32_t sliding_window = 0;  // tokens a sliding layer attends, the current one included
  bool tie_word_embeddings = false;
  // N: logits of full-attention layers are multiplied by max(1, log n / log N), n the tokens
  // attended. 0: no scaling.
  uint32_t length_scaling_context = 0;
  std::vector<LayerConfig> layers;

  // logit_scale is 1 / sqrt(head_dim).
  AttentionShape attention_shape() const;
  // The factor of queries whose attention covers `tokens` tokens.
  float LengthScale(int64_t tokens) const;
  size_t full_attention_layers() const;
};

// Parses the text of a config.json. INVALID_ARGUMENT names the key that is missing, malformed, over
// its limit, or asks for something this decoder does not compute. `path` is for messages; its
// folder's name is the model_id when the file has none.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& text, const std::string& path);

// Reads and parses `path`.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_MODEL_CONFIG_H_
