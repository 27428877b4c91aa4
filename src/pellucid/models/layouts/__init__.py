"""One file per family of architectures; the directory is the registry."""
