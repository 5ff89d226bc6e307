"""Token counts for OpenAI's models, offline: `from libs.tokens.counting import count`."""
