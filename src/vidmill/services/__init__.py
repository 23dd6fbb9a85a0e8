"""Use cases. They own the transactions; ports come as arguments."""
