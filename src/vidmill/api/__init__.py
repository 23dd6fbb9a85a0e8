"""The HTTP gateway: wire formats in, clip specs and jobs behind."""
