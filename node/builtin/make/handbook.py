"""Binds the chapters in handbook/<language>/ into one EPUB 3 and one PDF for each language."""

import html
import os
import re
import sys
import time
import zipfile
from pathlib import Path

from weasyprint import HTML

BOOKS = {
    "en": {
        "title": "The Alexandria Handbook",
        "about": "How to use, fill and look after the library in a box: reading, adding books and media, connecting to "
        "other libraries, care of the box, and what to do when something is wrong.",
        "contents": "Contents",
        "cover": "Cover",
        "fonts": '"Noto Serif", serif',
        "size": "10pt",
    },
    "ar": {
        "title": "دليل الإسكندرية",
        "about": "كيف تستعمل المكتبة التي في صندوق وتملؤها وتعتني بها: القراءة، وإضافة الكتب والوسائط، والاتصال بمكتبات "
        "أخرى، والعناية بالصندوق، وما تفعله حين يحدث خلل.",
        "contents": "المحتويات",
        "cover": "الغلاف",
        "fonts": '"Amiri", serif',
        "size": "11.5pt",
    },
}
AUTHOR = "Alexandria"
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
DATE = time.strftime("%Y-%m-%d", time.gmtime(EPOCH))
STAMP = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))

STYLE = """body { line-height: 1.5; margin: 0 4%; }
h1 { font-size: 1.6em; line-height: 1.2; margin: 1em 0 0.8em; color: #3b2f5c; }
h2 { font-size: 1.15em; margin: 1.4em 0 0.4em; color: #3b2f5c; }
p, li { margin: 0.5em 0; }
pre, code { font-family: monospace; font-size: 0.85em; }
code { white-space: nowrap; }
pre { background: #f2ede2; padding: 0.6em 0.8em; white-space: pre-wrap; text-align: left; }
table { border-collapse: collapse; margin: 0.8em 0; width: 100%; }
th, td { border-bottom: 1px solid #cfc6b4; padding: 0.3em 0.6em; text-align: start; vertical-align: top; }
td[dir="ltr"] { text-align: end; }
nav ol { list-style-position: inside; padding: 0; }
"""


def main():
    source, library, work = (Path(argument) for argument in sys.argv[1:4])
    for language, book in BOOKS.items():
        chapters = [Chapter(path) for path in sorted((source / language).glob("*.html"))]
        cover = work / f"cover-{language}.jpg"
        epub(library / f"handbook-{language}.epub", language, book, chapters, cover)
        pdf(library / f"handbook-{language}.pdf", language, book, chapters, cover)


class Chapter:
    def __init__(self, path):
        self.name = path.stem
        # Commands and addresses run from left to right in every language.
        self.body = re.sub(r"<(pre|code)>", r'<\1 dir="ltr">', path.read_text(encoding="utf-8").strip())
        self.title = re.search(r"<h1>(.*?)</h1>", self.body).group(1)


def direction(language):
    return "rtl" if language == "ar" else "ltr"


def page(language, title, body, extra=""):
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n'
        f'<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="{language}" '
        f'xml:lang="{language}" dir="{direction(language)}">\n<head><title>{title}</title>'
        f'<link rel="stylesheet" type="text/css" href="style.css"/>{extra}</head>\n<body>\n{body}\n</body>\n</html>\n'
    )


