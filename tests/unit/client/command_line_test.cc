// Every command of `attic` against a store in this process.
#include "client/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "server/service/store_server.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/client/client_test_data.h"

namespace attic::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

class CommandLineTest : public ::testing::Test {
 protected:
  struct Result {
    int exit_code = 0;
    std::string out;
    std::string err;
    json document() const { return json::parse(out); }
  };

  static void SetUpTestSuite() {
    auto server =
        StoreServer::Start({.listen_address = "127.0.0.1:0", .store = SmallStoreOptions()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = server->release();
  }
  static void TearDownTestSuite() { delete server_; }

  // Every test has a session "book" of 1,500 tokens in layer 2.
  void SetUp() override {
    auto client = ConnectClient({.address = server_->address()});
    ASSERT_TRUE(client.ok()) << client.status();
    ASSERT_TRUE(
        (*client)
            ->OpenSession(
                {.session_id = "book", .fingerprint = TestFingerprint(), .stored_layers = {2}})
            .ok());
    std::mt19937_64 random(1);
    auto stream = (*client)->OpenAppendStream();
    ASSERT_TRUE((*stream)->Append(TestLayer(1500, random).Batch("book", 2, 0, 1500)).ok());
    ASSERT_TRUE((*stream)->Flush(absl::Now() + absl::Seconds(20)).ok());
  }
  void TearDown() override {
    for (const SessionDescription& session : server_->store().ListSessions("", 100)) {
      ASSERT_TRUE(server_->store().CloseSession(session.session_id).ok());
    }
  }

  Result Run(std::vector<std::string> arguments, bool with_server = true) {
    arguments.insert(arguments.begin(), "attic");
    if (with_server) {
      arguments.push_back("--server");
      arguments.push_back(server_->address());
    }
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Result result;
    result.exit_code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    result.out = ::testing::internal::GetCapturedStdout();
    result.err = ::testing::internal::GetCapturedStderr();
    return result;
  }

  void ExpectError(const std::vector<std::string>& arguments, const std::string& part) {
    const Result result = Run(arguments);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, MatchesRegex("error: [^\n]+\n"));
    EXPECT_THAT(result.err, HasSubstr(part));
  }

  static StoreServer* server_;
};

StoreServer* CommandLineTest::server_ = nullptr;

TEST_F(CommandLineTest, Status) {
  const Result table = Run({"status"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("1,500"));
  EXPECT_EQ(table.err, "");
  const json document = Run({"status", "--json"}).document();
  EXPECT_EQ(document["sessions"], 1);
  EXPECT_EQ(document["tokens"], 1500);
  EXPECT_GT(document["memory"]["total_bytes"], 0);
}

TEST_F(CommandLineTest, TheOptionsOfAllCommandsMayComeFirst) {
  const Result result = Run({"--json", "status"});
  EXPECT_EQ(result.document()["sessions"], 1);
}

TEST_F(CommandLineTest, SessionsThroughTheirLife) {
  EXPECT_EQ(Run({"sessions", "fork", "book", "copy", "--position", "1000"}).exit_code, 0);
  EXPECT_EQ(Run({"sessions", "fork", "book", "whole"}).exit_code, 0);
  const json list = Run({"sessions", "list", "--json"}).document()["sessions"];
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[1]["session_id"], "copy");
  EXPECT_EQ(list[1]["watermark"], 1000);
  EXPECT_EQ(list[2]["watermark"], 1500);
  EXPECT_EQ(list[2]["fingerprint"]["element_type"], "float32");
  EXPECT_THAT(Run({"sessions", "list"}).out, HasSubstr("copy"));

  const json truncated = Run({"sessions", "truncate", "copy", "10", "--json"}).document();
  EXPECT_EQ(truncated["watermark"], 10);
  EXPECT_THAT(Run({"sessions", "describe", "copy"}).out, HasSubstr("session copy: 10 tokens"));
  EXPECT_EQ(Run({"sessions", "close", "copy"}).out, "closed copy\n");
  ExpectError({"sessions", "describe", "copy"}, "copy");
}

TEST_F(CommandLineTest, SessionsAsFiles) {
  const TemporaryFolder folder;
  const std::string file = folder.file("book.snapshot");
  EXPECT_THAT(Run({"export", "book", file}).out, HasSubstr("exported book to"));
  ExpectError({"export", "book", file}, "exists");
  ExpectError({"export", "none", file + "2"}, "none");
  EXPECT_FALSE(std::filesystem::exists(file + "2"));
  EXPECT_FALSE(std::filesystem::exists(file + "2.tmp"));
  ExpectError({"import", file}, "book is taken");
  ExpectError({"import", file, "--session-id", "copy", "--durable"}, "data directory");
  ExpectError({"import", file + "2"}, "No such file");
  EXPECT_EQ(Run({"import", file, "--session-id", "copy"}).out,
            "imported copy: 1,500 tokens, memory\n");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  ExpectError({"import", file, "--session-id", "copy2"}, "snapshot");
}

TEST_F(CommandLineTest, DoctorSaysWhatIsWhole) {
  const TemporaryFolder folder;
  const std::string directory = folder.file("data");
  EXPECT_EQ(Run({"doctor", directory}, false).exit_code, 2);
  {
    SessionStoreOptions options = SmallStoreOptions();
    options.disk.store.directory = directory;
    auto store = SessionStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status();
    const Result held = Run({"doctor", directory}, false);
    EXPECT_EQ(held.exit_code, 2);
    EXPECT_THAT(held.err, HasSubstr("a process is using"));
    ASSERT_TRUE((*store)
                    ->OpenSession({.session_id = "kept",
                                   .fingerprint = TestFingerprint(),
                                   .stored_layers = {2},
                                   .durability = Durability::kDurable})
                    .ok());
    std::mt19937_64 random(1);
    const TestLayer layer(600, random);
    ASSERT_TRUE((*store)->Append(layer.Batch("kept", 2, 0, 600), absl::InfiniteFuture()).ok());
    ASSERT_TRUE((*store)->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  }
  const Result whole = Run({"doctor", directory}, false);
  EXPECT_EQ(whole.exit_code, 0) << whole.out;
  EXPECT_THAT(whole.out, HasSubstr("kept"));
  const std::string segment = directory + "/segments/0000000000000001.seg";
  std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(600);
  file.put('\x7f');
  file.close();
  const Result damaged = Run({"doctor", directory, "--json"}, false);
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_EQ(damaged.document()["whole"], false);
  EXPECT_EQ(damaged.document()["findings"][0]["file"], "segments/0000000000000001.seg");
  EXPECT_EQ(damaged.document()["sessions"][0]["whole"], false);
}

TEST_F(CommandLineTest, SearchListsPositionsAndScores) {
  const json random =
      Run({"search", "book", "--random", "--seed", "5", "-k", "3", "--json"}).document();
  ASSERT_EQ(random["heads"].size(), 4u);
  ASSERT_EQ(random["heads"][0]["hits"].size(), 3u);
  const Result table = Run({"search", "book", "--random", "-k", "3", "--head", "1"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("position"));
}

TEST_F(CommandLineTest, SearchTakesQueriesFromAFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("queries.npy");
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 16), }";
  header.resize(117, ' ');
  header += '\n';
  std::mt19937_64 random(1);
  const TestLayer layer(1500, random);
  {
    // The keys at position 79, longer than most, as queries: each finds itself.
    std::ofstream file(path, std::ios::binary);
    file << "\x93NUMPY" << '\x01' << '\0' << static_cast<char>(header.size()) << '\0' << header;
    for (int head = 0; head < 4; ++head) {
      for (int d = 0; d < 16; ++d) {
        const float value = 100 * layer.keys[(79 * 2 + head / 2) * 16 + d];
        file.write(reinterpret_cast<const char*>(&value), sizeof value);
      }
    }
  }
  const Result result = Run({"search", "book", "--queries", path, "-k", "5", "--exact", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = result.document();
  ASSERT_EQ(document["heads"].size(), 4u);
  for (const json& head : document["heads"]) EXPECT_EQ(head["hits"][0]["position"], 79);
  ExpectError({"search", "book", "--queries", path, "--random"}, "either");
  std::ofstream(path, std::ios::binary) << "no array";
  ExpectError({"search", "book", "--queries", path}, path);
}

TEST_F(CommandLineTest, SearchRefusesWhatDoesNotFit) {
  ExpectError({"search", "book"}, "--random");
  ExpectError({"search", "none", "--random"}, "none");
  ExpectError({"search", "book", "--random", "--layer", "1"}, "layer 1");
  ExpectError({"search", "book", "--random", "--head", "4"}, "--head");
  ExpectError({"search", "book", "--random", "-k", "0"}, "k");
  ExpectError({"search", "book", "--queries", "/no/such/file.npy"}, "/no/such/file.npy");
}

TEST_F(CommandLineTest, BenchAttendComparesBothModes) {
  const std::vector<std::string> command = {"bench", "attend",    "book", "--requests",
                                            "20",    "--threads", "2"};
  const Result table = Run(command);
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("indexed"));
  EXPECT_THAT(table.out, HasSubstr("exact"));
  std::vector<std::string> with_json = command;
  with_json.push_back("--json");
  const json document = Run(with_json).document();
  EXPECT_GT(document["modes"]["exact"]["p99_ms"], 0);
  EXPECT_NEAR(document["modes"]["exact"]["coverage_mean"], 1.0, 1e-5);
  EXPECT_GE(document["output_error_median"], 0);
  ExpectError({"bench", "attend", "none"}, "none");
  ExpectError({"bench", "attend", "book", "--requests", "0"}, "--requests");
  ExpectError({"bench", "attend", "book", "--mode", "fast"}, "--mode");
}

TEST_F(CommandLineTest, HowFarToGoIsAnOption) {
  for (const auto& [option, amount, goal] :
       {std::tuple{"--top-k", "50", "top_k"},
        {"--token-budget", "200", "token_budget"},
        {"--coverage", "0.5", "coverage"},
        {"--max-error", "0.25", "max_error"},
        {"--inner-product-range", "2", "inner_product_range"}}) {
    const Result result =
        Run({"bench", "attend", "book", "--requests", "3", option, amount, "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json document = result.document();
    EXPECT_EQ(document["selection"][goal], std::stod(amount));
    EXPECT_GE(document["modes"]["indexed"]["estimated_error_mean"], 0);
    EXPECT_EQ(document["modes"]["exact"]["estimated_error_mean"], 0);
    if (std::string(goal) == "max_error") continue;
    EXPECT_EQ(Run({"search", "book", "--random", option, amount}).exit_code, 0) << option;
  }
  EXPECT_THAT(Run({"bench", "attend", "book", "--requests", "3"}).out,
              HasSubstr("estimated error"));
  ExpectError({"search", "book", "--random", "--max-error", "0.1"}, "selection.max_error");
  ExpectError({"bench", "attend", "book", "--coverage", "1.5"}, "--coverage");
  ExpectError({"demo", "--max-error", "0"}, "selection.max_error");
}

TEST_F(CommandLineTest, WrongUsageIsOneLine) {
  ExpectError({}, "subcommand");
  ExpectError({"status", "--nonsense"}, "--nonsense");
  ExpectError({"sessions", "truncate", "book"}, "position");
  ExpectError({"demo", "--model", "/no/such/model"}, "/no/such/model");
  ExpectError({"demo", "--tokens", "100"}, "--tokens");
  ExpectError({"demo", "--questions", "0"}, "--questions");
  ExpectError({"demo", "--model", "model/recall", "--text", "/no/such/text"}, "/no/such/text");
}

TEST_F(CommandLineTest, HelpAndVersionAreNoErrors) {
  EXPECT_EQ(Run({"--help"}, /*with_server=*/false).exit_code, 0);
  EXPECT_THAT(Run({"--version"}, /*with_server=*/false).out, StartsWith("attic "));
}

}  // namespace
}  // namespace attic::cli
