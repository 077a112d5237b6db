#!/usr/bin/env python3
"""Draws docs/modules.svg: the modules, and which of them includes which, from the DEPS in CMake.

  tools/draw_modules.py            writes the picture
  tools/draw_modules.py --check    fails if the picture is not what CMake says; this is a test

An arrow that is implied by a way over other arrows is left out.
"""
import sys

from check_layers import ROOT, allowed_by_cmake

PICTURE = ROOT / "docs" / "modules.svg"
PLACES = {  # module -> column, row
    "cli": (2, 0),
    "report": (0, 1), "import": (1, 1), "bench": (3, 1),
    "engine": (3, 2),
    "model": (3, 3),
    "plan": (1, 4), "dispatch": (2, 4), "experts": (3, 4), "tokenizer": (4, 4),
    "placement": (1, 5), "transport": (2, 5),
    "collaboration": (1, 6), "trace": (1, 7), "routing": (1, 8), "io": (2, 9), "core": (3, 10),
}
WIDTH, HEIGHT, STEP_X, STEP_Y, MARGIN = 112, 26, 140, 52, 14


def reach(module, below):
    """All that a module includes, over others too."""
    found, todo = set(), list(below[module])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += below[name]
    return found


def arrows(below):
    """(from, to), without those that a longer way implies."""
    return [(module, target) for module in sorted(below) for target in sorted(below[module])
            if not any(target in reach(other, below) for other in below[module] - {target})]


def drawn(below):
    if missing := sorted(below.keys() ^ PLACES.keys()):
        sys.exit(f"tools/draw_modules.py: PLACES and CMake do not both have {' '.join(missing)}")
    columns, rows = (1 + max(place[axis] for place in PLACES.values()) for axis in (0, 1))
    width = columns * STEP_X - (STEP_X - WIDTH) + 2 * MARGIN
    height = rows * STEP_Y - (STEP_Y - HEIGHT) + 2 * MARGIN
    corner = {name: (MARGIN + x * STEP_X, MARGIN + y * STEP_Y) for name, (x, y) in PLACES.items()}
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
             'font-family="sans-serif" font-size="13">',
             '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
             'markerHeight="8" orient="auto"><path d="M0 1 8 4 0 7z" fill="#567"/></marker></defs>',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for module, target in arrows(below):
        (x, y), (to_x, to_y) = corner[module], corner[target]
        lines.append(f'<path d="M{x + WIDTH // 2} {y + HEIGHT}L{to_x + WIDTH // 2} {to_y}" '
                     'stroke="#567" marker-end="url(#head)"/>')
    for name, (x, y) in corner.items():
        lines += [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="#eef3f8" '
                  'stroke="#567"/>',
                  f'<text x="{x + WIDTH // 2}" y="{y + 18}" text-anchor="middle">{name}</text>']
    return "\n".join([*lines, "</svg>", ""])


def main():
    below = {module: (deps | {"core"}) - {module} for module, (deps, _) in allowed_by_cmake().items()}
    picture = drawn(below)
    if sys.argv[1:] == ["--check"]:
        if not PICTURE.exists() or PICTURE.read_text() != picture:
            sys.exit("docs/modules.svg is not what CMake says; draw it again with tools/draw_modules.py")
    else:
        PICTURE.write_text(picture)


if __name__ == "__main__":
    main()
