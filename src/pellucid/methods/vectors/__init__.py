"""What each token adds to each token, as vectors."""
