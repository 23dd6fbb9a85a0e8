"""The shortest way from text to a link.

python text_to_link.py "a red ball moves right"
"""

import sys

from vidmill.client import VideoGenerator

if __name__ == "__main__":
    generator = VideoGenerator()  # model="..." makes sure that the server runs that one
    print(generator.generate(text=sys.argv[1], config={"duration": 3, "seed": 7}))
