"""Which parts of the input mattered."""
