"""From audio embeddings to token ids: prompts, the one decode step, and the loops over it."""
