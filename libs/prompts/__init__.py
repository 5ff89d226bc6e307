"""Prompts: versioned files, immutable once released, and their rendering into chat messages."""
