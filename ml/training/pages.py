"""Draws synthetic pages of five kinds: blank, text, cover, diagram, photo.

Everything is drawn from a seeded generator, so that the same seed gives the same pages. No picture of anybody's is used:
the "photographs" are noise with the spectrum of natural images, with a horizon, soft textured bodies and light.

`sheet.png`, four of each kind, shows what the model learns from:  python pages.py sheet
"""
import io
import math
import random
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import typefaces
from typefaces import pick_font, pick_script, word, words

KINDS = ["blank", "text", "cover", "diagram", "photo"]
EDGE = 96
"""Pixels of each edge of what the model sees."""

PAPERS = [(255, 255, 255), (252, 250, 244), (240, 232, 214), (228, 214, 186), (245, 245, 245), (225, 225, 220)]
PAGE_SIZES = [(336, 448), (336, 448), (320, 480), (448, 336), (400, 400)]


def noise_of(rng):
    return np.random.default_rng(rng.randint(0, 1 << 30))


def image_of(pixels):
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def any_colour(rng, low=0, high=255):
    return tuple(rng.randint(low, high) for _ in range(3))


def paper(rng, width, height):
    """An empty sheet as a scanner or a camera sees it: tinted, unevenly lit, grainy."""
    pixels = np.ones((height, width, 3), np.float32) * rng.choice(PAPERS)
    if rng.random() < 0.5:
        across = np.linspace(0, 1, width)[None, :, None]
        pixels *= 1 - rng.uniform(0, 0.25) * (across if rng.random() < 0.5 else 1 - across) ** rng.choice([1, 2, 4])
    if rng.random() < 0.3:
        pixels *= 1 - rng.uniform(0, 0.2) * np.linspace(0, 1, height)[:, None, None]
    if rng.random() < 0.5:
        pixels += noise_of(rng).normal(0, rng.uniform(1, 8), (height, width, 1))
    return image_of(pixels)


