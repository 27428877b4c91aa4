"""Which places inside the model carry the difference between two runs."""
