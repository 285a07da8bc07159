// What the demo found out, for people and for programs.
#ifndef ATTIC_CLIENT_CLI_DEMO_REPORT_H_
#define ATTIC_CLIENT_CLI_DEMO_REPORT_H_

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "api/types.h"
#include "client/cli/demo/needles.h"
#include "client/cli/demo/worker_client.h"

namespace attic::cli {

// One question, asked several times through the index and as often with exact attention, and once
// through the index while comparing each token with exact attention. The last is not timed, for a
// comparison reads all keys and leaves nothing of the index in the processor's caches.
struct DemoRow {
  Needle needle;
  std::string answer;
  std::string exact_answer;
  std::vector<DecodedToken> tokens;        // of the answers through the index
  std::vector<DecodedToken> exact_tokens;  // of the exact answers
  std::vector<DecodedToken> compared;      // with output errors, and what the store estimated

  bool correct() const { return answer == needle.digits; }
  bool exact_correct() const { return exact_answer == needle.digits; }
};

// A sequence that reads the whole text.
struct DemoReading {
  double first_token_seconds =
      0;  // from the first byte of the text to the first token of an answer
  PrefillSummary prefill;
};

struct DemoReport {
  int64_t tokens = 0;  // of the text with the needles
  size_t text_files = 0;
  uint64_t seed = 0;
  SelectionPolicy selection;  // of the answers through the index
  WorkerModel model;
  std::vector<DemoRow> rows;
  DemoReading first;
  DemoReading second;         // of the same text, when the store holds it
  size_t second_correct = 0;  // questions answered right by it
  std::string killed;         // the store of a cluster that was killed between questions
  std::vector<std::vector<float>> probes;  // exact outputs, (q_heads, value_dim) each
  double recovery_seconds = 0;  // of a store that was killed before the questions; 0: it was not
  std::vector<std::pair<std::string, double>> phase_seconds;  // in order
  StoreStatus store;                                          // after the questions
};

// Over all generated tokens. Times are milliseconds.
struct DemoSummary {
  size_t questions = 0;
  size_t correct = 0;
  size_t exact_correct = 0;
  double output_error_median = 0;
  double output_error_worst = 0;
  double estimated_error_median = 0;  // as the store said for the same answers
  double estimated_error_worst = 0;
  double coverage_median = 0;
  double attend_ms = 0;        // median of the attention over the context, for one token
  double exact_attend_ms = 0;  // the same with exact attention
  double token_ms = 0;         // median of whole tokens
  double exact_token_ms = 0;
  double bytes_read = 0;  // mean of a token, by the store
  double exact_bytes_read = 0;
  double bytes_read_ratio = 0;

  // Times to the first token of an answer: of the first reader over that of the second.
  double first_token_ratio = 0;

  double speed_ratio() const { return attend_ms > 0 ? exact_attend_ms / attend_ms : 0; }
  // At least 95% of the questions answered right.
  bool passed() const { return 20 * correct >= 19 * questions; }
};

DemoSummary Summarize(const DemoReport& report);

void PrintReport(const DemoReport& report, std::ostream& out);
nlohmann::ordered_json ToJson(const DemoReport& report);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_REPORT_H_