def natural_noise(noise, height, width, exponent):
    """Noise whose spectrum falls off as natural images' does; mean 0, deviation 1."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / max(height, width)) ** exponent
    phase = noise.normal(size=amplitude.shape) + 1j * noise.normal(size=amplitude.shape)
    field = np.fft.irfft2(amplitude * phase, (height, width))
    return (field - field.mean()) / (field.std() + 1e-6)


def scene(rng, width, height):
    """A photograph of nothing: light, a horizon at times, soft textured bodies in front."""
    noise = noise_of(rng)
    exponent = rng.uniform(0.9, 1.8)
    light = natural_noise(noise, height, width, exponent)
    channels = [0.8 * light + rng.uniform(0.02, 0.35) * natural_noise(noise, height, width, exponent * 1.15) for _ in range(3)]
    pixels = rng.uniform(60, 175) + np.stack(channels, -1) * rng.uniform(24, 60)
    if rng.random() < 0.6:
        horizon = max(1, int(height * rng.uniform(0.2, 0.75)))
        sky = np.array(any_colour(rng, 60, 220))
        haze = np.linspace(0, 1, horizon)[:, None, None]
        pixels[:horizon] = pixels[:horizon] * rng.uniform(0.08, 0.4) + (sky * (1 - haze) + (sky * 0.6 + 66) * haze) * rng.uniform(0.6, 0.9)
    image = image_of(pixels)
    for _ in range(rng.randint(0, 9)):
        body(rng, noise, image)
    if rng.random() < 0.4:
        down, across = np.mgrid[0:height, 0:width]
        vignette = 1 - rng.uniform(0.1, 0.6) * 2 * ((across / width - 0.5) ** 2 + (down / height - 0.5) ** 2)
        image = image_of(np.asarray(image, np.float32) * vignette[..., None])
    return ImageOps.grayscale(image).convert("RGB") if rng.random() < 0.2 else image


def body(rng, noise, image):
    width, height = image.size
    x, y = rng.randint(0, width), rng.randint(0, height)
    size = rng.randint(max(2, width // 20), max(3, width // 3))
    mask = Image.new("L", image.size, 0)
    draw, opacity, shape = ImageDraw.Draw(mask), rng.randint(110, 235), rng.random()
    if shape < 0.45:
        tall = size * rng.uniform(0.4, 1.2)
        draw.ellipse((x - size, y - tall, x + size, y + tall), fill=opacity)
    elif shape < 0.75:
        turns = np.linspace(0, 6.2, rng.randint(4, 9))
        draw.polygon([(x + size * math.cos(t) * rng.uniform(0.5, 1), y + size * math.sin(t) * rng.uniform(0.5, 1)) for t in turns], fill=opacity)
    else:
        draw.rectangle((x, y, x + size * rng.uniform(0.2, 1), y + size * 1.3), fill=opacity)
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 5)))
    grain = rng.randint(2, max(3, width // 6))
    texture = image_of(noise.integers(0, 255, (max(2, height // grain), max(2, width // grain), 3))).resize(image.size, Image.BICUBIC)
    image.paste(Image.blend(Image.new("RGB", image.size, any_colour(rng, 10, 245)), texture, rng.uniform(0.1, 0.5)), (0, 0), mask)


def paragraphs(draw, rng, box, face, script, ink, leading):
    left, top, right, bottom = box
    line_height = max(3, int(face.getbbox("Ag国")[3] * leading))
    joint = "" if script == "cjk" else " "
    while top + line_height < bottom:
        x = left + (rng.randint(5, 25) if rng.random() < 0.12 else 0)
        end = right if rng.random() > 0.15 else left + (right - left) * rng.uniform(0.2, 0.9)
        line = ""
        for _ in range(60):
            longer = line + joint + word(script, rng) if line else word(script, rng)
            if face.getlength(longer) > end - x:
                break
            line = longer
        draw.text((x, top), line, font=face, fill=ink)
        top += line_height + (line_height // 2 if rng.random() < 0.07 else 0)


def draw_text(rng, held_out, width, height):
    image, script, size = paper(rng, width, height), pick_script(rng), rng.randint(7, 17)
    draw, face = ImageDraw.Draw(image), pick_font(rng, held_out, script, size)
    ink = (rng.randint(0, 70),) * 3 if rng.random() < 0.85 else (rng.randint(0, 90), rng.randint(0, 60), rng.randint(0, 60))
    margin, top = rng.randint(8, int(width * 0.16)), rng.randint(8, int(height * 0.15))
    if rng.random() < 0.5:
        heading = pick_font(rng, held_out, script, int(size * rng.uniform(1.3, 2.4)))
        draw.text((margin + rng.randint(0, width // 4), top), words(script, rng, rng.randint(1, 4)), font=heading, fill=ink)
        top += size * 3
    columns, gap = rng.choices([1, 2, 3], [6, 3, 1])[0], rng.randint(8, 20)
    column = (width - 2 * margin - gap * (columns - 1)) // columns
    bottom = height - rng.randint(8, int(height * 0.18))
    if rng.random() < 0.12:
        bottom = top + int((bottom - top) * rng.uniform(0.3, 0.8))
    leading = rng.uniform(1.1, 1.7)
    for index in range(columns):
        left = margin + index * (column + gap)
        paragraphs(draw, rng, (left, top, left + column, bottom), face, script, ink, leading)
    if rng.random() < 0.4:
        draw.text((width // 2, height - 18), str(rng.randint(1, 999)), font=face, fill=ink)
    if rng.random() < 0.18:
        inset = scene(rng, rng.randint(width // 6, width // 3), rng.randint(height // 8, height // 4))
        image.paste(inset, (rng.randint(margin, max(margin + 1, width - margin - inset.width)), rng.randint(top, max(top + 1, bottom - inset.height))))
    return image


def draw_photo(rng, _held_out, width, height):
    return scene(rng, width, height)


def draw_blank(rng, held_out, width, height):
    image = paper(rng, width, height)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.choice([0, 0, 1, 3, 12])):
        x, y, size = rng.randint(0, width), rng.randint(0, height), rng.uniform(0.3, 2.2)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=(rng.randint(40, 180),) * 3)
    if rng.random() < 0.25:
        edge = (0, 0, rng.randint(2, 14), height) if rng.random() < 0.5 else (0, height - rng.randint(2, 14), width, height)
        draw.rectangle(edge, fill=(rng.randint(0, 90),) * 3)
    if rng.random() < 0.15:
        for hole in range(rng.choice([2, 3])):
            y = height * (hole + 1) / 4
            draw.ellipse((10, y, 20, y + 10), fill=(40, 40, 40))
    if rng.random() < 0.25:
        verso = draw_text(rng, held_out, width, height).transpose(Image.FLIP_LEFT_RIGHT).filter(ImageFilter.GaussianBlur(1.5))
        image = Image.blend(image, verso, rng.uniform(0.04, 0.14))
    if rng.random() < 0.12:
        number = pick_font(rng, held_out, "latin", 10)
        ImageDraw.Draw(image).text((width // 2, height - 20), str(rng.randint(1, 400)), font=number, fill=(60, 60, 60))
    if rng.random() < 0.08:
        image = Image.new("RGB", (width, height), (rng.choice([0, 255, 30, 128]),) * 3)
    return image


def cover_ground(rng, width, height, first, second):
    choice = rng.random()
    if choice < 0.35:
        return Image.new("RGB", (width, height), first)
    if choice < 0.6:
        down = np.linspace(0, 1, height)[:, None, None]
        return image_of((np.array(first) * (1 - down) + np.array(second) * down) * np.ones((1, width, 1)))
    return scene(rng, width, height) if choice < 0.8 else paper(rng, width, height)


def draw_cover(rng, held_out, width, height):
    first, second = any_colour(rng), any_colour(rng)
    image = cover_ground(rng, width, height, first, second)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        wide, tall = int(width * rng.uniform(0.4, 0.95)), int(height * rng.uniform(0.25, 0.55))
        x, y = (width - wide) // 2, int(height * rng.uniform(0.15, 0.4))
        if rng.random() < 0.6:
            image.paste(scene(rng, wide, tall), (x, y))
        else:
            for _ in range(rng.randint(2, 9)):
                left, top = x + rng.randint(-20, wide // 2), y + rng.randint(-20, tall // 2)
                draw.ellipse((left, top, left + rng.randint(20, wide), top + rng.randint(20, tall)), fill=any_colour(rng))
    if rng.random() < 0.45:
        border = rng.randint(4, 22)
        draw.rectangle((border, border, width - border, height - border), outline=second, width=rng.randint(1, 6))
    if rng.random() < 0.35:
        y = int(height * rng.uniform(0, 0.8))
        draw.rectangle((0, y, width, y + int(height * rng.uniform(0.08, 0.3))), fill=second)
    script = pick_script(rng)
    path = rng.choice(typefaces.faces(script, held_out))
    ink, y = rng.choice([(255, 255, 255), (0, 0, 0), (250, 220, 80), second, (200, 30, 30)]), int(height * rng.uniform(0.05, 0.5))
    for _ in range(rng.randint(1, 4)):
        size, title = rng.randint(22, 54), words(script, rng, rng.randint(1, 2), longest=12)
        while typefaces.font(path, size).getlength(title) > width * 0.94 and size > 12:
            size -= 3
        face = typefaces.font(path, size)
        x = (width - face.getlength(title)) / 2 if rng.random() < 0.75 else width * 0.07
        draw.text((x, y), title, font=face, fill=ink)
        y += int(size * 1.25)
    byline, author = typefaces.font(path, rng.randint(11, 22)), words(script, rng, 2, longest=10)
    draw.text(((width - byline.getlength(author)) / 2, height * rng.choice([0.03, 0.88, 0.92])), author, font=byline, fill=ink)
    return image


class Pen:
    """What the five kinds of diagram share: a face, an ink, a line width, colours at times."""

    def __init__(self, rng, held_out, image):
        self.rng, self.draw, self.size = rng, ImageDraw.Draw(image), image.size
        self.face = pick_font(rng, held_out, "latin", rng.randint(8, 15))
        self.ink, self.line, self.coloured = (rng.randint(0, 60),) * 3, rng.randint(1, 3), rng.random() < 0.6

    def colour(self):
        return any_colour(self.rng, 20, 230) if self.coloured else self.ink

    def label(self, x, y, text=None):
        self.draw.text((x, y), text or self.rng.choice(typefaces.WORDS)[:10], font=self.face, fill=self.ink)


def chart(pen):
    rng, (width, height) = pen.rng, pen.size
    left, top, right, bottom = width * 0.12, height * 0.1, width * 0.92, height * 0.85
    pen.draw.line((left, top, left, bottom, right, bottom), fill=pen.ink, width=pen.line)
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 4)):
            value, values = rng.uniform(0.2, 0.8), []
            for _ in range(rng.randint(5, 40)):
                value = min(0.97, max(0.03, value + rng.gauss(0, 0.08)))
                values.append(value)
            steps = len(values) - 1
            pen.draw.line([(left + (right - left) * i / steps, top + (bottom - top) * v) for i, v in enumerate(values)], fill=pen.colour(), width=pen.line)
    else:
        bars = rng.randint(3, 14)
        for i in range(bars):
            x = left + (right - left) * (i + 0.15) / bars
            pen.draw.rectangle((x, top + (bottom - top) * rng.uniform(0.05, 0.9), x + (right - left) * 0.65 / bars, bottom),
                               fill=pen.colour() if rng.random() < 0.8 else None, outline=pen.ink)
    for i in range(rng.randint(3, 8)):
        pen.label(left - 28, top + (bottom - top) * i / 7, str(rng.randint(0, 500)))
        pen.label(left + (right - left) * i / 7, bottom + 4, rng.choice(typefaces.WORDS)[:5])
    if rng.random() < 0.4:
        for i in range(6):
            y = top + (bottom - top) * i / 6
            pen.draw.line((left, y, right, y), fill=(200, 200, 200))


def boxes_and_arrows(pen):
    rng, (width, height), centres = pen.rng, pen.size, []
    for _ in range(rng.randint(4, 14)):
        x, y, wide, tall = rng.uniform(0.05, 0.8) * width, rng.uniform(0.05, 0.88) * height, rng.randint(35, 90), rng.randint(18, 40)
        centres.append((x + wide / 2, y + tall / 2))
        shape = pen.draw.rectangle if rng.random() < 0.7 else pen.draw.ellipse
        shape((x, y, x + wide, y + tall), outline=pen.ink, width=pen.line, fill=pen.colour() if pen.coloured and rng.random() < 0.6 else None)
        pen.label(x + 4, y + 4)
    for _ in centres:
        (x0, y0), (x1, y1) = rng.choice(centres), rng.choice(centres)
        pen.draw.line((x0, y0, x1, y1) if rng.random() < 0.5 else (x0, y0, x0, y1, x1, y1), fill=pen.ink, width=pen.line)


def geometry(pen):
    rng, (width, height) = pen.rng, pen.size
    for _ in range(rng.randint(4, 18)):
        x, y, size, shape = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height, rng.uniform(10, width * 0.3), rng.random()
        around = (x - size, y - size, x + size, y + size)
        if shape < 0.35:
            pen.draw.ellipse(around, outline=pen.colour(), width=pen.line)
        elif shape < 0.7:
            pen.draw.line((x, y, x + rng.uniform(-size, size) * 2, y + rng.uniform(-size, size) * 2), fill=pen.colour(), width=pen.line)
        elif shape < 0.85:
            pen.draw.arc(around, rng.randint(0, 180), rng.randint(181, 360), fill=pen.colour(), width=pen.line)
        else:
            turns = np.linspace(0, 6.28, rng.randint(4, 8))
            pen.draw.polygon([(x + size * math.cos(t), y + size * math.sin(t)) for t in turns], outline=pen.colour())
        if rng.random() < 0.6:
            pen.label(x, y, rng.choice("ABCDEFGHxyz") + str(rng.randint(0, 9)))


def table(pen):
    rng, (width, height) = pen.rng, pen.size
    rows, columns = rng.randint(5, 18), rng.randint(2, 7)
    left, top, wide, tall = width * 0.06, height * 0.1, width * 0.88, height * 0.8
    for i in range(rows + 1):
        pen.draw.line((left, top + tall * i / rows, left + wide, top + tall * i / rows), fill=pen.ink)
    for i in range(columns + 1):
        pen.draw.line((left + wide * i / columns, top, left + wide * i / columns, top + tall), fill=pen.ink)
    for cell in range(rows * columns):
        if rng.random() < 0.8:
            pen.label(left + wide * (cell % columns) / columns + 3, top + tall * (cell // columns) / rows + 2, rng.choice(typefaces.WORDS)[:7])


def pie(pen):
    rng, (width, height) = pen.rng, pen.size
    slices, start, size = rng.randint(3, 8), 0.0, min(width, height) * 0.35
    for i in range(slices):
        end = start + 360 / slices * rng.uniform(0.5, 1.4)
        pen.draw.pieslice((width / 2 - size, height / 2 - size, width / 2 + size, height / 2 + size), start, max(start, min(end, 360)), fill=pen.colour(), outline=pen.ink)
        pen.label(width * 0.75, 20 + 16 * i)
        start = min(end, 360)


def draw_diagram(rng, held_out, width, height):
    image = paper(rng, width, height) if rng.random() < 0.6 else Image.new("RGB", (width, height), (255, 255, 255))
    pen = Pen(rng, held_out, image)
    rng.choices([chart, boxes_and_arrows, geometry, table, pie], [3, 3, 2, 1, 1])[0](pen)
    if rng.random() < 0.5:
        pen.label(width * 0.2, height * 0.94, f"Fig. {rng.randint(1, 99)} {words('latin', rng, 3, longest=10)}")
    return image


DRAW = {"blank": draw_blank, "text": draw_text, "cover": draw_cover, "diagram": draw_diagram, "photo": draw_photo}


def wear(rng, image):
    """What scanning, photocopying and saving do to a page."""
    if rng.random() < 0.4:
        image = image.rotate(rng.gauss(0, 2), fillcolor=image.getpixel((2, 2)), resample=Image.BILINEAR)
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    if rng.random() < 0.25:
        image = ImageOps.grayscale(image).convert("RGB")
    if rng.random() < 0.1:
        threshold = rng.randint(110, 150)
        image = image.convert("L").point(lambda value: 255 * (value > threshold)).convert("RGB")
    if rng.random() < 0.4:
        image = image_of((np.asarray(image, np.float32) - 128) * rng.uniform(0.65, 1.15) + 128 + rng.uniform(-25, 15))
    if rng.random() < 0.15:
        width, height = image.size
        crop = rng.uniform(0, 0.15)
        image = image.crop((int(width * crop * rng.random()), int(height * crop * rng.random()),
                            int(width * (1 - crop * rng.random())), int(height * (1 - crop * rng.random()))))
    if rng.random() < 0.6:
        saved = io.BytesIO()
        image.save(saved, "JPEG", quality=rng.randint(25, 92))
        image = Image.open(saved).convert("RGB")
    return image


def page(rng, held_out, kind):
    return wear(rng, DRAW[kind](rng, held_out, *rng.choice(PAGE_SIZES)))


def pages(count, held_out, seed):
    """`count` pages as the model sees them, kinds in turn: (count, EDGE, EDGE, 3) bytes and the kinds' indices."""
    rng = random.Random(seed)
    pixels, kinds = np.zeros((count, EDGE, EDGE, 3), np.uint8), np.arange(count) % len(KINDS)
    for i, kind in enumerate(kinds):
        image = page(rng, held_out, KINDS[kind])
        pixels[i] = np.asarray(image.resize((EDGE, EDGE), Image.BILINEAR if rng.random() < 0.7 else Image.BOX))
    return pixels, kinds


def sheet(path):
    rng, board = random.Random(5), Image.new("RGB", (len(KINDS) * 170, 4 * 230), (90, 90, 90))
    for column, kind in enumerate(KINDS):
        for row in range(4):
            image = page(rng, False, kind)
            image.thumbnail((160, 220))
            board.paste(image, (column * 170 + 5, row * 230 + 5))
    board.save(path)


if __name__ == "__main__":
    if sys.argv[1:] != ["sheet"]:
        raise SystemExit(__doc__)
    sheet("sheet.png")
