"""An image as one page of HTML: its layers, where the bytes are, what is new in it."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import html
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eggcrate.image.difference import (
    Difference,
    Distribution,
    Upgrade,
    difference,
    distributions,
    rolled_up,
    signed,
    summary,
    tree,
    versions,
)
from eggcrate.image.layers import Layer
from eggcrate.image.layout import Image
from eggcrate.image.plan import FileEntry, FileType, printable
from eggcrate.image.words import amount

# How many rows a table shows at once; what is left can be unfolded, or isn't told.
_DISTRIBUTIONS = 15
_MORE_DISTRIBUTIONS = 400
_FILES = 20
_PATHS = 60
# up to so many changed paths are shown unfolded
_FEW_PATHS = 15

# The colours' meaning: the first word of an entry's group.
_KINDS = {
    "packages": "operating system",
    "python": "interpreter",
    "egg": "distributions",
    "environment": "environments",
    "data": "data",
    "develop": "own code",
    "configuration": "configuration",
    "other": "other",
}

_FILE_TYPES = (
    ("Python source", r"\.pyi?"),
    ("Byte-code", r"\.py[co]"),
    ("Shared libraries", r"\.so(\.[0-9.]+)?"),
    ("Translations", r"\.(mo|po|pot)"),
    (
        "Web",
        r"\.(js|mjs|css|scss|less|html?|map|svg|png|jpe?g|gif|ico|webp|woff2?|ttf|eot|otf)",
    ),
    ("Templates", r"\.(pt|zpt|jinja2?|mako|cpt|zcml|djt|in)"),
    ("C and Cython source", r"\.(c|h|cc|cpp|hpp|pxd|pyx|pxi|a|o|f|f90|rs)"),
    ("Text", r"\.(txt|rst|md|json|xml|toml|cfg|ini|conf|ya?ml|csv|tsv|dtd|xsd|xsl)"),
    ("Certificates", r"\.(pem|crt|cer)"),
    ("Archives", r"\.(zip|gz|bz2|xz|zst|tar|tgz|whl|jar)"),
)
_TYPE_OF = tuple((name, re.compile(rf".+?({ending})")) for name, ending in _FILE_TYPES)


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: where it begins, how wide and how high it is."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Its area."""
        return self.width * self.height


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """One box inside ``box`` for each of ``sizes``, with an area in proportion to it.

    They come out as square as possible where the sizes, all greater than 0, descend
    (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).
    """
    boxes: list[Box] = []
    total = sum(sizes)
    areas = [size * box.area / total for size in sizes] if total else []
    x, y, width, height = box.x, box.y, box.width, box.height
    while len(boxes) < len(areas):
        side = min(width, height)
        first = last = len(boxes)
        row = 0.0
        worst = float("inf")
        while last < len(areas):
            longer = row + areas[last]
            # the ratio of the sides of the box in the row that is least square
            ratio = max(
                side * side * areas[first] / longer**2, longer**2 / (side * side * areas[last])
            )
            if ratio > worst:
                break
            row, worst, last = longer, ratio, last + 1
        depth = row / side
        along = 0.0
        for area in areas[first:last]:
            length = area / depth
            if width >= height:
                boxes.append(Box(x, y + along, depth, length))
            else:
                boxes.append(Box(x + along, y, length, depth))
            along += length
        if width >= height:
            x, width = x + depth, max(width - depth, 1e-9)
        else:
            y, height = y + depth, max(height - depth, 1e-9)
    return boxes


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Something that takes bytes, and what it is made of, the largest first.

    Where ``path`` is set the name is a path below the ``top`` of what it is inside of; of
    such a name the end tells most.
    """

    name: str
    size: int
    kind: str
    inside: tuple[Block, ...] = ()
    version: str = ""
    top: str = ""
    path: bool = False

    @property
    def title(self) -> str:
        """Its name, with the version if it has one."""
        return f"{self.name} {self.version}".rstrip()


def _kind(entry: FileEntry) -> str:
    kind = entry.group.partition(" ")[0]
    return kind if kind in _KINDS else "other"


def _largest_kind(entries: Iterable[FileEntry]) -> str:
    """The kind to which most of the bytes belong."""
    sizes: collections.Counter[str] = collections.Counter()
    for entry in entries:
        sizes[_kind(entry)] += entry.size
    return min(sizes, key=lambda kind: (-sizes[kind], kind), default="other")


def _descending(blocks: Iterable[Block]) -> tuple[Block, ...]:
    return tuple(sorted(blocks, key=lambda block: (-block.size, block.name)))


def blocks(image: Image) -> tuple[Block, ...]:
    """The layers, the distributions in each, and the directories of the largest."""
    total = _unpacked(image)
    owners = distributions(tree(image))
    found = []
    for layer in image.layers:
        members: dict[tuple[str, str], list[FileEntry]] = collections.defaultdict(list)
        for entry in layer.plan.entries:
            if entry.size:
                members[_owner(entry, owners)].append(entry)
        inside = []
        for (name, version), entries in members.items():
            size = sum(entry.size for entry in entries)
            top = ""
            directories: tuple[Block, ...] = ()
            if size >= total / _LEAST_OPENED:
                top, directories = _directories(entries, 4 + 48 * size // total)
            kind = _largest_kind(entries)
            inside.append(Block(name, size, kind, directories, version, top))
        top, parts = "", _descending(inside)
        if len(parts) == 1:
            top, parts = parts[0].top, parts[0].inside
        kind = _largest_kind(layer.plan.entries)
        found.append(Block(layer.plan.name, layer.plan.size, kind, parts, top=top))
    return _descending(found)


def _owner(entry: FileEntry, owners: Mapping[str, Distribution]) -> tuple[str, str]:
    """What an entry belongs to: a distribution's name and version, or a group's name."""
    if entry.path in owners:
        return owners[entry.path].name, owners[entry.path].version
    return entry.group.partition(" ")[2] or entry.group, ""


def _directories(entries: Sequence[FileEntry], most: int) -> tuple[str, tuple[Block, ...]]:
    """The directories, at most ``most``, that show best where the bytes of entries are.

    The largest is opened again and again, unless most of it is in many small pieces; what
    is small in an open one stays together as ``*``.  With them comes the directory that
    has them all.
    """
    kind = _largest_kind(entries)
    total = sum(entry.size for entry in entries)
    common = posixpath.commonpath([posixpath.dirname(entry.path) for entry in entries])
    strip = len(common) + 1 if common else 0
    done: list[Block] = []
    waiting = [(-total, common, list(entries))]
    while waiting and (room := most - len(done) - len(waiting)) > 0:
        size, top, members = heapq.heappop(waiting)
        inside: dict[str, list[FileEntry]] = collections.defaultdict(list)
        for entry in members:
            head, slash, _ = entry.path[len(top) + 1 if top else 0 :].partition("/")
            inside[head + slash].append(entry)
        sizes = {name: sum(entry.size for entry in inside[name]) for name in inside}
        largest = sorted(inside, key=lambda name: (-sizes[name], name))[:room]
        big = [name for name in largest if sizes[name] >= total / 50]
        left = -size - sum(sizes[name] for name in big)
        if 2 * left > -size:
            done.append(Block(f"{top[strip:]}/", -size, kind, path=True))
            continue
        for name in big:
            path = posixpath.join(top, name)
            if name.endswith("/"):
                heapq.heappush(waiting, (-sizes[name], path.rstrip("/"), inside[name]))
            else:
                done.append(Block(path[strip:], sizes[name], kind, path=True))
        if left:
            done.append(Block(posixpath.join(top[strip:], "*"), left, kind, path=True))
    done.extend(Block(f"{top[strip:]}/", -size, kind, path=True) for size, top, _ in waiting)
    return common, _descending(done) if len(done) > 1 else ()


# Widths of letters in the widest of the usual sans-serif fonts, in thousandths of its size
_NARROW = dict.fromkeys("iljI.,:;|!'`", 320) | dict.fromkeys('ftr()[]/- *"', 420)
_WIDE = dict.fromkeys("mwMW@%", 990) | dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&+=~<>", 800)
_LETTERS = {**_NARROW, **_WIDE}


def _width(text: str, size: float) -> float:
    """How wide a text is at the most."""
    return sum(_LETTERS.get(x, 645 if x.isascii() else 1100) for x in text) * size / 1000


def _absolute(top: str, block: Block) -> str:
    """A block's title, or its whole path."""
    return posixpath.join("/", top, block.name) if block.path else block.title


