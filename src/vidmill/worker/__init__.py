"""The worker: a supervisor that claims jobs, and the two children that do them.

Kept free of imports: each process of the tree loads only what it needs.
"""
