// Keeps the keys and values of one layer in a store and attends to them. With an address it talks
// to that store, without one to a store in this process.
#include <cstdio>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cpp/client.h"
#include "client/cpp/local_client.h"

namespace {

constexpr size_t kTokens = 1000;
constexpr uint32_t kQueryHeads = 8, kKvHeads = 2, kDim = 64;

std::vector<float> Random(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& x : numbers) x = normal(generator);
  return numbers;
}

absl::Status Run(attic::Client& client) {
  const attic::Fingerprint fingerprint{.model_id = "quickstart",
                                       .layers = 1,
                                       .q_heads = kQueryHeads,
                                       .kv_heads = kKvHeads,
                                       .head_dim = kDim,
                                       .value_dim = kDim,
                                       .element_type = attic::ElementType::kFloat32,
                                       .logit_scale = 0.125f,
                                       .position_encoding = "none"};
  ATTIC_ASSIGN_OR_RETURN(const attic::SessionDescription session,
                         client.OpenSession({.fingerprint = fingerprint, .stored_layers = {0}}));

  const std::vector<float> keys = Random(kTokens * kKvHeads * kDim, 1);
  const std::vector<float> values = Random(kTokens * kKvHeads * kDim, 2);
  ATTIC_ASSIGN_OR_RETURN(const auto stream, client.OpenAppendStream());
  ATTIC_RETURN_IF_ERROR(stream->Append({.session_id = session.session_id,
                                        .layer = 0,
                                        .begin_position = 0,
                                        .count = kTokens,
                                        .keys = std::as_bytes(std::span(keys)),
                                        .values = std::as_bytes(std::span(values))}));
  ATTIC_ASSIGN_OR_RETURN(const attic::AppendAck ack,
                         stream->Flush(absl::Now() + absl::Seconds(10)));
  std::printf("the store holds %lld tokens\n", static_cast<long long>(ack.watermark));

  const std::vector<float> queries = Random(kQueryHeads * kDim, 3);
  const attic::AttendItem item{.session_id = session.session_id,
                               .layer = 0,
                               .selection = {attic::SelectionGoal::kMaxError, 0.05},
                               .queries = queries};
  ATTIC_ASSIGN_OR_RETURN(const std::vector<attic::AttendAnswer> answers,
                         client.Attend({&item, 1}, absl::Now() + absl::Seconds(1)));
  ATTIC_RETURN_IF_ERROR(answers[0].status);
  std::printf("query head 0: log-sum-exp %.4f, coverage %.3f, estimated error %.4f\n",
              answers[0].log_sum_exp[0], answers[0].coverage[0], answers[0].estimated_error[0]);
  return client.CloseSession(session.session_id);
}

absl::StatusOr<std::unique_ptr<attic::Client>> Connect(int argc, char** argv) {
  if (argc > 1) return attic::ConnectClient({.address = argv[1]});
  return attic::MakeLocalClient({});
}

}  // namespace

int main(int argc, char** argv) {
  const auto client = Connect(argc, argv);
  const absl::Status status = client.ok() ? Run(**client) : client.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