_MORE = "\N{HORIZONTAL ELLIPSIS}"


def _fitting(block: Block, width: float, size: float) -> str:
    """As much of a block's name as fits, or nothing; of a path rather the end."""
    names = [block.title, block.name]
    if block.path:
        parts = block.name.rstrip("/").split("/")
        last = len(parts) - (parts[-1] == "*")
        names += [f"{_MORE}/{'/'.join(parts[first:])}" for first in range(1, last)]
        names.append(parts[-1])
    # no box has room for more letters
    shortest = printable(names[-1])[:250]
    names += [shortest[:end].rstrip() + _MORE for end in range(len(shortest) - 1, 2, -1)]
    return next((name for name in names if _width(printable(name), size) <= width), "")


_LABEL = 11.5
_SMALL = 10.5
_HEAD = 12.5
# One part in so many of an image is large enough to show what is in it.
_LEAST_OPENED = 80
# Below this area (in units of the drawing) boxes are drawn as one.
_LEAST = 110.0


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _rect(box: Box, css: str, radius: float = 0) -> str:
    corner = f' rx="{_number(radius)}"' if radius else ""
    return (
        f'<rect class="{css}" x="{_number(box.x)}" y="{_number(box.y)}" '
        f'width="{_number(box.width)}" height="{_number(box.height)}"{corner}/>'
    )


