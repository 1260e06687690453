"""KB of a diffusion prior of our own against what its answers lose.

    python benchmarks/prior_size.py UNET [--bits 1 2 3 4]

Every layer's codebook of 2^bits values (Lloyd-Max) makes files of some sizes. Files of at most
these sizes are then made by steps that are as coarse for every layer, in its standard deviations,
and by codebooks and steps that the layers share by their sensitivity, as ``scene4d prior compress``
does. Prints KB, and PSNR of x0 against the answers of UNET itself at each sigma/alpha, of pictures
that it thinks of.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from scene4d.bundle.quantise import Sensitivity
from scene4d.priors.compression import (
    Codebooks,
    Quantisers,
    coded_with,
    denoising_questions,
    fitted,
    layers_of,
    psnr_of,
    quantisers,
    sensitivities,
)
from scene4d.priors.tensor_files import pack_coded, pack_tensors
from scene4d.priors.unet import load_unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2, 3, 4])
    arguments = parser.parse_args()
    prior = load_unet(arguments.prior)
    generator = torch.Generator().manual_seed(0)
    asked, judged = (denoising_questions(prior, count, generator) for count in (2, 4))
    layers = layers_of(prior)
    books = Codebooks(layers)
    alike = {
        name: Sensitivity(weight=v.size / float(v.var()), spread=float(v.std()), count=v.size)
        for name, v in layers.items()
    }
    measured = sensitivities(prior, asked)

    def told(what: str, members: dict[str, bytes]) -> int:
        size = len(pack_coded(members, *prior.header))
        values = " ".join(f"{value:.1f}" for value in psnr_of(prior, members, judged))
        print(f"{what}: {size / 1000:.1f} KB, {values} dB", flush=True)
        return size

    half = len(pack_tensors(prior.state_dict(), *prior.header))
    print(f"x0 at sigma/alpha {' '.join(judged.names)}; half precision: {half / 1000:.1f} KB")
    told("nothing quantised but to a thousandth of a deviation",
         coded_with(prior, {n: 1e-3 * float(v.std()) for n, v in layers.items()}))  # fmt: skip
    ways: dict[str, Callable[[float], Quantisers]] = {
        "steps alike": partial(quantisers, layers, alike),
        "codebooks by sensitivity": partial(quantisers, layers, measured, books=books),
        "steps by sensitivity": partial(quantisers, layers, measured),
    }
    for bits in arguments.bits:
        same = {name: books.of_size(name, 2**bits) for name in layers}
        size = told(f"codebooks of {2**bits}", coded_with(prior, same))
        for what, chosen in ways.items():
            told(f"  {what}", fitted(prior, size, chosen)[1])


if __name__ == "__main__":
    main()
