// Gathers what an examination of a data directory finds.
#ifndef ATTIC_SERVER_STORAGE_CHECK_REPORT_H_
#define ATTIC_SERVER_STORAGE_CHECK_REPORT_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/storage/directory_check.h"

namespace attic {

// Not thread-safe. Borrows `check`.
class CheckReport {
 public:
  explicit CheckReport(DirectoryCheck& check) : check_(check) {}

  void Add(CheckFinding finding) {
    if (finding.damage) ++check_.damages;
    if (check_.findings.size() < DirectoryCheck::kFindingsMax) {
      check_.findings.push_back(std::move(finding));
    } else {
      ++check_.findings_left_out;
    }
  }
  void Damage(std::string file, const std::string& what, std::string advice) {
    Add({.damage = true, .file = std::move(file), .what = what, .advice = std::move(advice)});
  }
  void Note(std::string file, const std::string& what, std::string advice = {}) {
    Add({.damage = false, .file = std::move(file), .what = what, .advice = std::move(advice)});
  }

 private:
  DirectoryCheck& check_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_CHECK_REPORT_H_