def _words(x: float, y: float, css: str, text: str) -> str:
    return f'<text class="{css}" x="{_number(x)}" y="{_number(y)}">{_escape(text)}</text>'


class _Treemap:
    """Draws blocks into a box; ``total`` is what all of the image takes."""

    def __init__(self, total: int) -> None:
        self._total = total

    def drawn(self, layers: Sequence[Block], box: Box) -> Iterator[str]:
        layers = [layer for layer in layers if layer.size]
        for layer, place in zip(
            layers, squarify([layer.size for layer in layers], box), strict=True
        ):
            yield from self._layer(layer, place)

    def _group(self, css: str, size: int, title: str) -> str:
        what = f"{title}: {amount(size)}, {share(size, self._total)}"
        return f'<g class="{css}" data-size="{size}"><title>{_escape(what)}</title>'

    def _layer(self, layer: Block, box: Box) -> Iterator[str]:
        yield self._group(f"layer {layer.kind}", layer.size, layer.name)
        yield _rect(box, "frame", 5)
        inner = Box(box.x + 3, box.y + 3, box.width - 6, box.height - 6)
        if inner.width > 70 and inner.height > 52:
            yield from self._head(layer, inner, _HEAD, "head", 17)
            inner = Box(inner.x, inner.y + 22, inner.width, inner.height - 22)
        if inner.width > 4 and inner.height > 4:
            yield from self._inside(layer, layer.name, inner)
        yield "</g>"

    def _head(
        self, block: Block, box: Box, font: float, css: str, baseline: float
    ) -> Iterator[str]:
        """The name of a block, and its size behind it."""
        size = amount(block.size)
        room = box.width - 12
        name = _fitting(block, room, font * 1.08)
        yield _words(box.x + 6, box.y + baseline, css, name)
        taken = _width(name, font * 1.08) + 14
        if taken + _width(size, _SMALL) <= room:
            yield (
                f'<text class="size end" x="{_number(box.x + box.width - 6)}" '
                f'y="{_number(box.y + baseline)}">{size}</text>'
            )

    def _inside(self, block: Block, title: str, box: Box) -> Iterator[str]:
        if not block.inside:
            yield _rect(box, "fill", 3)
            return
        parts = _legible_parts(block.inside, box)
        for part, place in zip(
            parts, squarify([part.size for part in parts], box), strict=True
        ):
            name = f"{title} \N{MIDDLE DOT} {_absolute(block.top, part)}"
            if part.inside and place.width > 96 and place.height > 70:
                yield self._group(f"part {part.kind}", part.size, name)
                yield _rect(place, "frame", 3)
                yield from self._head(part, place, _LABEL, "name", 15)
                inner = Box(place.x + 2, place.y + 20, place.width - 4, place.height - 22)
                yield from self._inside(part, name, inner)
                yield "</g>"
            else:
                yield from self._cell(part, name, place)

    def _cell(self, block: Block, title: str, box: Box) -> Iterator[str]:
        yield self._group(f"cell {block.kind}", block.size, title)
        yield _rect(box, "fill", 3)
        room = box.width - 11
        name = _fitting(block, room, _LABEL)
        if name and box.height >= 20:
            yield _words(box.x + 6, box.y + 15, "name", name)
            size = amount(block.size)
            if box.height >= 36 and _width(size, _SMALL) <= room:
                yield _words(box.x + 6, box.y + 29, "size", size)
        yield "</g>"


def _legible_parts(parts: Sequence[Block], box: Box) -> list[Block]:
    """The parts that are large enough to be seen, and what is left as one."""
    parts = [part for part in parts if part.size]
    total = sum(part.size for part in parts)
    seen = [part for part in parts if part.size * box.area / total >= _LEAST]
    left = parts[len(seen) :]
    if len(left) > 1:
        rest = Block(f"{len(left)} smaller", sum(part.size for part in left), left[0].kind)
        return list(_descending((*seen, rest)))
    return parts


def share(size: int, total: int) -> str:
    """A part of a whole, in per cent."""
    part = 100 * size / total if total else 0.0
    if 0 < part < 0.05:
        return "under 0.1 %"
    return f"{part:.1f} %"


def _unpacked(image: Image) -> int:
    return sum(layer.plan.size for layer in image.layers)


def _is_file(entry: FileEntry) -> bool:
    return entry.type is not FileType.DIRECTORY


# The class of a treemap's drawing, its width and height; a page shows the one that fits it.
_DRAWINGS = (("wide", 1080, 600), ("medium", 720, 660), ("narrow", 380, 700))


