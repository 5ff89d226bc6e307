"""How a projection folds the ledger: one rule for every context that follows it."""
