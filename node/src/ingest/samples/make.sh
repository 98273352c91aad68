#!/bin/sh
# Makes the recordings and videos that the tests of this folder's module read: a second or six of a tone, tagged.
# Needs ffmpeg with libmp3lame, libvorbis, libopus, libx264 and libvpx. The outputs are committed; run it only to add one.
set -eu
cd "$(dirname "$0")"
tone='-f lavfi -i sine=frequency=440:duration=1:sample_rate=16000'
# Long enough that half of it is more than one frame.
long='-f lavfi -i sine=frequency=440:duration=6:sample_rate=16000'
moving='-f lavfi -i testsrc=size=64x48:rate=5:duration=1'
tags='-metadata title=Tone -metadata artist=Ana -metadata date=2024 -metadata language=fre -fflags +bitexact -flags +bitexact'
printf ';FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1000\ntitle=Two\n' > chapters.txt
make() { ffmpeg -y -v error "$@"; }
make $long -i chapters.txt -map 0:a -map_chapters 1 $tags -c:a libmp3lame -b:a 24k tone.mp3
make $tone -i chapters.txt -map 0:a -map_chapters 1 $tags -metadata:s:a language=fre -c:a aac -b:a 24k tone.m4a
make $tone $tags -c:a libvorbis -b:a 32k tone.ogg
make $tone $tags -c:a libopus -b:a 16k tone.opus
make $long $tags -c:a flac tone.flac
both="$moving $tone -i chapters.txt -map 0:v -map 1:a -map_chapters 2 $tags -metadata:s:a language=fre"
make $both -c:v libx264 -pix_fmt yuv420p -c:a aac -b:a 24k -movflags +faststart tone.mp4
make $both -c:v libvpx -b:v 40k -c:a libopus -b:a 16k tone.webm
make $both -c:v libx264 -pix_fmt yuv420p -c:a libopus -b:a 16k tone.mkv
rm chapters.txt