def report(image: Image, previous: Image | None) -> str:
    """The page for an image, compared with the image of the last build, if there is one.

    It loads nothing from elsewhere, and the same images give the same page.
    """
    entries = tree(image)
    changes = difference(previous, image)
    name = image.references[0].familiar if image.references else image.manifest.digest
    body = "\n".join(
        (
            _header(image, name, entries, changes),
            "<main>",
            _where(image),
            _layers(image, changes),
            _since(changes),
            _distributions(entries),
            _largest_files(image),
            _file_types(entries.values()),
            "</main>",
        )
    )
    return _PAGE.format(title=_escape(name), style=_STYLE, body=body, script=_SCRIPT)


_SECTIONS = (
    ("where", "Where the bytes are"),
    ("layers", "Layers"),
    ("since", "Since the last build"),
    ("distributions", "Distributions"),
    ("files", "Largest files"),
    ("types", "File types"),
)


def _section(key: str, *content: str) -> str:
    title = dict(_SECTIONS)[key]
    return (
        f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n'
        + "\n".join(content)
        + "\n</section>"
    )


def _header(
    image: Image, name: str, entries: Mapping[str, FileEntry], changes: Difference
) -> str:
    also = [reference.familiar for reference in image.references[1:]]
    files = sum(map(_is_file, entries.values()))
    totals = [
        (amount(image.size), "compressed"),
        (amount(_unpacked(image)), "unpacked"),
        (f"{files:,}", "files"),
        (f"{len(image.layers)}", "layers"),
    ]
    if changes.before is not None:
        totals.append((amount(changes.push), "new since the last build"))
    facts = [str(image.platform)]
    if also:
        facts.insert(0, f"also {', '.join(also)}")
    known = " \N{MIDDLE DOT} ".join(map(_escape, facts))
    numbers = "".join(
        f"<div><dt>{caption}</dt><dd>{_amount_html(number)}</dd></div>"
        for number, caption in totals
    )
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in _SECTIONS)
    return f"""<header>
<p class="kicker">Image report</p>
<h1><bdi>{_breakable(name)}</bdi></h1>
<p class="facts">{known}</p>
<p class="digest"><code>{_escape(image.manifest.digest)}</code></p>
<dl class="totals">{numbers}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>"""


def _breakable(name: str) -> str:
    """A name that may be broken behind a slash."""
    return _escape(name).replace("/", "/<wbr/>")


def _amount_html(text: str) -> str:
    number, _, unit = text.partition(" ")
    return f"{number}<small> {unit}</small>" if unit else number


def _where(image: Image) -> str:
    layers = blocks(image)
    total = _unpacked(image)
    kinds: collections.Counter[str] = collections.Counter()
    for layer in image.layers:
        for entry in layer.plan.entries:
            kinds[_kind(entry)] += entry.size
    legend = "".join(
        f'<li><span class="swatch {kind}"></span>{_KINDS[kind]}'
        f" <small>{amount(kinds[kind])}</small></li>"
        for kind in _KINDS
        if kinds[kind]
    )
    treemap = _Treemap(total)
    drawings = "\n".join(
        f'<svg class="map {css}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Treemap of the layers; the list below it has the same numbers">'
        f"{''.join(treemap.drawn(layers, Box(0, 0, width, height)))}</svg>"
        for css, width, height in _DRAWINGS
        if total
    )
    return _section(
        "where",
        f'<ul class="legend">{legend}</ul>',
        f'<figure id="treemap">\n{drawings}',
        '<figcaption class="readout">Areas are in proportion to unpacked bytes; '
        "* is the rest of a directory.</figcaption>",
        "</figure>",
        f"<details><summary>The same as a list</summary>\n{_list(layers, total)}\n</details>",
    )


def _list(layers: Sequence[Block], total: int, depth: int = 0) -> str:
    shown = [block for block in layers if not depth or block.size >= total / 500]
    left = layers[len(shown) :]
    if len(left) == 1:
        shown, left = list(layers), ()
    items = [
        f"<li><bdi>{_escape(block.title)}</bdi> <small>{amount(block.size)}, "
        f"{share(block.size, total)}</small>"
        f"{_inside_of(block)}"
        f"{_list(block.inside, total, depth + 1) if block.inside else ''}</li>"
        for block in shown
    ]
    if left:
        size = sum(block.size for block in left)
        items.append(
            f"<li>{len(left)} smaller <small>{amount(size)}, {share(size, total)}</small></li>"
        )
    return f'<ul class="tree">{"".join(items)}</ul>'


def _inside_of(block: Block) -> str:
    if not block.top or not block.inside:
        return ""
    return f" <small>in <bdi>/{_breakable(block.top)}</bdi></small>"


