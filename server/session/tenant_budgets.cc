#include "server/session/tenant_budgets.h"

namespace attic {

std::shared_ptr<MemoryBudget> TenantBudgets::Of(const std::string& tenant) {
  if (tenant_bytes_max_ == 0) return store_;
  MutexLock lock(mutex_);
  const auto held = budgets_.find(tenant);
  if (held != budgets_.end()) {
    if (auto budget = held->second.lock()) return budget;
  }
  // Tenants come and go: those without sessions are forgotten.
  std::erase_if(budgets_, [](const auto& entry) { return entry.second.expired(); });
  auto budget = std::make_shared<MemoryBudget>(tenant_bytes_max_, "tenant_bytes_max", store_);
  budgets_[tenant] = budget;
  return budget;
}

}  // namespace attic