def epub(path, language, book, chapters, cover):
    title, about = html.escape(book["title"]), html.escape(book["about"])
    links = "\n".join(f'<li><a href="{it.name}.xhtml">{it.title}</a></li>' for it in chapters)
    nav = (
        f'<nav epub:type="toc" role="doc-toc"><h1>{book["contents"]}</h1><ol>{links}</ol></nav>\n'
        '<nav epub:type="landmarks" hidden="hidden"><ol>'
        f'<li><a epub:type="cover" href="cover.xhtml">{book["cover"]}</a></li>'
        f'<li><a epub:type="bodymatter" href="{chapters[0].name}.xhtml">{chapters[0].title}</a></li></ol></nav>'
    )
    manifest = "\n".join(f'<item id="c{n}" href="{it.name}.xhtml" media-type="application/xhtml+xml"/>' for n, it in enumerate(chapters))
    spine = "\n".join(f'<itemref idref="c{n}"/>' for n, _ in enumerate(chapters))
    package = f"""<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="{language}" dir="{direction(language)}">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:alexandria:handbook:{language}:1</dc:identifier>
<dc:title>{title}</dc:title>
<dc:language>{language}</dc:language>
<dc:creator id="by">{AUTHOR}</dc:creator><meta refines="#by" property="role" scheme="marc:relators">aut</meta>
<dc:publisher>{AUTHOR}</dc:publisher>
<dc:date>{DATE}</dc:date>
<dc:description>{about}</dc:description>
<dc:rights>MIT</dc:rights>
<meta property="dcterms:modified">{STAMP}</meta>
<meta name="cover" content="cover-picture"/>
<meta property="schema:accessMode">textual</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta>
<meta property="schema:accessibilityHazard">none</meta>
<meta property="schema:accessibilitySummary">Text with headings and a table of contents.</meta>
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="style" href="style.css" media-type="text/css"/>
<item id="cover-picture" href="cover.jpg" media-type="image/jpeg" properties="cover-image"/>
<item id="cover" href="cover.xhtml" media-type="application/xhtml+xml"/>
{manifest}
</manifest>
<spine page-progression-direction="{direction(language)}">
<itemref idref="cover"/>
{spine}
</spine>
</package>
"""
    picture = f'<div style="text-align:center"><img src="cover.jpg" alt="{title}" style="max-width:100%;max-height:98vh"/></div>'
    files = [
        ("META-INF/container.xml", '<?xml version="1.0"?>\n<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
         '<rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>\n'),
        ("EPUB/package.opf", package),
        ("EPUB/nav.xhtml", page(language, book["contents"], nav)),
        ("EPUB/style.css", STYLE),
        ("EPUB/cover.xhtml", page(language, title, picture)),
        *[(f"EPUB/{it.name}.xhtml", page(language, it.title, it.body)) for it in chapters],
    ]
    with zipfile.ZipFile(path, "w") as archive:
        add(archive, "mimetype", b"application/epub+zip", zipfile.ZIP_STORED)
        for name, text in files:
            add(archive, name, text.encode("utf-8"), zipfile.ZIP_DEFLATED)
        add(archive, "EPUB/cover.jpg", cover.read_bytes(), zipfile.ZIP_STORED)


def add(archive, name, data, method):
    entry = zipfile.ZipInfo(name, time.gmtime(EPOCH)[:6])
    entry.compress_type = method
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    archive.writestr(entry, data, compresslevel=9)


def pdf(path, language, book, chapters, cover):
    style = f"""{STYLE}
@page {{ size: A5; margin: 15mm 15mm 17mm; @bottom-center {{ content: counter(page); font: 9pt {book["fonts"]}; color: #777; }} }}
@page cover {{ margin: 0; background: #121c3a; @bottom-center {{ content: none; }} }}
body {{ font-family: {book["fonts"]}; font-size: {book["size"]}; line-height: 1.42; margin: 0; text-align: justify; hyphens: auto; }}
.cover {{ page: cover; text-align: center; height: 210mm; bookmark-level: none; }}
.cover img {{ height: 210mm; }}
section {{ break-before: page; }}
pre, code {{ font-family: "DejaVu Sans Mono", monospace; font-size: 8.2pt; hyphens: none; }}
h1 {{ margin-top: 0; text-align: start; }} h2 {{ break-after: avoid; text-align: start; }} pre, tr {{ break-inside: avoid; }}
a {{ color: inherit; text-decoration: none; }}
.contents li {{ margin: 0.6em 0; }}
.contents a::after {{ content: " · " target-counter(attr(href), page); color: #777; }}
.contents h1 {{ bookmark-level: none; }} h2 {{ bookmark-level: none; }}
"""
    contents = "".join(f'<li><a href="#{it.name}">{it.title}</a></li>' for it in chapters)
    sections = "".join(f'<section id="{it.name}">{it.body}</section>' for it in chapters)
    text = (
        f'<!DOCTYPE html><html lang="{language}" dir="{direction(language)}"><head><title>{book["title"]}</title>'
        f'<meta name="author" content="{AUTHOR}"><meta name="description" content="{html.escape(book["about"])}">'
        f'<meta name="dcterms.created" content="{STAMP}"><meta name="dcterms.modified" content="{STAMP}">'
        f'<style>{style}</style></head><body><div class="cover"><img src="{cover.as_uri()}" alt=""></div>'
        f'<section class="contents"><h1>{book["contents"]}</h1><ol>{contents}</ol></section>{sections}</body></html>'
    )
    HTML(string=text).write_pdf(path, pdf_identifier=f"alexandria-handbook-{language}-1".encode())


if __name__ == "__main__":
    main()