def _table(
    caption: str,
    heads: Sequence[tuple[str, str]],
    rows: Iterable[str],
    foot: str = "",
) -> str:
    """A table of rows that are HTML; ``heads`` are classes of columns and their titles."""
    head = "".join(
        f'<th scope="col" class="{css}">{title}</th>' if title else f'<td class="{css}"></td>'
        for css, title in heads
    )
    body = "\n".join(rows)
    end = f"\n<tfoot>{foot}</tfoot>" if foot else ""
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>{end}\n</table>"
    )


def _layers(image: Image, changes: Difference) -> str:
    was = {id(after): before for before, after in changes.layers.changed}
    kept = {id(layer) for layer in changes.layers.kept}

    def state(layer: Layer) -> str:
        if changes.before is None:
            return ""
        answer = '<span class="new">new</span>'
        if id(layer) in kept:
            answer = '<span class="same">no</span>'
        elif id(layer) in was:
            before = amount(was[id(layer)].descriptor.size)
            answer = f'<span class="turn">yes</span> <small>was {before}</small>'
        return f'<td class="state">{answer}</td>'

    rows = []
    for number, layer in enumerate(image.layers, 1):
        kind = _largest_kind(layer.plan.entries)
        digest = layer.descriptor.digest.partition(":")[2][:12]
        rows.append(
            f'<tr><td class="count">{number}</td>'
            f'<th scope="row" class="layer-name"><span class="swatch {kind}"></span>'
            f"<bdi>{_escape(layer.plan.name)}</bdi> <code>{_escape(digest)}</code></th>"
            f'<td class="number">{amount(layer.descriptor.size)}</td>'
            f'<td class="number">{amount(layer.plan.size)}</td>'
            f'<td class="number extra">{sum(map(_is_file, layer.plan.entries)):,}</td>'
            f"{state(layer)}</tr>"
        )
    stored = sum(layer.descriptor.size for layer in image.layers)
    files = sum(_is_file(entry) for layer in image.layers for entry in layer.plan.entries)
    empty = '<td class="state"></td>' if changes.before is not None else ""
    foot = (
        f'<tr><td class="count"></td><th scope="row" class="layer-name">together</th>'
        f'<td class="number">{amount(stored)}</td>'
        f'<td class="number">{amount(_unpacked(image))}</td>'
        f'<td class="number extra">{files:,}</td>{empty}</tr>'
    )
    heads = [
        ("count", ""),
        ("layer-name", "Layer"),
        ("number", "Compressed"),
        ("number", "Unpacked"),
        ("number extra", "Files"),
    ]
    if changes.before is not None:
        heads.append(("state", "Changed"))
    caption = "From the bottom to the top; what changes most is on top."
    return _section("layers", _table(caption, heads, rows, foot))


_SIGNS = {"+": ("added", "plus"), "-": ("removed", "minus"), "~": ("changed", "turn")}


def _sign(sign: str) -> str:
    word, css = _SIGNS[sign]
    return f'<td class="sign"><span class="{css}">{word}</span></td>'


def _since(changes: Difference) -> str:
    if changes.before is None:
        return _section("since", "<p>There was no build before this one.</p>")
    before = changes.before.manifest.digest
    if changes.same:
        return _section("since", f"<p>Nothing differs: <code>{_escape(before)}</code></p>")
    content = [
        f'<p class="lead">{_sentence(summary(changes))}</p>',
        f'<p class="digest">before: <code>{_escape(before)}</code></p>',
    ]
    if changes.layers.gone:
        names = ", ".join(_escape(layer.plan.name) for layer in changes.layers.gone)
        content.append(f"<p>Layers that are gone: {names}</p>")
    if changes.distributions:
        content.append(_upgrades(changes.distributions))
    if changes.loose:
        rows = [
            f"<tr>{_sign(path.sign)}"
            f'<th scope="row" class="path"><bdi>{_breakable(path.path)}</bdi>'
            f"{_what(path.what)}</th>"
            f'<td class="number">{_signed(path.growth)}</td></tr>'
            for path in rolled_up(changes.loose, _PATHS)
        ]
        heads = (("sign", ""), ("path", "Path"), ("number", "Bytes"))
        table = _table("Paths that belong to none of these distributions", heads, rows)
        if not changes.distributions:
            table = _table("Paths", heads, rows)
        few = ' open="open"' if len(rows) <= _FEW_PATHS else ""
        paths = "1 path" if len(changes.loose) == 1 else f"{len(changes.loose):,} paths"
        content.append(f"<details{few}><summary>{paths}</summary>\n{table}\n</details>")
    return _section("since", *content)


def _arrows(text: str) -> str:
    return text.replace(" -&gt; ", " \N{RIGHTWARDS ARROW} ")


def _what(text: str) -> str:
    return f" <small>{_arrows(_escape(text))}</small>" if text else ""


