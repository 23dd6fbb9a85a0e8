"""Writes a pair of LoRA files for the tiny model, to try brand styles with: noise, not a style.

python lora_pair.py acme        # writes acme-high.safetensors and acme-low.safetensors
"""

import sys

import numpy as np
from safetensors.numpy import save_file

from vidmill.domain.lora_files import expert_linears
from vidmill.profiles import load_profile

RANK = 4

if __name__ == "__main__":
    experts = load_profile("tiny").expert_configs
    for seed, side in enumerate(("high", "low")):
        noise, tensors = np.random.default_rng(seed), {}
        for layer, (outside, inside) in expert_linears(experts[side]).items():
            for name, shape in (("lora_A", (RANK, inside)), ("lora_B", (outside, RANK))):
                factors = noise.normal(0, 0.15, shape).astype(np.float32)
                tensors[f"transformer.{layer}.{name}.weight"] = factors
        path = f"{sys.argv[1]}-{side}.safetensors"
        save_file(tensors, path)
        print(path)
