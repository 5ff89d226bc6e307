"""Text from a model, safely and once: the call ledger, and the provider behind it."""
