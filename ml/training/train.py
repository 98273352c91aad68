"""Trains the page-kind classifier and writes it as ONNX with fixed shapes.

    python train.py ../models/page-kind.onnx

Draws the pages (seeded), trains on one set, measures on another whose typefaces were never trained on, folds the batch
normalisation into the convolutions, writes the file and checks ONNX Runtime's answers against ours before it reports.
`--pages FILE` keeps the drawn pages for another run.
"""
import argparse
import multiprocessing
import os
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import export
from pages import EDGE, KINDS, pages

TRAINING_PAGES, HELD_OUT_PAGES, CHUNK = 8000, 1000, 500
EPOCHS, BATCH, SEED = 7, 64, 20
RATE, DECAY, SMOOTHING, DROPOUT = 8e-3, 1e-3, 0.03, 0.05
# (channels out, stride) of the separable blocks after a first 3x3 convolution to FIRST channels with stride 2.
FIRST, BLOCKS = 8, [(16, 2), (32, 2), (48, 1), (64, 2), (64, 1)]


def drawn(cache):
    if cache and os.path.exists(cache):
        return [np.load(cache)[name] for name in ("x", "y", "held_x", "held_y")]
    jobs = [(CHUNK, False, 1000 + i) for i in range(TRAINING_PAGES // CHUNK)] + [(CHUNK, True, 9000 + i) for i in range(HELD_OUT_PAGES // CHUNK)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        done = pool.starmap(pages, jobs, chunksize=1)
    training, held = done[: TRAINING_PAGES // CHUNK], done[TRAINING_PAGES // CHUNK :]
    sets = [np.concatenate(part) for part in (*zip(*training), *zip(*held))]
    if cache:
        np.savez(cache, x=sets[0], y=sets[1], held_x=sets[2], held_y=sets[3])
    return sets


def initial(rng):
    def layer(fan_in, shape):
        channels = shape[-1]
        return {"w": jnp.array(rng.normal(0, np.sqrt(2 / fan_in), shape), jnp.float32), "scale": jnp.ones(channels), "shift": jnp.zeros(channels)}

    weights, channels = {"first": layer(27, (27, FIRST)), "blocks": []}, FIRST
    for out, _ in BLOCKS:
        weights["blocks"].append({"deep": layer(9, (9, channels)), "point": layer(channels, (channels, out))})
        channels = out
    weights["head"] = {"w": jnp.array(rng.normal(0, 0.05, (2 * channels, len(KINDS))), jnp.float32), "b": jnp.zeros(len(KINDS))}
    return weights


def windows(x, stride):
    """The nine shifted views that a 3x3 convolution with a border of one sums over."""
    edge = x.shape[1]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + edge : stride, j : j + edge : stride] for i in range(3) for j in range(3)]


def normalised(x, layer, seen, moments):
    """Batch normalisation: by this batch while training (noting its moments), by the running moments otherwise."""
    if seen is None:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        moments.append((mean, variance))
    else:
        mean, variance = seen[len(moments)]
        moments.append((mean, variance))
    return jax.nn.relu((x - mean) * jax.lax.rsqrt(variance + export.EPSILON) * layer["scale"] + layer["shift"])


def logits(weights, x, seen=None, key=None):
    moments = []
    x = x / 127.5 - 1
    x = normalised(jnp.concatenate(windows(x, 2), -1) @ weights["first"]["w"], weights["first"], seen, moments)
    for block, (_, stride) in zip(weights["blocks"], BLOCKS):
        x = sum(view * block["deep"]["w"][i] for i, view in enumerate(windows(x, stride)))
        x = normalised(x, block["deep"], seen, moments)
        x = normalised(x @ block["point"]["w"], block["point"], seen, moments)
    x = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
    if key is not None:
        x = x * jax.random.bernoulli(key, 1 - DROPOUT, x.shape) / (1 - DROPOUT)
    return x @ weights["head"]["w"] + weights["head"]["b"], moments


def loss(weights, x, y, key):
    answers, moments = logits(weights, x, key=key)
    wanted = jax.nn.one_hot(y, len(KINDS)) * (1 - SMOOTHING) + SMOOTHING / len(KINDS)
    return -(wanted * jax.nn.log_softmax(answers)).sum(-1).mean(), moments


@jax.jit
def step(weights, first, second, seen, count, rate, x, y, key):
    """One step of AdamW; the running moments of the normalisation follow."""
    (cost, moments), slope = jax.value_and_grad(loss, has_aux=True)(weights, x, y, key)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * (m / (1 - 0.9**count) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8) + DECAY * w), weights, first, second
    )
    return weights, first, second, jax.tree.map(lambda old, new: 0.95 * old + 0.05 * new, seen, moments), cost


