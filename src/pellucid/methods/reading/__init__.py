"""What the parts of a model write, hold and would say."""