def _sentence(text: str) -> str:
    # a number and its unit stay together
    text = re.sub(r"(?<=\d) (?=(?:bytes?|kB|MB|GB)\b)", "\N{NO-BREAK SPACE}", _escape(text))
    return f"{text[:1].upper()}{text[1:]}."


def _signed(size: int) -> str:
    return signed(size).replace("-", "\N{MINUS SIGN}") if size else ""


def _upgrades(upgrades: Sequence[Upgrade]) -> str:
    def row(upgrade: Upgrade) -> str:
        sign = "~" if upgrade.before and upgrade.after else "+" if upgrade.after else "-"
        return (
            f'<tr>{_sign(sign)}<th scope="row"><bdi>{_escape(upgrade.name)}</bdi> '
            f"<small>{_arrows(_escape(versions(upgrade)))}</small></th>"
            f'<td class="extra kind">{upgrade.kind}</td>'
            f'<td class="number">{_signed(upgrade.growth)}</td></tr>'
        )

    heads = (("sign", ""), ("", "Distribution"), ("extra kind", "Kind"), ("number", "Bytes"))
    first = _table(
        "Distributions that came, went, or have another version",
        heads,
        map(row, upgrades[:_FILES]),
    )
    rest = upgrades[_FILES:]
    return first + _unfolded("distribution", len(rest), heads, map(row, rest))


def _unfolded(
    what: str, number: int, heads: Sequence[tuple[str, str]], rows: Iterable[str]
) -> str:
    """The rows that a table does not show at once, if there are any."""
    if not number:
        return ""
    title = f"{number:,} more {what}{'s' * (number > 1)}"
    table = _table(f'<span class="unseen">{title}</span>', heads, rows)
    return f"<details><summary>{title}</summary>\n{table}\n</details>"


def _bar(size: int, most: int, kind: str) -> str:
    width = _number(max(100 * size / most, 0.4) if most else 0)
    return f'<td class="bar"><span class="{kind}" style="width:{width}%"></span></td>'


def _distributions(entries: Mapping[str, FileEntry]) -> str:
    sizes: collections.Counter[Distribution] = collections.Counter()
    numbers: collections.Counter[Distribution] = collections.Counter()
    for path, owner in distributions(entries).items():
        sizes[owner] += entries[path].size
        numbers[owner] += _is_file(entries[path])
    if not sizes:
        return _section("distributions", "<p>No file belongs to a distribution.</p>")
    total = sum(entry.size for entry in entries.values())
    order = sorted(sizes, key=lambda item: (-sizes[item], item.project, item.version))
    most = sizes[order[0]]

    def row(item: Distribution) -> str:
        kind = "egg" if item.kind == "Python" else "packages"
        return (
            f'<tr><th scope="row"><bdi>{_escape(item.name)}</bdi> '
            f"<small>{_escape(item.version)}</small></th>"
            f'<td class="extra kind">{item.kind}</td>'
            f'<td class="number extra">{numbers[item]:,}</td>'
            f'<td class="number">{amount(sizes[item])}</td>'
            f'<td class="number share">{share(sizes[item], total)}</td>'
            f"{_bar(sizes[item], most, kind)}</tr>"
        )

    heads = (
        ("", "Distribution"),
        ("extra kind", "Kind"),
        ("number extra", "Files"),
        ("number", "Unpacked"),
        ("number share", "Share"),
        ("bar", ""),
    )
    known = sum(sizes.values())
    caption = (
        f"{len(order):,} distributions, with {share(known, total)} of the image's bytes; "
        "the largest first."
    )
    rest = order[_DISTRIBUTIONS : _DISTRIBUTIONS + _MORE_DISTRIBUTIONS]
    return _section(
        "distributions",
        _table(caption, heads, map(row, order[:_DISTRIBUTIONS])),
        _unfolded("distribution", len(rest), heads, map(row, rest)),
    )


def _largest_files(image: Image) -> str:
    files = [
        (entry, layer.plan.name)
        for layer in image.layers
        for entry in layer.plan.entries
        if entry.size
    ]
    largest = sorted(files, key=lambda file: (-file[0].size, file[0].path))[:_FILES]
    rows = [
        f'<tr><th scope="row" class="path"><bdi>/{_breakable(entry.path)}</bdi> '
        f"<small>{_escape(entry.reason)}</small></th>"
        f'<td class="extra">{_escape(layer)}</td>'
        f'<td class="number">{amount(entry.size)}</td></tr>'
        for entry, layer in largest
    ]
    heads = (("path", "File, and why it is there"), ("extra", "Layer"), ("number", "Bytes"))
    total = _unpacked(image)
    size = sum(entry.size for entry, _ in largest)
    caption = f"The {len(rows)} largest have {share(size, total)} of the bytes."
    return _section("files", _table(caption, heads, rows))


