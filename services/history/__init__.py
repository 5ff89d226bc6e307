"""The ledger: what was said, in what order, and whether more may be said."""
