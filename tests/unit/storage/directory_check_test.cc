// What the examination of a data directory finds, compared with what a store can read of it.
#include "server/storage/directory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>

#include "server/storage/checked_file.h"
#include "server/storage/durable_store.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_directory.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

void Copy(const std::string& from, const std::string& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

class DirectoryCheckTest : public ::testing::Test {
 protected:
  // A directory that a store closed, or one that it was killed in.
  void Make(bool killed) {
    std::filesystem::remove_all(folder_.file("original"));
    auto store = DurableStore::Open(SampleStoreOptions(folder_.file("original")));
    ASSERT_TRUE(store.ok()) << store.status();
    FillDirectory(**store, 1);
    if (!killed) store->reset();
    Copy(folder_.file("original"), directory_);
  }

  // Also sees to it that nothing in the directory changes.
  absl::StatusOr<DirectoryCheck> Check() const {
    const auto before = FilesBelow(directory_);
    const absl::StatusOr<DirectoryCheck> check = CheckDirectory(directory_, {.threads = 1});
    EXPECT_EQ(FilesBelow(directory_), before);
    return check;
  }

  DirectoryCheck CheckOk() const {
    absl::StatusOr<DirectoryCheck> check = Check();
    EXPECT_TRUE(check.ok()) << check.status();
    return check.ok() ? *std::move(check) : DirectoryCheck();
  }

  // A segment file of "first", from position 64 on.
  std::string SecondSegment() const {
    std::vector<std::string> names;
    for (const auto& [name, content] : FilesBelow(directory_)) {
      if (name.ends_with(".seg")) names.push_back(name);
    }
    return names.at(1);
  }

  const TemporaryFolder folder_;
  const std::string directory_ = folder_.file("directory");
};

bool Names(const DirectoryCheck& check, const std::string& file) {
  return std::any_of(check.findings.begin(), check.findings.end(), [&](const CheckFinding& f) {
    return f.damage && (f.file == file || f.what.find(file) != std::string::npos);
  });
}

std::string Text(const DirectoryCheck& check) {
  std::string text;
  for (const CheckFinding& f : check.findings) {
    text += (f.damage ? "damage " : "note ") + f.file + ": " + f.what + "\n";
  }
  return text;
}

TEST_F(DirectoryCheckTest, AWholeDirectoryIsWhole) {
  for (const bool killed : {false, true}) {
    Make(killed);
    const DirectoryCheck check = CheckOk();
    EXPECT_TRUE(check.whole()) << Text(check);
    EXPECT_TRUE(check.findings.empty()) << Text(check);
    ASSERT_EQ(check.sessions.size(), 3u);
    EXPECT_EQ(check.sessions[0].session_id, "first");
    ASSERT_EQ(check.sessions[0].layers.size(), 2u);
    for (const CheckedLayer& layer : check.sessions[0].layers) {
      EXPECT_EQ(layer.held_end, kSampleEnd);
      EXPECT_EQ(layer.served_end, kSampleEnd);
      EXPECT_EQ(layer.whole_end, kSampleEnd);
      EXPECT_EQ(layer.segments, 4u);
    }
    EXPECT_EQ(check.sessions[1].layers[0].whole_end, 131);
    EXPECT_EQ(check.sessions[2].layers[0].held_end, 0);
    EXPECT_EQ(check.segment_files, 8u);
    EXPECT_EQ(check.orphan_files, 0u);
  }
}

TEST_F(DirectoryCheckTest, EveryFlipThatMakesAReadWrongIsNamed) {
  for (const bool killed : {false, true}) {
    Make(killed);
    const auto original = FilesBelow(directory_);
    const absl::StatusOr<std::string> expected = ReadDirectory(directory_);
    ASSERT_TRUE(expected.ok()) << expected.status();
    std::vector<std::string> names;
    for (const auto& [name, content] : original) {
      if (!content.empty()) names.push_back(name);
    }
    const uint32_t seed = killed ? 11 : 10;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    int wrong = 0;
    for (int i = 0; i < 60; ++i) {
      std::filesystem::remove_all(directory_);
      std::filesystem::create_directories(directory_ + "/records");
      std::filesystem::create_directories(directory_ + "/segments");
      for (const auto& [name, content] : original) {
        if (!name.ends_with('/')) WriteBytes(directory_ + "/" + name, content);
      }
      const std::string& name = names[random() % names.size()];
      std::string content = original.at(name);
      const size_t bit = random() % (content.size() * 8);
      content[bit / 8] = static_cast<char>(content[bit / 8] ^ (1 << bit % 8));
      WriteBytes(directory_ + "/" + name, content);
      const absl::StatusOr<DirectoryCheck> check = Check();
      const absl::StatusOr<std::string> read = ReadDirectory(directory_);
      if (read.ok() && *read == *expected) continue;
      ++wrong;
      if (check.ok()) {
        EXPECT_TRUE(Names(*check, name)) << name << " bit " << bit << " " << read.status() << "\n"
                                         << Text(*check);
      } else {
        EXPECT_THAT(std::string(check.status().message()), HasSubstr(name));
      }
    }
    EXPECT_GT(wrong, 20);
  }
}

TEST_F(DirectoryCheckTest, DamageSaysWhereItIsAndWhatToDo) {
  Make(false);
  const std::string name = SecondSegment();
  std::string content = ReadBytes(directory_ + "/" + name);
  content.back() = static_cast<char>(content.back() ^ 1);  // of the last cluster
  WriteBytes(directory_ + "/" + name, content);
  const DirectoryCheck check = CheckOk();
  ASSERT_EQ(check.damages, 2u) << Text(check);  // both sessions share the file
  const CheckFinding& finding = check.findings[0];
  EXPECT_EQ(finding.file, name);
  EXPECT_THAT(finding.what, HasSubstr("cluster"));
  EXPECT_EQ(finding.session_id, "first");
  EXPECT_EQ(finding.layer, 0u);
  EXPECT_EQ(finding.kv_head, 0u);
  ASSERT_TRUE(finding.positions.has_value());
  EXPECT_GE(finding.positions->begin, kSampleSegmentTokens);
  EXPECT_LE(finding.positions->end, 2 * kSampleSegmentTokens);
  EXPECT_FALSE(check.sessions[0].whole);
  // Queries go on: the index is whole.
  EXPECT_EQ(check.sessions[0].layers[0].served_end, kSampleEnd);
  EXPECT_EQ(check.sessions[0].layers[0].whole_end, kSampleSegmentTokens);
  EXPECT_THAT(check.sessions[0].advice, HasSubstr("truncate first 64"));
  EXPECT_EQ(check.sessions[1].layers[0].whole_end, kSampleSegmentTokens);
  EXPECT_THAT(check.sessions[1].advice, HasSubstr("truncate fork 64"));
  EXPECT_TRUE(check.sessions[2].whole);
}

TEST_F(DirectoryCheckTest, FilesThatAreMissingOrCutOff) {
  Make(false);
  const std::string name = SecondSegment();
  const std::string content = ReadBytes(directory_ + "/" + name);
  WriteBytes(directory_ + "/" + name, content.substr(0, content.size() / 2));
  DirectoryCheck check = CheckOk();
  EXPECT_TRUE(Names(check, name)) << Text(check);
  // Rows that the segment held as well make up for it, where they are recorded.
  EXPECT_TRUE(check.sessions[0].layers[0].damaged);
  EXPECT_EQ(check.sessions[0].layers[0].whole_end, kSampleEnd);
  EXPECT_THAT(check.sessions[0].advice, HasSubstr("truncate first 190"));
  EXPECT_EQ(check.sessions[1].layers[0].served_end, kSampleSegmentTokens);
  std::filesystem::remove(directory_ + "/" + name);
  check = CheckOk();
  EXPECT_TRUE(Names(check, name)) << Text(check);
  EXPECT_THAT(Text(check), HasSubstr("it is missing"));
  for (const auto& [file, bytes] : FilesBelow(directory_)) {
    if (!file.ends_with(".sst") && !file.ends_with(".blob") && file != "VERSION" &&
        file != "DURABLE") {
      continue;
    }
    std::filesystem::rename(directory_ + "/" + file, folder_.file("aside"));
    EXPECT_TRUE(Names(CheckOk(), file)) << file << Text(CheckOk());
    std::filesystem::rename(folder_.file("aside"), directory_ + "/" + file);
  }
}

TEST_F(DirectoryCheckTest, AFileOfAnotherSegmentIsNoticed) {
  Make(false);
  const std::string name = SecondSegment();
  std::string other;
  for (const auto& [file, content] : FilesBelow(directory_)) {
    if (file.ends_with(".seg") && file != name) other = content;
  }
  WriteBytes(directory_ + "/" + name, other);
  const DirectoryCheck check = CheckOk();
  EXPECT_TRUE(Names(check, name)) << Text(check);
  EXPECT_THAT(Text(check), HasSubstr("not the file that was recorded"));
}

TEST_F(DirectoryCheckTest, ExtraFilesAreNoDamage) {
  Make(false);
  WriteBytes(directory_ + "/notes.txt", "hello");
  WriteBytes(directory_ + "/segments/00000000000000ff.seg", "nobody's");
  WriteBytes(directory_ + "/segments/0000000000000001.seg.tmp", "unfinished");
  WriteBytes(directory_ + "/segments/readme", "hello");
  const DirectoryCheck check = CheckOk();
  EXPECT_TRUE(check.whole()) << Text(check);
  EXPECT_EQ(check.findings.size(), 4u) << Text(check);
  EXPECT_EQ(check.orphan_files, 2u);
  EXPECT_EQ(check.orphan_bytes, 18u);
}

// A store does without it as long as etcd has the map.
TEST_F(DirectoryCheckTest, ADamagedClusterMapIsANote) {
  Make(/*killed=*/false);
  ASSERT_TRUE(SaveCheckedFile(directory_, kClusterMapName, "a map").ok());
  EXPECT_EQ(Text(CheckOk()), "");
  WriteBytes(directory_ + "/CLUSTER_MAP", "a map");
  EXPECT_EQ(Text(CheckOk()), "note CLUSTER_MAP: it is damaged\n");
}

TEST_F(DirectoryCheckTest, WhatCannotBeExamined) {
  EXPECT_TRUE(absl::IsNotFound(CheckDirectory(directory_).status()));
  std::filesystem::create_directory(directory_);
  EXPECT_TRUE(absl::IsFailedPrecondition(Check().status()));
  Make(false);
  WriteBytes(directory_ + "/VERSION", "attic data directory 2\n");
  EXPECT_TRUE(absl::IsFailedPrecondition(Check().status()));
  EXPECT_THAT(std::string(Check().status().message()), HasSubstr("VERSION"));
}

TEST_F(DirectoryCheckTest, ADirectoryInUseIsRefused) {
  auto store = DurableStore::Open(SampleStoreOptions(directory_));
  ASSERT_TRUE(store.ok());
  FillDirectory(**store, 1);
  const auto check = CheckDirectory(directory_);
  EXPECT_TRUE(absl::IsFailedPrecondition(check.status()));
  EXPECT_THAT(std::string(check.status().message()), HasSubstr("a process is using"));
}

}  // namespace
}  // namespace attic
