"""Calling other people's servers: where a call may go, how it is signed, how it is bounded."""
