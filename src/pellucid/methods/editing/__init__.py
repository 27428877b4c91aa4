"""Change what a model says by changing its weights, its memory or its context."""
