"""A stand-in for an OpenAI-compatible model server: deterministic replies, drawn latency, faults on demand."""