def varied(rng, x):
    """Mirrored, turned, brighter, tinted: a page's kind does not depend on it."""
    x = x.astype(np.float32)
    if rng.random() < 0.5:
        x = x[:, :, ::-1]
    if rng.random() < 0.25:
        x = x[:, ::-1]
    if rng.random() < 0.2:
        x = x.transpose(0, 2, 1, 3)
    tint = 3 if rng.random() < 0.5 else 1
    x = x * rng.uniform(0.85, 1.15, (len(x), 1, 1, 1)) + rng.uniform(-20, 20, (len(x), 1, 1, tint))
    return np.clip(x, 0, 255).astype(np.float32)


def train(x, y, report):
    rng, key = np.random.default_rng(SEED), jax.random.key(SEED)
    weights = initial(rng)
    first = second = jax.tree.map(jnp.zeros_like, weights)
    seen = jax.tree.map(lambda m: m, logits(weights, jnp.array(x[:BATCH], jnp.float32))[1])
    batches = len(x) // BATCH
    for epoch in range(EPOCHS):
        order, total = rng.permutation(len(x)), 0.0
        for i in range(batches):
            done = (epoch * batches + i) / (EPOCHS * batches)
            # One cycle: up over the first quarter, then down along a cosine.
            rate = RATE * (0.04 + 0.96 * done * 4 if done < 0.25 else 0.5 * (1 + np.cos(np.pi * (done - 0.25) / 0.75)))
            some = order[i * BATCH : (i + 1) * BATCH]
            key, dropout = jax.random.split(key)
            weights, first, second, seen, cost = step(
                weights, first, second, seen, epoch * batches + i + 1.0, rate, varied(rng, x[some]), y[some], dropout
            )
            total += float(cost)
        report(epoch, total / batches, weights, seen)
    return weights, seen


@partial(jax.jit)
def answer(weights, seen, x):
    return jax.nn.softmax(logits(weights, x, seen=seen)[0])


def answers(weights, seen, x):
    return np.concatenate([answer(weights, seen, x[i : i + 100].astype(np.float32)) for i in range(0, len(x), 100)])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("onnx")
    arguments.add_argument("--pages", help="keep the drawn pages in this file")
    arguments = arguments.parse_args()

    started = time.process_time()
    x, y, held_x, held_y = drawn(arguments.pages)
    print(f"{len(x)} pages to learn, {len(held_x)} held out, {EDGE} px", flush=True)

    def report(epoch, cost, weights, seen):
        right = (answers(weights, seen, held_x).argmax(1) == held_y).mean()
        print(f"epoch {epoch} loss {cost:.3f} held-out accuracy {right:.4f} CPU {time.process_time() - started:.0f} s", flush=True)

    weights, seen = train(x, y, report)
    weights, seen = jax.tree.map(np.asarray, (weights, seen))
    export.write(arguments.onnx, weights, seen, [stride for _, stride in BLOCKS], EDGE)
    ours = answers(weights, seen, held_x)
    print(f"largest difference to ONNX Runtime: {np.abs(export.run(arguments.onnx, held_x) - ours).max():.1e}")
    confusion = np.zeros((len(KINDS), len(KINDS)), int)
    np.add.at(confusion, (held_y, ours.argmax(1)), 1)
    print("rows: what it is; columns: what was said", KINDS, confusion, sep="\n")
    print(f"held-out accuracy {(ours.argmax(1) == held_y).mean():.4f}; {os.path.getsize(arguments.onnx)} bytes")


if __name__ == "__main__":
    main()
