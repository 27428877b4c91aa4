"""The benchmark: every job of the engine against its peers and against the machine's own limit. See NOTES.md."""
