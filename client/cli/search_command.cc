// attic search: the best keys for given or random queries.
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/query_source.h"
#include "client/cli/selection_options.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

struct SearchArguments {
  std::string session_id;
  int64_t layer = -1;
  std::string queries_path;
  bool random = false;
  uint64_t seed = 1;
  uint32_t k = 10;
  int64_t head = -1;
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();
  bool exact = false;
  SelectionPolicy selection;
};

void PrintHits(const SearchAnswer& answer, int64_t only_head, const GlobalOptions& global) {
  Table table({{"query head"}, {"rank"}, {"position"}, {"score"}});
  nlohmann::ordered_json heads = nlohmann::ordered_json::array();
  for (size_t head = 0; head < answer.hits.size(); ++head) {
    if (only_head >= 0 && only_head != static_cast<int64_t>(head)) continue;
    nlohmann::ordered_json hits = nlohmann::ordered_json::array();
    for (size_t rank = 0; rank < answer.hits[head].size(); ++rank) {
      const SearchHit& hit = answer.hits[head][rank];
      hits.push_back({{"position", hit.position}, {"score", hit.score}});
      table.AddRow({std::to_string(head), std::to_string(rank + 1), FormatCount(hit.position),
                    FormatFixed(hit.score, 4)});
    }
    heads.push_back({{"head", head}, {"hits", hits}});
  }
  if (global.json) {
    PrintJson({{"heads", heads}, {"read", ToJson(answer.read)}});
    return;
  }
  table.Print(std::cout);
  std::cout << "\nread " << FormatBytes(answer.read.bytes_read) << ", scored "
            << FormatCount(answer.read.exact_tokens) << " of " << FormatCount(answer.read.tokens)
            << " keys exactly\n";
}

absl::StatusOr<int> RunSearch(const GlobalOptions& global, const SearchArguments& arguments) {
  if (arguments.random == !arguments.queries_path.empty()) {
    return absl::InvalidArgumentError("give either --queries FILE or --random");
  }
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription session,
                         client->DescribeSession(arguments.session_id));
  const Fingerprint& fingerprint = session.fingerprint;
  if (arguments.head >= static_cast<int64_t>(fingerprint.q_heads)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--head: the session has ", fingerprint.q_heads, " query heads"));
  }
  std::vector<float> queries = RandomQueries(fingerprint, arguments.seed);
  if (!arguments.random) {
    ATTIC_ASSIGN_OR_RETURN(queries, ReadQueries(arguments.queries_path, fingerprint));
  }
  SearchRequest request{.session_id = arguments.session_id,
                        .range = {arguments.begin, arguments.end},
                        .mode = arguments.exact ? AttendMode::kExact : AttendMode::kIndexed,
                        .k = arguments.k,
                        .selection = arguments.selection,
                        .queries = queries};
  ATTIC_ASSIGN_OR_RETURN(request.layer, ChooseLayer(session, arguments.layer));
  ATTIC_ASSIGN_OR_RETURN(const SearchAnswer answer, client->Search(request, CommandDeadline()));
  PrintHits(answer, arguments.head, global);
  return 0;
}

}  // namespace

void AddSearchCommand(CLI::App& app, SelectedCommand& selected) {
  auto arguments = std::make_shared<SearchArguments>();
  CLI::App* command = app.add_subcommand("search", "The best keys of a session for some queries");
  command->add_option("session", arguments->session_id, "Session id")->required();
  command->add_option("--layer", arguments->layer, "Layer (default: the first stored)");
  command->add_option("--queries", arguments->queries_path,
                      ".npy file of float16 or float32 queries (q_heads, head_dim)");
  command->add_flag("--random", arguments->random, "Random queries");
  command->add_option("--seed", arguments->seed, "Seed of --random")->capture_default_str();
  command->add_option("-k", arguments->k, "Keys per query head")->capture_default_str();
  command->add_option("--head", arguments->head, "Show only this query head");
  command->add_option("--begin", arguments->begin, "First position searched");
  command->add_option("--end", arguments->end, "End of the positions searched");
  command->add_flag("--exact", arguments->exact, "Scan every key instead of using the index");
  AddSelectionOptions(*command, arguments->selection);
  command->callback([&selected, arguments] {
    selected.run = [&selected, arguments] { return RunSearch(selected.global, *arguments); };
  });
}

}  // namespace attic::cli
