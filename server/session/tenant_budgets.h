// The memory each tenant's sessions may take.
#ifndef ATTIC_SERVER_SESSION_TENANT_BUDGETS_H_
#define ATTIC_SERVER_SESSION_TENANT_BUDGETS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/memory_budget.h"
#include "base/mutex.h"

namespace attic {

// Budgets of limits.tenant_bytes_max within that of the store. Thread-safe.
class TenantBudgets {
 public:
  // tenant_bytes_max 0: tenants have no limit of their own.
  TenantBudgets(std::shared_ptr<MemoryBudget> store, uint64_t tenant_bytes_max)
      : store_(std::move(store)), tenant_bytes_max_(tenant_bytes_max) {}

  // The one budget of all sessions of the tenant, for as long as somebody holds it.
  std::shared_ptr<MemoryBudget> Of(const std::string& tenant);

 private:
  const std::shared_ptr<MemoryBudget> store_;
  const uint64_t tenant_bytes_max_;
  Mutex mutex_;
  std::map<std::string, std::weak_ptr<MemoryBudget>> budgets_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_TENANT_BUDGETS_H_
