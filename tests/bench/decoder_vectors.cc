// Writes the queries, keys and values of the recall model reading real text with needles in it, for
// benchmarks of the index: what the demo's store is asked, without the demo.
//   decoder_vectors MODEL FOLDER [tokens] [questions] [seed]
// For each kv head h the folder receives, all (rows, head_dim):
//   keys_h.npy, values_h.npy  float16, a row a token
//   training_h.npy            float32, queries sampled while reading, heads of a group together
//   questions_h.npy           float32, queries that answer the questions, likewise
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "client/cli/demo/haystack.h"
#include "client/cli/demo/needles.h"
#include "gpu_worker/backend/make_backend.h"
#include "gpu_worker/model/decoder.h"
#include "tests/unit/gpu_worker/memory_client.h"

namespace attic::worker {
namespace {

constexpr uint32_t kAnswerTokens = 4;

// Answers exactly, and remembers the queries it was sent.
class RecordingClient : public MemoryClient {
 public:
  std::vector<float> samples;    // (n, q_heads, head_dim)
  std::vector<float> questions;  // (n, q_heads, head_dim)
  bool recording = true;

  absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() override {
    ATTIC_ASSIGN_OR_RETURN(auto stream, MemoryClient::OpenAppendStream());
    return std::make_unique<Stream>(*this, std::move(stream));
  }
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time) override {
    std::vector<AttendAnswer> answers;
    for (const AttendItem& item : items) {
      questions.insert(questions.end(), item.queries.begin(), item.queries.end());
      answers.push_back(AttendExactly(item));
    }
    return answers;
  }

 private:
  class Stream : public AppendStream {
   public:
    Stream(RecordingClient& client, std::unique_ptr<AppendStream> stream)
        : client_(client), stream_(std::move(stream)) {}
    absl::Status Append(const AppendBatch& batch) override {
      const auto sample = batch.query_sample;
      if (client_.recording) {
        client_.samples.insert(client_.samples.end(), sample.begin(), sample.end());
      }
      return stream_->Append(batch);
    }
    absl::StatusOr<AppendAck> Flush(absl::Time deadline) override {
      return stream_->Flush(deadline);
    }

   private:
    RecordingClient& client_;
    const std::unique_ptr<AppendStream> stream_;
  };

  // Rows hold all kv heads together, so a query has zeros for the other heads' elements.
  AttendAnswer AttendExactly(const AttendItem& item) {
    const Session& session = sessions.at(item.session_id);
    const Layer& layer = session.layers.at(item.layer);
    const Fingerprint& f = session.fingerprint;
    const size_t dim = f.head_dim, width = f.kv_heads * dim;
    const VectorsView keys{layer.keys.data(), f.element_type, static_cast<size_t>(layer.tokens),
                           width};
    const VectorsView values{layer.values.data(), f.element_type, keys.count, width};
    const auto begin = static_cast<size_t>(item.range.begin);
    const size_t count = std::min(keys.count, static_cast<size_t>(item.range.end)) - begin;
    std::vector<float> queries(f.q_heads * width);
    for (size_t head = 0; head < f.q_heads; ++head) {
      std::copy_n(item.queries.begin() + head * dim, dim,
                  queries.begin() + head * width + head / f.group() * dim);
    }
    std::vector<AttentionAccumulator> accumulators(f.q_heads, AttentionAccumulator(width));
    ScanExact(queries.data(), f.logit_scale, keys.rows(begin, count), values.rows(begin, count),
              accumulators, scratch_);
    AttendAnswer answer{.range = item.range};
    answer.coverage.assign(f.q_heads, 1.0f);
    std::vector<float> output(width);
    for (size_t head = 0; head < f.q_heads; ++head) {
      answer.log_sum_exp.push_back(accumulators[head].Finish(output));
      const auto own = output.begin() + head / f.group() * dim;
      answer.output.insert(answer.output.end(), own, own + dim);
    }
    return answer;
  }

  ScanScratch scratch_;
};

absl::Status WriteNpy(const std::filesystem::path& path, const char* type, size_t rows,
                      size_t columns, const std::vector<std::byte>& data) {
  std::string header = absl::StrCat("{'descr': '", type, "', 'fortran_order': False, 'shape': (",
                                    rows, ", ", columns, "), }");
  constexpr size_t kPreamble = 10, kAlignment = 64;
  header.append(kAlignment - (kPreamble + header.size() + 1) % kAlignment, ' ');
  header.push_back('\n');
  std::ofstream file(path, std::ios::binary);
  const auto size = static_cast<uint16_t>(header.size());
  file.write("\x93NUMPY\x01\x00", 8);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  file.close();
  return file ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path.string()));
}

