"""Draws the built-in pictures, and the covers and film frames that other scripts use.

Everything is drawn at twice its size and scaled down, with a seeded generator, so that it is the same each time.
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SCALE = 2
AMIRI = "/usr/share/fonts/opentype/fonts-hosny-amiri/Amiri-Bold.ttf"
AMIRI_REGULAR = "/usr/share/fonts/opentype/fonts-hosny-amiri/Amiri-Regular.ttf"
SERIF = "/usr/share/fonts/truetype/noto/NotoSerif-Bold.ttf"
SERIF_REGULAR = "/usr/share/fonts/truetype/noto/NotoSerif-Regular.ttf"

NIGHT, DUSK, GLOW, SAND = (18, 28, 58), (94, 72, 120), (244, 158, 96), (250, 214, 150)
SEA_FAR, SEA_NEAR, ROCK = (66, 92, 134), (20, 44, 78), (30, 30, 48)


def main():
    library, work = Path(sys.argv[1]), Path(sys.argv[2])
    lighthouse(1280, 960, 0.35).save(library / "lighthouse.jpg", quality=84, optimize=True, exif=caption())
    bookshelf(1200, 800).save(library / "bookshelf.png", optimize=True)
    village(1280, 800).save(library / "village-at-night.webp", quality=82, method=6)
    moons(1200, 675).save(library / "phases-of-the-moon.jpg", quality=84, optimize=True)
    cover("Alexandria", "The handbook", "How to use, fill and look after\nthe library in a box", False).save(
        work / "cover-en.jpg", quality=80, optimize=True
    )
    cover("الإسكندرية", "الدليل", "كيف تستعمل المكتبة التي في صندوق\nوتملؤها وتعتني بها", True).save(
        work / "cover-ar.jpg", quality=80, optimize=True
    )
    square = lighthouse(600, 600, 0.35)
    square.save(work / "cover-sound.jpg", quality=78, optimize=True)


def caption():
    exif = Image.Exif()
    exif[0x010E] = "The lighthouse at dusk"
    exif[0x013B] = "Alexandria"
    return exif


def blend(first, second, share):
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second))


def gradient(draw, box, stops):
    left, top, right, bottom = box
    for y in range(int(top), int(bottom)):
        share = (y - top) / max(1, bottom - top) * (len(stops) - 1)
        index = min(int(share), len(stops) - 2)
        draw.line([(left, y), (right, y)], fill=blend(stops[index], stops[index + 1], share - index))


def lighthouse(width, height, turn, dawn=0.0):
    """The Pharos of Alexandria in its three storeys. `turn` (0 to 1) turns the beam, `dawn` (0 to 1) raises the sun."""
    w, h = width * SCALE, height * SCALE
    picture = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(picture)
    horizon = int(h * 0.68)
    night = [NIGHT, DUSK, GLOW]
    day = [(92, 150, 206), (176, 206, 226), (255, 226, 176)]
    gradient(draw, (0, 0, w, horizon), [blend(a, b, dawn) for a, b in zip(night, day)])
    noise = random.Random(7)
    for _ in range(140):
        x, y, size = noise.random() * w, noise.random() ** 1.6 * horizon * 0.8, noise.choice([1, 1, 2, 3]) * SCALE / 2
        paper = picture.getpixel((min(w - 1, int(x)), int(y)))
        star = blend(blend((255, 250, 235), paper, y / horizon), paper, min(1, dawn * 2.5))
        draw.ellipse([x, y, x + size, y + size], fill=star)

    sun_x, sun_y, sun = w * 0.24, horizon + h * 0.05 - dawn * h * 0.34, h * 0.07
    halo = Image.new("L", (w, h), 0)
    ImageDraw.Draw(halo).ellipse([sun_x - sun * 3, sun_y - sun * 3, sun_x + sun * 3, sun_y + sun * 3], fill=120)
    halo = halo.filter(ImageFilter.GaussianBlur(sun * 1.1))
    picture.paste(Image.new("RGB", (w, h), (255, 206, 130)), mask=halo)
    draw.ellipse([sun_x - sun, sun_y - sun, sun_x + sun, sun_y + sun], fill=(255, 226, 160))

    sea = [blend(SEA_FAR, (120, 172, 200), dawn), blend(SEA_NEAR, (40, 96, 140), dawn)]
    gradient(draw, (0, horizon, w, h), sea)
    for _ in range(260):
        y = horizon + noise.random() ** 1.5 * (h - horizon)
        near = (y - horizon) / (h - horizon)
        x = sun_x + noise.gauss(0, 0.05 + near * 0.16) * w if noise.random() < 0.55 else noise.random() * w
        length = (8 + 60 * near) * SCALE
        tint = blend(blend(sea[0], sea[1], near), SAND, 0.5 if abs(x - sun_x) < w * 0.12 else 0.12)
        draw.line([(x - length / 2, y), (x + length / 2, y)], fill=tint, width=max(1, int(SCALE * (0.7 + near * 1.6))))

    foot_x, foot_y = w * 0.68, horizon + h * 0.06
    lamp_y = foot_y - h * 0.56
    beam = Image.new("L", (w, h), 0)
    pen = ImageDraw.Draw(beam)
    angle = math.pi * 2 * turn
    for side in (0, math.pi):
        reach, spread = w * 1.1 * abs(math.cos(angle + side)) + w * 0.12, 0.05 * w
        way = 1 if math.cos(angle + side) > 0 else -1
        pen.polygon(
            [(foot_x, lamp_y - 3 * SCALE), (foot_x + way * reach, lamp_y - spread), (foot_x + way * reach, lamp_y + spread)],
            fill=int(105 * (1 - dawn * 0.75)),
        )
    beam = beam.filter(ImageFilter.GaussianBlur(9 * SCALE))
    picture.paste(Image.new("RGB", (w, h), (255, 240, 200)), mask=beam)

    draw.polygon(
        [(w * 0.44, horizon + h * 0.1), (w * 0.52, horizon + h * 0.035), (w * 0.6, horizon + h * 0.03), (w * 0.78, horizon + h * 0.03),
         (w * 0.88, horizon + h * 0.05), (w * 0.97, horizon + h * 0.1)],
        fill=blend(ROCK, (84, 74, 72), dawn),
    )
    light, dark = blend((196, 166, 146), (246, 230, 204), dawn), blend((108, 88, 104), (196, 176, 158), dawn)
    storeys = [(0.085, 0.066, 0.0, 0.29), (0.052, 0.046, 0.29, 0.44), (0.03, 0.028, 0.44, 0.52)]
    for bottom_half, top_half, low, high in storeys:
        y0, y1 = foot_y - low * h, foot_y - high * h
        b, t = bottom_half * h, top_half * h
        draw.polygon([(foot_x - b, y0), (foot_x + b, y0), (foot_x + t, y1), (foot_x - t, y1)], fill=light)
        draw.polygon([(foot_x + b * 0.2, y0), (foot_x + b, y0), (foot_x + t, y1), (foot_x + t * 0.2, y1)], fill=dark)
        draw.rectangle([foot_x - t * 1.12, y1 - 0.008 * h, foot_x + t * 1.12, y1], fill=blend(light, dark, 0.5))
    for row in range(4):
        for column in (-1, 0):
            x, y = foot_x + (column * 0.034 + 0.008) * h, foot_y - (0.06 + row * 0.058) * h
            draw.rounded_rectangle([x, y, x + 0.011 * h, y + 0.024 * h], 0.005 * h, fill=blend((255, 214, 140), dark, dawn * 0.8))
    draw.rounded_rectangle(
        [foot_x - 0.014 * h, foot_y - 0.045 * h, foot_x + 0.014 * h, foot_y], 0.012 * h, fill=blend((60, 44, 54), dark, dawn * 0.4)
    )
    draw.rectangle([foot_x - 0.02 * h, lamp_y - 0.02 * h, foot_x + 0.02 * h, lamp_y + 0.03 * h], fill=(255, 232, 168))
    draw.polygon([(foot_x - 0.03 * h, lamp_y - 0.02 * h), (foot_x + 0.03 * h, lamp_y - 0.02 * h), (foot_x, lamp_y - 0.06 * h)], fill=dark)
    fire = Image.new("L", (w, h), 0)
    ImageDraw.Draw(fire).ellipse(
        [foot_x - 0.05 * h, lamp_y - 0.05 * h, foot_x + 0.05 * h, lamp_y + 0.05 * h], fill=int(230 * (1 - dawn * 0.6))
    )
    picture.paste(Image.new("RGB", (w, h), (255, 236, 180)), mask=fire.filter(ImageFilter.GaussianBlur(0.02 * h)))
    return picture.resize((width, height), Image.LANCZOS)


def bookshelf(width, height):
    """Flat colours, so that PNG packs it well."""
    w, h = width * SCALE, height * SCALE
    picture = Image.new("RGB", (w, h), (243, 233, 214))
    draw = ImageDraw.Draw(picture)
    noise = random.Random(11)
    spines = [(178, 58, 52), (226, 150, 62), (64, 112, 118), (38, 62, 92), (120, 146, 92), (150, 98, 128), (222, 202, 160), (96, 66, 54)]
    wood, shade = (120, 78, 48), (92, 58, 36)
    shelves, margin = 3, 0.05 * w
    tall = (h - 0.08 * h) / shelves
    for shelf in range(shelves):
        floor = 0.06 * h + tall * (shelf + 1) - 0.035 * h
        draw.rectangle([margin, floor, w - margin, floor + 0.03 * h], fill=wood)
        draw.rectangle([margin, floor + 0.022 * h, w - margin, floor + 0.03 * h], fill=shade)
        x, last = margin + 0.03 * w, None
        while x < w - margin - 0.09 * w:
            thick = noise.uniform(0.016, 0.042) * w
            high = noise.uniform(0.58, 0.84) * tall
            color = noise.choice([spine for spine in spines if spine != last])
            last = color
            kind = noise.random()
            if kind < 0.06:
                # A gap, with a plant.
                pot = 0.032 * w
                draw.polygon([(x, floor - pot), (x + pot * 1.5, floor - pot), (x + pot * 1.25, floor), (x + pot * 0.25, floor)], fill=(196, 110, 74))
                for leaf in range(-3, 4):
                    tip = (x + pot * 0.75 + leaf * pot * 0.36, floor - pot * (2.5 - abs(leaf) * 0.28))
                    draw.line([(x + pot * 0.75, floor - pot), tip], fill=(86, 124, 78), width=int(5 * SCALE))
                    draw.ellipse([tip[0] - 8 * SCALE, tip[1] - 12 * SCALE, tip[0] + 8 * SCALE, tip[1] + 10 * SCALE], fill=(104, 148, 92))
                x += pot * 1.9
                continue
            lean = 0.09 * high if kind > 0.95 else 0
            draw.polygon([(x + lean, floor - high), (x + lean + thick, floor - high), (x + thick, floor), (x, floor)], fill=color)
            band = blend(color, (255, 240, 210), 0.65)
            if not lean:
                for at in (0.14, 0.8):
                    draw.rectangle([x, floor - high * at - 5 * SCALE, x + thick, floor - high * at], fill=band)
                if thick > 0.026 * w:
                    draw.rounded_rectangle([x + thick * 0.25, floor - high * 0.66, x + thick * 0.75, floor - high * 0.36], 3 * SCALE, fill=band)
            x += thick + lean + 1.5 * SCALE
    draw.rectangle([margin - 0.02 * w, 0.03 * h, margin, 0.97 * h], fill=shade)
    draw.rectangle([w - margin, 0.03 * h, w - margin + 0.02 * w, 0.97 * h], fill=shade)
    draw.rectangle([margin - 0.03 * w, 0.025 * h, w - margin + 0.03 * w, 0.055 * h], fill=wood)
    small = picture.resize((width, height), Image.LANCZOS)
    return small.quantize(64, method=Image.MEDIANCUT, dither=Image.NONE)


def village(width, height):
    w, h = width * SCALE, height * SCALE
    picture = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(picture)
    gradient(draw, (0, 0, w, h), [(10, 16, 42), (34, 44, 92), (86, 82, 132)])
    noise = random.Random(23)
    for _ in range(320):
        x, y, size = noise.random() * w, noise.random() ** 1.4 * h * 0.7, noise.choice([1, 1, 1, 2]) * SCALE
        draw.ellipse([x, y, x + size, y + size], fill=blend((255, 248, 225), (60, 66, 120), noise.random() * 0.7))
    draw.ellipse([w * 0.82, h * 0.1, w * 0.82 + h * 0.12, h * 0.22], fill=(248, 238, 208))
    draw.ellipse([w * 0.805, h * 0.085, w * 0.805 + h * 0.12, h * 0.205], fill=(17, 24, 56))
    for layer, (base, wave, color) in enumerate([(0.62, 0.06, (44, 48, 92)), (0.7, 0.05, (32, 36, 72)), (0.78, 0.03, (22, 26, 52))]):
        ridge = [(x, h * (base + wave * math.sin(x / w * (5 + layer * 2) + layer * 2.1))) for x in range(0, w + 1, 8)]
        draw.polygon([(0, h), *ridge, (w, h)], fill=color)
    # The box is in the house in the middle; the rings are what its radio reaches.
    cx, cy = w * 0.5, h * 0.72
    rings = Image.new("L", (w, h), 0)
    pen = ImageDraw.Draw(rings)
    for ring in range(1, 6):
        radius = ring * 0.085 * w
        pen.arc([cx - radius, cy - radius, cx + radius, cy + radius], 200, 340, fill=150 - ring * 22, width=3 * SCALE)
    picture.paste(Image.new("RGB", (w, h), (255, 214, 150)), mask=rings.filter(ImageFilter.GaussianBlur(1.2 * SCALE)))
    houses = [(0.12, 0.8, 0.075), (0.25, 0.76, 0.062), (0.37, 0.83, 0.085), (0.5, 0.78, 0.1), (0.64, 0.84, 0.08), (0.76, 0.77, 0.065), (0.88, 0.82, 0.08)]
    for index, (hx, hy, size) in enumerate(houses):
        x, y, s = hx * w, hy * h, size * w
        wall = (66, 54, 70) if index != 3 else (104, 78, 74)
        draw.rectangle([x - s / 2, y - s * 0.5, x + s / 2, y + s * 0.2], fill=wall)
        draw.polygon([(x - s * 0.62, y - s * 0.5), (x + s * 0.62, y - s * 0.5), (x, y - s * 0.95)], fill=(44, 32, 46))
        for side in (-0.28, 0.12):
            draw.rounded_rectangle([x + side * s, y - s * 0.34, x + (side + 0.17) * s, y - s * 0.1], 3 * SCALE, fill=(255, 206, 120))
    draw.rectangle([0, h * 0.93, w, h], fill=(14, 16, 34))
    for _ in range(500):
        x = noise.random() * w
        draw.line([(x, h * 0.935), (x + noise.uniform(-6, 6) * SCALE, h * 0.935 - noise.uniform(4, 16) * SCALE)], fill=(14, 16, 34), width=SCALE)
    # Readers outside, each with a lit page.
    for rx in (0.2, 0.31, 0.445, 0.57, 0.7, 0.83):
        x, y, s = rx * w, h * 0.935, 0.016 * w
        glow = Image.new("L", (w, h), 0)
        ImageDraw.Draw(glow).ellipse([x - s * 2, y - s * 3, x + s * 2, y + s * 0.6], fill=80)
        picture.paste(Image.new("RGB", (w, h), (255, 220, 160)), mask=glow.filter(ImageFilter.GaussianBlur(s * 0.7)))
        draw.ellipse([x - s * 0.38, y - s * 2.3, x + s * 0.38, y - s * 1.5], fill=(12, 12, 26))
        draw.pieslice([x - s * 0.8, y - s * 1.5, x + s * 0.8, y + s * 1.3], 180, 360, fill=(12, 12, 26))
        draw.polygon([(x - s * 0.5, y - s * 1.05), (x, y - s * 0.85), (x + s * 0.5, y - s * 1.05), (x + s * 0.5, y - s * 0.55), (x, y - s * 0.35), (x - s * 0.5, y - s * 0.55)], fill=(255, 240, 206))
    return picture.resize((width, height), Image.LANCZOS)


def moons(width, height):
    """The eight phases around the Earth, with the light coming from the left: a picture to teach with, in any language."""
    w, h = width * SCALE, height * SCALE
    picture = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(picture)
    gradient(draw, (0, 0, w, h), [(12, 16, 38), (24, 30, 64)])
    noise = random.Random(5)
    for _ in range(260):
        x, y = noise.random() * w, noise.random() * h
        draw.ellipse([x, y, x + SCALE, y + SCALE], fill=blend((255, 255, 240), (24, 30, 64), noise.random()))
    for ray in range(7):
        y = h * (0.14 + ray * 0.12)
        draw.line([(0, y), (w * 0.11, y)], fill=(250, 206, 110), width=3 * SCALE)
        draw.polygon([(w * 0.13, y), (w * 0.11, y - 7 * SCALE), (w * 0.11, y + 7 * SCALE)], fill=(250, 206, 110))
    cx, cy, rx, ry = w * 0.56, h * 0.5, w * 0.28, h * 0.3
    draw.ellipse([cx - rx, cy - ry, cx + rx, cy + ry], outline=(86, 96, 140), width=2 * SCALE)
    earth = h * 0.1
    draw.ellipse([cx - earth, cy - earth, cx + earth, cy + earth], fill=(70, 130, 190))
    for dx, dy, size in [(-0.35, -0.3, 0.42), (0.1, 0.15, 0.5), (-0.2, 0.5, 0.25), (0.45, -0.4, 0.25)]:
        x, y, s = cx + dx * earth, cy + dy * earth, size * earth
        draw.ellipse([x - s, y - s * 0.7, x + s, y + s * 0.7], fill=(96, 156, 104))
    dim = Image.new("L", (w, h), 0)
    ImageDraw.Draw(dim).pieslice([cx - earth, cy - earth, cx + earth, cy + earth], 270, 90, fill=150)
    picture.paste(Image.new("RGB", (w, h), (10, 14, 34)), mask=dim)
    for phase in range(8):
        # Phase 0 is new: between the light and the Earth.
        angle = math.pi + phase * math.pi / 4
        x, y = cx + rx * math.cos(angle), cy - ry * math.sin(angle)
        small = h * 0.035
        draw.ellipse([x - small, y - small, x + small, y + small], fill=(60, 64, 88))
        draw.pieslice([x - small, y - small, x + small, y + small], 90, 270, fill=(238, 230, 206))
        ox, oy = cx + (rx + w * 0.105) * math.cos(angle), cy - (ry + h * 0.125) * math.sin(angle)
        seen_moon(draw, ox, oy, h * 0.062, phase)
    return picture.resize((width, height), Image.LANCZOS)


def seen_moon(draw, x, y, radius, phase):
    """The Moon as seen from the northern half of the Earth: the right side is lit first."""
    dark, lit = (54, 58, 84), (244, 236, 210)
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=dark)
    share = math.cos(phase * math.pi / 4)
    for row in range(-int(radius), int(radius) + 1):
        half = math.sqrt(max(0.0, radius * radius - row * row))
        edge = half * share
        left, right = (edge, half) if phase <= 4 else (-half, -edge)
        if right > left:
            draw.line([(x + left, y + row), (x + right, y + row)], fill=lit)
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=(120, 124, 150), width=SCALE)


def cover(name, kind, about, arabic):
    """A portrait cover, 800 x 1200, with the title over the lighthouse's sky."""
    picture = Image.new("RGB", (800, 1200), NIGHT)
    picture.paste(lighthouse(800, 960, 0.35), (0, 240))
    draw = ImageDraw.Draw(picture)
    bold, plain = (AMIRI, AMIRI_REGULAR) if arabic else (SERIF, SERIF_REGULAR)
    options = {"direction": "rtl", "language": "ar"} if arabic else {}

    def centred(text, font, y, fill):
        draw.text((400, y), text, font=font, fill=fill, anchor="mm", **options)

    centred(name, ImageFont.truetype(bold, 104 if arabic else 92), 130, (255, 244, 220))
    centred(kind, ImageFont.truetype(plain, 56 if arabic else 46), 240, (255, 222, 170))
    for index, line in enumerate(about.split("\n")):
        centred(line, ImageFont.truetype(plain, 40 if arabic else 30), 1050 + index * 52, (232, 236, 246))
    return picture


if __name__ == "__main__":
    main()
