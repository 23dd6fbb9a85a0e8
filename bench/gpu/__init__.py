"""What Wan2.2-T2V-A14B costs on the GPU at hand, at true size with random weights, in pieces.

    python -m bench.gpu list              # the pieces, what each should take, what is done
    python -m bench.gpu run               # those not done yet; run again to go on
    python -m bench.gpu report            # Markdown for docs/benchmarks.md
    python -m bench.gpu run --rehearse    # all of them at tiny size on the CPU: claims nothing

Random weights take as long as trained ones: no kernel looks at the numbers. What they cannot tell
is how good a picture is, and how often a step cache of real clips would hit.
"""