def file_type(entry: FileEntry) -> tuple[str, str]:
    """What a file is, by its name and mode, and the ending that says so."""
    name = posixpath.basename(entry.path)
    for kind, ending in _TYPE_OF:
        if match := ending.fullmatch(name):
            return kind, ".so" if ".so" in match[1] else match[1]
    if entry.mode & 0o111:
        return "Programs", ""
    return "Other data", ""


def _file_types(entries: Iterable[FileEntry]) -> str:
    sizes: collections.Counter[str] = collections.Counter()
    numbers: collections.Counter[str] = collections.Counter()
    endings: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for entry in entries:
        if entry.type is FileType.REGULAR:
            kind, ending = file_type(entry)
            sizes[kind] += entry.size
            numbers[kind] += 1
            if ending:
                endings[kind][ending] += entry.size
    total = sum(sizes.values())
    most = max(sizes.values(), default=0)
    rows = []
    for kind in sorted(sizes, key=lambda name: (-sizes[name], name)):
        found = sorted(endings[kind], key=lambda name: (-endings[kind][name], name))
        rows.append(
            f'<tr><th scope="row">{kind} <small>{_escape(" ".join(found[:5]))}</small></th>'
            f'<td class="number extra">{numbers[kind]:,}</td>'
            f'<td class="number">{amount(sizes[kind])}</td>'
            f'<td class="number share">{share(sizes[kind], total)}</td>'
            f"{_bar(sizes[kind], most, 'plain')}</tr>"
        )
    heads = (
        ("", "Type"),
        ("number extra", "Files"),
        ("number", "Unpacked"),
        ("number share", "Share"),
        ("bar", ""),
    )
    return _section("types", _table("By the endings of names.", heads, rows))


# Well-formed as XML too, for tools that want to read it.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<meta name="generator" content="eggcrate"/>
<title>{title} \N{MIDDLE DOT} image report</title>
<style>
{style}</style>
</head>
<body>
{body}
<footer>Sizes are decimal: 1 MB is 1,000,000 bytes. Unpacked is what the files hold.</footer>
<script>
{script}</script>
</body>
</html>
"""

_STYLE = (
    """\
