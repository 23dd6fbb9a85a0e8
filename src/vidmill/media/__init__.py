"""Pictures and files: scaling, retiming, H.264, stills, probing. The only codec code."""
