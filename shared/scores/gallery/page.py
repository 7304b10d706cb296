"""A gallery as a page of HTML that needs nothing beside it: no network, no script, no other file."""

from html import escape

from matplotlib import colormaps
from matplotlib.colors import to_hex

from shared.scores.gallery.cards import Answer, Card, Section
from shared.scores.gallery.pictures import COLOURS, encode_image

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1c1c; --quiet: #595959; --line: #d4d4d4;
  --right: #116329; --wrong: #b01c10; }
@media (prefers-color-scheme: dark) { :root { --paper: #161616; --ink: #ececec; --quiet: #a8a8a8; --line: #444444;
  --right: #6fce8a; --wrong: #ff9488; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 88rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .2rem; }
p { margin: .2rem 0 .7rem; max-width: 48rem; color: var(--quiet); }
p.note { color: var(--wrong); }
.scale { display: inline-block; width: 5rem; height: .7em; border: 1px solid var(--line); }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); }
.cards.of3 { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.cards.of1 { grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); }
article { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
.pictures { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: .35rem; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
figcaption, .name { font-size: .8rem; color: var(--quiet); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .7rem; margin: .4rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
"""


def format_page(title: str, facts: list[str], notes: list[str], sections: list[Section]) -> str:
    """The page. `facts` are sentences for every reader, and `notes` say what is missing on this page."""
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", "</head>", "<body>",
             f"<h1>{escape(title)}</h1>"]
    lines += [f"<p>{escape(fact)}</p>" for fact in facts]
    if any(len(card.pictures) > 1 for section in sections for card in section.cards):
        lines.append(format_legend())
    lines += [f'<p class="note">{escape(note)}</p>' for note in notes]
    for section in sections:
        lines += [f"<h2>{escape(section.title)}</h2>", f"<p>{section.describe_count()}</p>"]
        if section.cards:
            most = max(len(card.pictures) for card in section.cards)
            lines += [f'<div class="cards of{most}">', *map(format_card, section.cards), "</div>"]
    return "\n".join([*lines, "</body>", "</html>", ""])


def format_legend() -> str:
    colours = ", ".join(to_hex(colormaps[COLOURS](height)) for height in (0.25, 0.5, 0.75, 1.0))
    return ("<p>Beside each image stands the Grad-CAM of the answer: the image in grey, and over it in colours "
            f'<span class="scale" style="background: linear-gradient(to right, {colours})"></span> '
            "what spoke for the answer, the most at the bright end. Each map is scaled by itself. Where one has no "
            "colours, nothing spoke for the answer at any place.</p>")


def format_card(card: Card) -> str:
    pictures = "".join(
        f'<figure><img src="{encode_image(picture)}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(card.name if number == 0 else f"Grad-CAM, {title}")}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for number, (title, picture) in enumerate(card.pictures))
    return (f'<article><div class="pictures">{pictures}</div><dl><dt>true</dt><dd><b>{escape(card.truth)}</b></dd>'
            f'{"".join(map(format_answer, card.answers))}</dl><div class="name">{escape(card.name)}</div></article>')


def format_answer(answer: Answer) -> str:
    verdict = "right" if answer.is_right else "wrong"
    ending = "" if answer.is_right else f" (true class {100 * answer.true_share:.1f} %)"
    return (f"<dt>{escape(answer.run)}</dt><dd><b>{escape(answer.answer)}</b> with {100 * answer.share:.1f} %, "
            f'<span class="{verdict}">{verdict}</span>{ending}</dd>')
