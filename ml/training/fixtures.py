"""Draws the pages that the crate's tests look at, and writes what ONNX Runtime makes of each.

    python fixtures.py ../models/page-kind.onnx ../tests/data

Typefaces and seeds are ones that training never used. The progressive JPEG is for measuring memory: no encoder in the
tests writes one.
"""
import pathlib
import random
import sys

import numpy as np
from PIL import Image

import export
from pages import EDGE, KINDS, page


def main(model, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, kind in enumerate(KINDS):
        # The first that it is sure of: the test asks whether two runtimes agree, not how good the model is.
        for seed in range(77_000, 77_020):
            page(random.Random(seed), True, kind).save(folder / f"{kind}.jpg", quality=80)
            image = Image.open(folder / f"{kind}.jpg").convert("RGB").resize((EDGE, EDGE), Image.BILINEAR)
            score = export.run(model, np.asarray(image)[None])[0][index]
            if score > 0.8:
                break
        else:
            raise SystemExit(f"no page that is surely {kind}")
        lines.append(f'    ("{kind}", include_bytes!("{kind}.jpg"), {score:.4f}),\n')
    (folder / "pages.in").write_text("[\n" + "".join(lines) + "]\n")
    slope = np.add.outer(np.arange(2000) // 16, np.arange(2400) // 16)
    large = Image.fromarray((np.stack([slope, slope[:, ::-1], np.full_like(slope, 90)], -1) % 255).astype(np.uint8))
    large.save(folder / "progressive.jpg", quality=50, progressive=True, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
