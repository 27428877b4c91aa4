"""How each peer is called, one file per peer; a function is named after the job it does and returns its ways."""
