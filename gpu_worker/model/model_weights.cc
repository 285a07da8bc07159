#include "gpu_worker/model/model_weights.h"

#include <cstring>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace attic::worker {
namespace {

// FNV-1a over 8-byte words: tells weights files apart, no protection against forgery.
uint64_t HashBytes(std::span<const std::byte> bytes) {
  constexpr uint64_t kPrime = 0x100000001b3;
  uint64_t hash = 0xcbf29ce484222325;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;
  }
  for (; i < bytes.size(); ++i) hash = (hash ^ static_cast<uint64_t>(bytes[i])) * kPrime;
  return hash;
}

// Takes tensors out of one file and remembers which were taken.
class TensorReader {
 public:
  TensorReader(const SafetensorsFile& file, Backend& backend) : file_(file), backend_(backend) {}

  bool Has(const std::string& name) const { return file_.tensors().contains(name); }

  absl::Status Read(const std::string& name, const std::vector<uint64_t>& shape,
                    std::vector<float>& out) {
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) return Bad(name, "is missing");
    const TensorView& tensor = found->second;
    if (tensor.shape != shape) {
      return Bad(name, absl::StrCat("has shape (", absl::StrJoin(tensor.shape, ", "),
                                    "), expected (", absl::StrJoin(shape, ", "), ")"));
    }
    const size_t elements = tensor.elements();
    if (!AllFinite(tensor.data.data(), tensor.type, elements)) {
      return Bad(name, "holds a value that is not finite");
    }
    out.resize(elements);
    ToFloat32(tensor.data.data(), tensor.type, out);
    if (taken_.insert(name).second) parameters_ += elements;
    return absl::OkStatus();
  }

  absl::Status ReadVector(const std::string& name, uint64_t size, std::vector<float>& out) {
    return Read(name, {size}, out);
  }

  absl::Status ReadMatrix(const std::string& name, uint64_t outputs, uint64_t inputs,
                          std::unique_ptr<Matrix>& out) {
    ATTIC_RETURN_IF_ERROR(Read(name, {outputs, inputs}, scratch_));
    ATTIC_ASSIGN_OR_RETURN(out, backend_.LoadMatrix(scratch_, outputs, inputs));
    return absl::OkStatus();
  }

  // A tensor nobody took would be left out of the computation. Of no consequence are derived ones
  // and the norm in front of an MLP that a layer does not have.
  absl::Status CheckAllTaken(bool tied) const {
    for (const auto& [name, tensor] : file_.tensors()) {
      const bool unneeded = std::string_view(name).ends_with("rotary_emb.inv_freq") ||
                            std::string_view(name).ends_with("post_attention_layernorm.weight") ||
                            (tied && name == "lm_head.weight");
      if (!unneeded && !taken_.contains(name)) return Bad(name, "is not used by this decoder");
    }
    return absl::OkStatus();
  }

  uint64_t parameters() const { return parameters_; }

 private:
  absl::Status Bad(const std::string& name, const std::string& problem) const {
    return absl::InvalidArgumentError(
        absl::StrCat(file_.path(), ": tensor ", name.substr(0, 200), ": ", problem));
  }

  const SafetensorsFile& file_;
  Backend& backend_;
  std::set<std::string> taken_;
  uint64_t parameters_ = 0;
  std::vector<float> scratch_;
};

absl::Status ReadAttention(const ModelConfig& config, const std::string& prefix,
                           TensorReader& reader, LayerWeights& layer) {
  const uint64_t hidden = config.hidden_size;
  const uint64_t q_size = uint64_t{config.q_heads} * config.head_dim;
  const uint64_t kv_size = uint64_t{config.kv_heads} * config.head_dim;
  const std::string name = prefix + "self_attn.";
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "q_proj.weight", q_size, hidden, layer.q));
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "k_proj.weight", kv_size, hidden, layer.k));
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "v_proj.weight", kv_size, hidden, layer.v));
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "o_proj.weight", hidden, q_size, layer.o));
  for (const auto& [norm, out] : {std::pair{name + "q_norm.weight", &layer.q_norm},
                                  {name + "k_norm.weight", &layer.k_norm}}) {
    if (!reader.Has(norm)) continue;
    ATTIC_RETURN_IF_ERROR(reader.ReadVector(norm, config.head_dim, *out));
  }
  return reader.ReadVector(prefix + "input_layernorm.weight", hidden, layer.input_norm);
}

absl::Status ReadMlp(const ModelConfig& config, const std::string& prefix, TensorReader& reader,
                     LayerWeights& layer) {
  const uint64_t hidden = config.hidden_size;
  const uint64_t inner = config.intermediate_size;
  const std::string name = prefix + "mlp.";
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "gate_proj.weight", inner, hidden, layer.gate));
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "up_proj.weight", inner, hidden, layer.up));
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(name + "down_proj.weight", hidden, inner, layer.down));
  return reader.ReadVector(prefix + "post_attention_layernorm.weight", hidden,
                           layer.post_attention_norm);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadModelWeights(const ModelConfig& config,
                                                        const SafetensorsFile& file,
                                                        Backend& backend) {
  auto model = std::make_unique<Model>();
  model->config = config;
  TensorReader reader(file, backend);
  const uint64_t vocab = config.vocab_size;
  const uint64_t hidden = config.hidden_size;
  ATTIC_RETURN_IF_ERROR(
      reader.Read("model.embed_tokens.weight", {vocab, hidden}, model->embeddings));
  model->layers.resize(config.layers.size());
  for (size_t i = 0; i < model->layers.size(); ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    ATTIC_RETURN_IF_ERROR(ReadAttention(config, prefix, reader, model->layers[i]));
    if (!config.layers[i].dense) continue;
    ATTIC_RETURN_IF_ERROR(ReadMlp(config, prefix, reader, model->layers[i]));
  }
  ATTIC_RETURN_IF_ERROR(reader.ReadVector("model.norm.weight", hidden, model->final_norm));
  const std::string head =
      config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  ATTIC_RETURN_IF_ERROR(reader.ReadMatrix(head, vocab, hidden, model->lm_head));
  ATTIC_RETURN_IF_ERROR(reader.CheckAllTaken(config.tie_word_embeddings));
  model->parameters = reader.parameters();
  model->revision = absl::StrFormat("%016x", HashBytes(file.bytes()));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& folder, Backend& backend) {
  ATTIC_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder + "/config.json"));
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                         SafetensorsFile::Open(folder + "/model.safetensors"));
  return LoadModelWeights(config, *file, backend);
}

}  // namespace attic::worker