// The part of (n, heads, dim) that belongs to kv head `head`, `group` consecutive heads of it.
std::vector<float> TakeHead(const std::vector<float>& all, size_t heads, size_t dim, size_t head,
                            size_t group) {
  std::vector<float> taken;
  for (size_t begin = 0; begin < all.size(); begin += heads * dim) {
    const auto from = all.begin() + begin + head * group * dim;
    taken.insert(taken.end(), from, from + group * dim);
  }
  return taken;
}

std::vector<std::byte> Bytes(const std::vector<float>& floats, ElementType type) {
  std::vector<std::byte> bytes(floats.size() * ElementBytes(type));
  FromFloat32(floats, type, bytes.data());
  return bytes;
}

absl::Status WriteHead(const std::filesystem::path& folder, const Fingerprint& fingerprint,
                       const RecordingClient& client, const MemoryClient::Layer& layer,
                       size_t tokens, size_t head) {
  const size_t dim = fingerprint.head_dim, kv_heads = fingerprint.kv_heads;
  // What the questions added would help to answer those that follow.
  tokens = std::min(tokens, static_cast<size_t>(layer.tokens));
  const auto name = [&](const char* what) {
    return folder / absl::StrCat(what, "_", head, ".npy");
  };
  for (const bool is_keys : {true, false}) {
    std::vector<float> wide(tokens * kv_heads * dim);
    ToFloat32((is_keys ? layer.keys : layer.values).data(), fingerprint.element_type, wide);
    const std::vector<float> rows = TakeHead(wide, kv_heads, dim, head, 1);
    ATTIC_RETURN_IF_ERROR(WriteNpy(name(is_keys ? "keys" : "values"), "<f2", tokens, dim,
                                   Bytes(rows, ElementType::kFloat16)));
  }
  for (const bool is_training : {true, false}) {
    const std::vector<float> rows = TakeHead(is_training ? client.samples : client.questions,
                                             fingerprint.q_heads, dim, head, fingerprint.group());
    ATTIC_RETURN_IF_ERROR(WriteNpy(name(is_training ? "training" : "questions"), "<f4",
                                   rows.size() / dim, dim, Bytes(rows, ElementType::kFloat32)));
  }
  return absl::OkStatus();
}

std::vector<uint32_t> Tokens(const std::string& text) {
  std::vector<uint32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

absl::Status Run(const std::string& model_dir, const std::filesystem::path& folder, size_t bytes,
                 size_t questions, uint64_t seed) {
  std::vector<cli::Needle> needles = cli::MakeNeedles(questions, seed);
  ATTIC_ASSIGN_OR_RETURN(
      const cli::Haystack haystack,
      cli::FindHaystack(cli::DefaultTextRoots(), bytes - cli::StatementBytes(needles)));
  const std::string text = cli::HideNeedles(haystack.text, needles);

  ThreadPool pool(1);
  ATTIC_ASSIGN_OR_RETURN(const auto backend, MakeBackend("cpu", pool));
  ATTIC_ASSIGN_OR_RETURN(const auto model, LoadModel(model_dir, *backend));
  RecordingClient client;
  DecoderOptions options;
  ATTIC_ASSIGN_OR_RETURN(const auto decoder,
                         Decoder::Create(*model, *backend, pool, client, options));
  ATTIC_ASSIGN_OR_RETURN(const auto sequence, decoder->Open("text"));
  ATTIC_RETURN_IF_ERROR(sequence->Prefill(Tokens(text), [] { return absl::OkStatus(); }));
  client.recording = false;
  size_t right = 0;
  for (const cli::Needle& needle : needles) {
    std::string answer;
    ATTIC_RETURN_IF_ERROR(sequence->Decode(Tokens(needle.Question()), {.max_tokens = kAnswerTokens},
                                           [&](const DecodedToken& token) {
                                             answer.push_back(static_cast<char>(token.token_id));
                                             return absl::OkStatus();
                                           }));
    right += answer == needle.digits;
  }
  std::printf("%zu tokens from %zu files, %zu of %zu questions answered right\n", text.size(),
              haystack.files, right, needles.size());
  std::filesystem::create_directories(folder);
  const auto& layers = client.sessions.at("text").layers;
  const Fingerprint fingerprint = decoder->fingerprint();
  for (size_t head = 0; head < fingerprint.kv_heads; ++head) {
    ATTIC_RETURN_IF_ERROR(
        WriteHead(folder, fingerprint, client, layers.rbegin()->second, text.size(), head));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace attic::worker

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: decoder_vectors MODEL FOLDER [tokens] [questions] [seed]\n");
    return 2;
  }
  const size_t tokens = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1048576;
  const size_t questions = argc > 4 ? std::strtoul(argv[4], nullptr, 10) : 50;
  const uint64_t seed = argc > 5 ? std::strtoull(argv[5], nullptr, 10) : 1;
  const absl::Status status = attic::worker::Run(argv[1], argv[2], tokens, questions, seed);
  if (status.ok()) return 0;
  std::fprintf(stderr, "decoder_vectors: %s\n", status.ToString().c_str());
  return 1;
}
