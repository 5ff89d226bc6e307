"""Assessment: what a conversation shows about a candidate, and what should be asked next."""
