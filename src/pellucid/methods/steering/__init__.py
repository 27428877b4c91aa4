"""What steers a model: directions read from it, erased from it, added to it."""
