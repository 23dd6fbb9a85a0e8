"""Trains Vidmill's tiny text-to-video model: a caption world, four stages, an honest score.

Run it with ``python -m training``; ``README.md`` says how. Nothing in ``vidmill`` imports this.
"""
