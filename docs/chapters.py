"""Make docs/questions.md and its pictures from a book of studies: `python docs/chapters.py studies/all SEEDS`.

No idea of any question. The book is what `actograph study all --seeds SEEDS` has left; nothing is trained here. Needs the
`test` extra and Debian's chromium.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pages import draw

from actograph.study.catalog import STUDIES, make_study
from actograph.study.chapter import Chapter, Table
from actograph.study.setup import Setup
from actograph.study.study import rate_of_folder

PAGE = Path(__file__).with_name("questions.md")
PICTURES = "questions"
HEAD = """# Nine questions about training, answered by experiment

What everyone who trains a convolutional network asks, put to `{model}` on `{data}` with {seeds} seeds. The sentences are computed
from the numbers: change the network or the data (`actograph study all DATA --model FILE.py:FUNCTION`), and they change. Intervals
hold the true value with 95 % confidence; differences are between trainings with equal seeds. This page is the book of
`actograph study all --seeds {seeds}`, written by `python docs/chapters.py studies/all {seeds}`; the book itself has the figures to
zoom into. [docs/design/0009-studies.md](design/0009-studies.md) says how a study works.
"""


def main(folder: Path, seeds: int) -> None:
    setup = Setup(seeds=seeds, lr=rate_of_folder(folder / next(iter(STUDIES))))
    chapters = [make_study(name, setup).run(out=folder / name) for name in STUDIES]
    head = HEAD.format(model=setup.told_model, data=setup.told_data, seeds=seeds)
    lines = [head, *(line for chapter in chapters for line in markdown(chapter))]
    PAGE.write_text("\n".join(lines))
    names = [(chapter, position) for chapter in chapters for position in range(len(chapter.pictures))]
    draw(
        [chapter.pictures[position].figure for chapter, position in names],
        [PAGE.parent / picture_name(chapter, position) for chapter, position in names],
    )


def markdown(chapter: Chapter) -> Iterator[str]:
    yield f"## {chapter.question}\n"
    yield f"*The usual answer:* {chapter.textbook}\n"
    yield from (f"- {sentence}" for sentence in chapter.sentences)
    yield ""
    for position, picture in enumerate(chapter.pictures):
        yield f"![{picture.alt}]({picture_name(chapter, position)})\n"
        yield f"*{picture.caption}*\n"
    for table in chapter.tables:
        yield from markdown_table(table)
    yield f"*How it was measured.* {chapter.method}\n"


def markdown_table(table: Table) -> Iterator[str]:
    yield f"**{table.title}**\n"
    yield row(table.heads)
    yield row([":--", *["--:"] * (len(table.heads) - 1)])
    yield from (row(cells) for cells in table.texts)
    yield ""


def row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def picture_name(chapter: Chapter, position: int) -> str:
    return f"{PICTURES}/{chapter.name}-{position}.png"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
