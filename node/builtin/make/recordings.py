"""Makes the built-in recording (a spoken welcome over a few soft notes) and the film (sunrise at the lighthouse)."""

import subprocess
import sys
from pathlib import Path

from pictures import lighthouse

WELCOME = (
    "Welcome to Alexandria, a library in a box. "
    "Everything that you find here is kept in this room, or very near it. "
    "You can read, listen and watch, without the internet. "
    "Type a word to search, or simply look along the shelves. "
    "When you find something that you like, take a copy home. "
    "And if you have something to share, a lesson, a story, a song: bring it to the librarian. "
    "There is room for it here."
)
# A slow arpeggio of an added-ninth chord, each note fading like a plucked string.
NOTES = [261.63, 329.63, 392.0, 493.88, 587.33, 493.88, 392.0, 329.63]
FRAMES, RATE = 120, 12


def main():
    library, work = Path(sys.argv[1]), Path(sys.argv[2])
    sound(library, work)
    film(library, work)


def sound(library, work):
    voice = work / "voice.wav"
    run("espeak-ng", "-v", "en-gb", "-s", "142", "-p", "40", "-g", "6", "-w", voice, WELCOME)
    chapters = work / "chapters.txt"
    chapters.write_text(
        ";FFMETADATA1\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=9000\ntitle=Welcome\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=9000\nEND=32000\ntitle=What you can do\n",
        encoding="utf-8",
    )
    music = notes(seconds=34, level=0.10)
    run(
        "ffmpeg", "-y", "-v", "error", "-i", voice, "-f", "lavfi", "-i", music, "-i", chapters, "-i", work / "cover-sound.jpg",
        "-filter_complex",
        "[0:a]aresample=44100,highpass=f=90,lowpass=f=7000,aecho=0.9:0.5:40:0.15,adelay=1800,apad=pad_dur=2.5[voice];"
        "[1:a]afade=t=in:d=0.4[music];[voice][music]amix=inputs=2:duration=first:normalize=0,"
        "loudnorm=I=-18:TP=-2,afade=t=out:st=29:d=3,aresample=44100[out]",
        "-map", "[out]", "-map", "3:v", "-map_metadata", "2", "-map_chapters", "2", "-t", "32", "-ac", "1",
        "-c:a", "libmp3lame", "-b:a", "56k", "-c:v", "copy", "-disposition:v", "attached_pic",
        "-metadata:s:v", "title=Album cover", "-metadata:s:v", "comment=Cover (front)",
        "-metadata", "title=Welcome to Alexandria", "-metadata", "artist=Alexandria", "-metadata", "language=eng",
        "-metadata", "date=2026", "-metadata", "comment=A short welcome, spoken by the library itself.",
        "-id3v2_version", "3", "-fflags", "+bitexact", "-flags:a", "+bitexact", library / "welcome.mp3",
    )


def film(library, work):
    for index in range(FRAMES):
        share = index / (FRAMES - 1)
        # Slow at both ends.
        dawn = share * share * (3 - 2 * share)
        lighthouse(640, 360, 0.35 + share * 1.5, dawn).save(work / f"frame-{index:03}.png")
    run(
        "ffmpeg", "-y", "-v", "error", "-framerate", str(RATE), "-i", work / "frame-%03d.png", "-f", "lavfi",
        "-i", notes(seconds=10, level=0.22), "-t", "10", "-c:v", "libx264", "-preset", "veryslow", "-crf", "25",
        "-profile:v", "main", "-pix_fmt", "yuv420p", "-r", "24", "-threads", "1", "-c:a", "aac", "-b:a", "64k",
        "-af", "afade=t=out:st=8:d=2", "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact",
        "-flags:a", "+bitexact", "-metadata", "title=Sunrise at the lighthouse", "-metadata", "artist=Alexandria",
        "-metadata", "date=2026", "-metadata", "description=Ten seconds of morning at the lighthouse of Alexandria.",
        "-metadata:s:a", "language=eng", library / "sunrise.mp4",
    )


def notes(seconds, level):
    """An ffmpeg source: one note each half second, with a soft octave above it."""
    terms = []
    for index, pitch in enumerate(NOTES):
        since = f"mod(t-{index * 0.5}+{len(NOTES) * 0.5},{len(NOTES) * 0.5})"
        terms.append(f"exp(-1.7*{since})*(sin(2*PI*{pitch}*t)+0.25*sin(4*PI*{pitch}*t))")
    expression = f"{level}*({'+'.join(terms)})"
    return f"aevalsrc='{expression}':s=44100:d={seconds}"


def run(*arguments):
    subprocess.run([str(argument) for argument in arguments], check=True)


if __name__ == "__main__":
    main()
