"""How the output is shared out backwards through the model, layer by layer."""
