#!/bin/sh
# Makes everything in ../library, from nothing but what stands in this folder.
#
# Needs: python3 with venv, ffmpeg (with libx264 and libmp3lame), espeak-ng, Java (for epubcheck), and the fonts of
# Debian's fonts-noto-core, fonts-hosny-amiri and fonts-dejavu-core. Made with Debian 12's versions; the pictures and the
# EPUBs come out the same to the byte, the PDFs, sound and video as far as the versions of these tools are the same.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
library=$work/library
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
python=$work/venv/bin/python
# The date inside the files: this edition of the handbook, not the day somebody ran this.
export SOURCE_DATE_EPOCH=1767225600

mkdir -p "$library"
"$python" "$here/pictures.py" "$library" "$work"
"$python" "$here/handbook.py" "$here/handbook" "$library" "$work"
"$python" "$here/recordings.py" "$library" "$work"

for book in "$library"/*.epub; do
    "$python" -m epubcheck "$book"
done
bytes=$(cat "$library"/* | wc -c)
echo "the library takes $bytes bytes"
test "$bytes" -lt 3000000
# Only a whole library takes the place of the one before.
mkdir -p "$here/../library"
cp "$library"/* "$here/../library/"
