"""Draw the figure of docs/attach/index.md, the two places of the neck: python docs/draw_places.py

Modules, channels and strides are those that ``attach`` finds in a network. Not here: what it does there.
"""

from pathlib import Path

import torch

from crispseg import attach, build_model, detach
from crispseg.files import write_text
from crispseg.models.attaching import border, graft, head

FIGURE = Path(__file__).parent / "figures" / "places.svg"
ENCODER, DECODER, SIZE = "tf_efficientnet_lite0", "semantic_fpn", 128
WIDTH, HEIGHT = 860, 300


def main() -> None:
    """Find the places, draw them."""
    torch.manual_seed(0)
    model = build_model(ENCODER, DECODER, 11, neck="none", pretrained=False).eval()
    example = torch.zeros(1, 3, SIZE, SIZE)
    found, between = head.find_head(model, example), border.find_border(model, example)
    assert between is not None and found.logits is not None
    at, _, maps = between
    (neck,) = graft.necks(attach(model, place="head")).values()
    width = neck.facts["options"]["width"]
    detach(model)
    f, d, z = (SIZE // size[0] for size in found.sizes)
    coarse = SIZE // maps.sizes[-1][0]
    parts = [
        box(10, 120, 80, "image", f"3 × stride {z}"),
        box(150, 120, 120, "encoder", f"strides {SIZE // maps.sizes[0][0]} to {coarse}"),
        box(330, 120, 120, "decoder", f"f: {found.channels} × stride {f}"),
        box(510, 120, 130, "classifier", found.features.module),
        box(760, 120, 90, "logits", f"{found.out} × stride {z}"),
        box(250, 30, 160, "SDN × " + str(len(maps.channels)), f"{at}: place = encoder", "#e8590c"),
        box(400, 230, 230, f"Δ = A SDN(up(R f) + L d), {width} wide", f"stride {d}: place = head", "#1c7ed6"),
        arrow(90, 145, 150, 145),
        arrow(270, 145, 330, 145),
        arrow(450, 145, 510, 145),
        arrow(640, 145, 760, 145),
        arrow(285, 145, 305, 80, "#e8590c"),
        arrow(338, 80, 318, 140, "#e8590c"),
        arrow(480, 145, 480, 230, "#1c7ed6", "f"),
        arrow(210, 170, 400, 255, "#1c7ed6"),
        text(390, 272, f"d: {found.detail_channels} × stride {d}, {found.detail.module}", "#1c7ed6", "end"),
        arrow(630, 255, 700, 150, "#1c7ed6", "+"),
        arrow(660, 145, 600, 230, "#1c7ed6", "v"),
    ]
    head_of_arrow = '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
    head_of_arrow += '<path d="M0,0 L7,3 L0,6 z" fill="#555"/></marker></defs>'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    FIGURE.parent.mkdir(exist_ok=True)
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    write_text(FIGURE, "\n".join([frame, head_of_arrow, background, *parts, "</svg>", ""]))


def box(x: int, y: int, width: int, title: str, below: str, colour: str = "#555") -> str:
    """A box 50 high with a title and what is below it."""
    middle = x + width // 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="50" rx="4" fill="none" stroke="{colour}"/>'
        f'<text x="{middle}" y="{y + 21}" font-size="13" text-anchor="middle" fill="{colour}">{title}</text>'
        f'<text x="{middle}" y="{y + 39}" font-size="11" text-anchor="middle">{below}</text>'
    )


def arrow(x: int, y: int, to_x: int, to_y: int, colour: str = "#555", name: str = "") -> str:
    """An arrow, with a name beside its middle."""
    line = f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" marker-end="url(#a)"/>'
    return line + (text((x + to_x) // 2 + 6, (y + to_y) // 2 + 14, name, colour) if name else "")


def text(x: int, y: int, words: str, colour: str, anchor: str = "start") -> str:
    """Words that start, or end, at a point."""
    return f'<text x="{x}" y="{y}" font-size="11" text-anchor="{anchor}" fill="{colour}">{words}</text>'


if __name__ == "__main__":
    main()