:root {
  --paper: #fcfcfa; --ink: #22252a; --soft: #5f656d; --line: #e5e5e0; --fill: #f3f3ef;
  --plus: #2c6e4f; --minus: #a2423d; --turn: #84600f; --focus: #2f62b5;
  --packages: #b7cae4; --packages-frame: #e1eaf5;
  --python: #ecd58f; --python-frame: #f8efd3;
  --egg: #aed7bd; --egg-frame: #dcefe3;
  --environment: #a3d5da; --environment-frame: #d9eef0;
  --data: #dacbb8; --data-frame: #f0e9e0;
  --develop: #f2b5a2; --develop-frame: #fbe2da;
  --configuration: #d2bde4; --configuration-frame: #ece2f4;
  --other: #cfd0cf; --other-frame: #ebebea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17191c; --ink: #e6e7e8; --soft: #a0a6ad; --line: #2d3136; --fill: #1f2226;
    --plus: #7fc8a2; --minus: #e79a93; --turn: #d9b564; --focus: #8ab4f8;
    --packages: #3c5373; --packages-frame: #243144;
    --python: #6a5923; --python-frame: #3b331a;
    --egg: #305c48; --egg-frame: #1f382d;
    --environment: #285c62; --environment-frame: #1b383c;
    --data: #584c3d; --data-frame: #342e26;
    --develop: #7a4234; --develop-frame: #452a23;
    --configuration: #57446c; --configuration-frame: #342a40;
    --other: #4b4e52; --other-frame: #2e3033;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: auto; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 56px 40px 72px; max-width: 1160px;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
code { font: 0.86em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
small { font-size: 0.86em; color: var(--soft); }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 4px; }
a:hover { text-decoration-color: currentColor; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 3px; border-radius: 3px; }

.kicker { margin: 0; color: var(--soft); font-size: 13px; }
h1 { margin: 4px 0 6px; font-size: 36px; line-height: 1.15; font-weight: 650;
  letter-spacing: -0.02em; }
.facts, .digest { margin: 0; color: var(--soft); }
.digest { font-size: 14px; }
.totals { display: flex; flex-wrap: wrap; gap: 20px 56px; margin: 36px 0 0; }
.totals div { display: flex; flex-direction: column-reverse; }
.totals dt { color: var(--soft); font-size: 13px; }
.totals dd { margin: 0; font-size: 30px; line-height: 1.2; font-weight: 600;
  letter-spacing: -0.02em; }
.totals small { font-size: 17px; font-weight: 500; letter-spacing: 0; }
nav { margin-top: 32px; padding: 12px 0; border: solid var(--line); border-width: 1px 0; }
nav ul, .legend { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 0; padding: 0;
  list-style: none; }
nav li { font-size: 14px; }

section { margin-top: 60px; }
h2 { margin: 0 0 14px; font-size: 21px; line-height: 1.3; font-weight: 650;
  letter-spacing: -0.01em; scroll-margin-top: 24px; }
p { margin: 0 0 10px; max-width: 46em; }
.lead { font-size: 17px; }
section > .digest { margin-bottom: 22px; }
.legend { margin: 0 0 14px; font-size: 13px; }
.swatch { display: inline-block; width: 11px; height: 11px; margin-right: 7px;
  border-radius: 3px; background: var(--c); }

figure { margin: 0 0 12px; }
.map { display: none; width: 100%; height: auto; }
.wide { display: block; }
.map text { fill: var(--ink); font-size: 11.5px; pointer-events: none; }
.map .head { font-size: 12.5px; font-weight: 600; }
.map .size { font-size: 10.5px; opacity: 0.72; }
.map .end { text-anchor: end; }
.map rect { stroke: var(--paper); }
.map .frame { fill: var(--f); stroke-width: 3; }
.map .part > .frame { fill: var(--c); stroke: var(--f); stroke-width: 1.5; opacity: 0.62; }
.map .fill { fill: var(--c); stroke: var(--f); stroke-width: 1.5; }
.map .cell:hover > .fill { stroke: var(--ink); stroke-width: 1.25; }
.readout { margin-top: 10px; min-height: 1.5em; font-size: 14px; color: var(--soft); }

table { width: 100%; border-collapse: collapse; font-size: 14px; }
caption { padding: 0 0 10px; text-align: left; color: var(--soft); }
th, td { padding: 8px 24px 8px 0; text-align: left; vertical-align: baseline;
  border-bottom: 1px solid var(--line); font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
thead th, thead td { padding-top: 4px; font-size: 13px; color: var(--soft);
  border-bottom-color: var(--soft); white-space: nowrap; }
tbody th { font-weight: 550; }
tfoot th, tfoot td { border-bottom: 0; color: var(--soft); }
tbody tr:hover { background: var(--fill); }
th small, th code { font-weight: 400; color: var(--soft); }
th code { margin-left: 8px; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
.count { width: 1%; padding-right: 12px; color: var(--soft); text-align: right;
  white-space: nowrap; }
.sign { width: 1%; white-space: nowrap; }
.kind { white-space: nowrap; }
.layer-name { padding-left: 18px; }
.layer-name .swatch { margin-left: -18px; }
.state { width: 21%; padding-left: 16px; }
.state small { display: inline-block; white-space: nowrap; }
.path { font-weight: 400; }
.path small { display: block; }
.bar { width: 30%; min-width: 90px; }
.bar span { display: block; height: 9px; border-radius: 3px; background: var(--c);
  min-width: 2px; }
.same { color: var(--soft); }
.turn { color: var(--turn); }
.new, .plus { color: var(--plus); }
.minus { color: var(--minus); }

details { margin-top: 14px; }
summary { width: fit-content; padding: 4px 0; font-size: 14px; color: var(--soft);
  cursor: pointer; }
summary:hover { color: var(--ink); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
details caption { padding-top: 8px; }
details caption:has(.unseen) { padding: 0; }
.tree { margin: 6px 0; padding-left: 22px; font-size: 14px; list-style: none; }
.tree small:first-of-type { white-space: nowrap; }
.tree .tree { margin: 0 0 6px; border-left: 1px solid var(--line); }
footer { margin-top: 64px; padding-top: 14px; border-top: 1px solid var(--line);
  font-size: 13px; color: var(--soft); }

@media (max-width: 900px) {
  body { padding: 36px 28px 56px; }
  .wide { display: none; }
  .medium { display: block; }
  th, td { padding-right: 16px; }
  th code { display: block; margin-left: 0; }
}
@media (max-width: 560px) {
  body { padding: 24px 18px 48px; }
  h1 { font-size: 27px; }
  .totals { gap: 16px 32px; margin-top: 24px; }
  .totals dd { font-size: 24px; }
  section { margin-top: 44px; }
  .medium { display: none; }
  .narrow { display: block; }
  table { font-size: 13.5px; }
  .extra, .bar, .count { display: none; }
  th, td { padding-right: 12px; }
  th small { display: block; }
  .state { padding-left: 4px; }
  .share { padding-right: 0; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav, .readout { display: none; }
  tr { break-inside: avoid; }
}
"""
    + "".join(
        f".{kind} {{ --c: var(--{kind}); --f: var(--{kind}-frame); }}\n" for kind in _KINDS
    )
    + ".plain { --c: var(--other); }\n"
)

_SCRIPT = """\
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout");
  const text = readout.textContent;
  figure.addEventListener("pointerover", (event) => {
    const group = event.target.closest("g");
    readout.textContent = group ? group.querySelector("title").textContent : text;
  });
  figure.addEventListener("pointerleave", () => { readout.textContent = text; });
}
"""
