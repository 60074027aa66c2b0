// The stage: the picture with masks over it, the slider between two masks, the brush. Not here: where masks come from
// and the controls beside the picture (page.js).

const $ = (id) => document.getElementById(id);
const view = $("view"), layers = { before: $("before"), after: $("after") };
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A stage for a palette of [red, green, blue]. `painted()` is called after each stroke, `pointed(class)` when the pointer
 * is over a pixel (null: over none).
 */
export function makeStage(palette, { painted, pointed }) {
  let width = 0, height = 0;
  const masks = { before: null, after: null };
  const look = { opacity: 0.55, borders: true, split: 0.5 };
  const brush = { on: false, size: 20, value: 0, at: null, last: null };
  let asked = false;

  const stage = {
    /** Show another picture. */
    picture(rgba, w, h) {
      [width, height] = [w, h];
      for (const canvas of [$("picture"), layers.before, layers.after]) Object.assign(canvas, { width, height });
      $("picture").getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0);
      masks.before = masks.after = null;
      stage.fit();
    },
    /** As large as the window has room for. */
    fit() {
      if (!width) return;
      const room = Math.max(240, Math.min(innerHeight - 160, innerHeight * 0.8));
      $("shown").style.width = `min(100%, ${Math.round((room * width) / height)}px)`;
      view.style.aspectRatio = `${width} / ${height}`;
      redraw();
    },
    show(before, after) {
      Object.assign(masks, { before, after });
      redraw();
    },
    look(change) {
      Object.assign(look, change);
      redraw();
    },
    /** Turn the brush on or off, or change it: `size` in pixels of the picture, `value` a class. */
    brush(change) {
      Object.assign(brush, change);
      view.tabIndex = brush.on ? 0 : -1;
      if (brush.on) {
        view.setAttribute("role", "application");
        view.setAttribute("aria-label", "Mask to paint: arrow keys move the brush, Space paints");
      } else {
        view.removeAttribute("role");
        view.removeAttribute("aria-label");
        brush.at = null;
      }
      redraw();
    },
  };

  function redraw() {
    if (!asked) requestAnimationFrame(paintAll);
    asked = true;
  }

  function paintAll() {
    asked = false;
    const both = masks.after !== null;
    view.classList.toggle("sliding", both && !brush.on);
    view.classList.toggle("drawing", brush.on);
    for (const [name, canvas] of Object.entries(layers)) {
      canvas.hidden = masks[name] === null;
      if (masks[name]) paint(canvas, masks[name]);
    }
    const at = `${100 * look.split}%`;
    layers.before.style.clipPath = both ? `inset(0 calc(100% - ${at}) 0 0)` : "";
    layers.after.style.clipPath = `inset(0 0 0 ${at})`;
    $("divider").hidden = !both || look.split <= 0 || look.split >= 1;
    $("divider").style.left = at;
    showCursor();
  }

  function paint(canvas, mask) {
    const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const alpha = Math.round(255 * look.opacity) << 24;
    const colours = Uint32Array.from({ length: 256 }, (_, i) => {
      const [r, g, b] = palette[i] ?? [0, 0, 0];
      return (r | (g << 8) | (b << 16) | alpha) >>> 0;
    });
    for (let i = 0; i < mask.length; i++) pixels[i] = colours[mask[i]];
    if (look.borders) drawBorders(pixels, mask);
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  /** Dashes of black and white, which show on anything; as wide as a pixel of the screen where the picture is shown small. */
  function drawBorders(pixels, mask) {
    const thick = Math.max(1, Math.round((1.2 * width) / (view.clientWidth * devicePixelRatio || width)));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        if (!((x + 1 < width && mask[i] !== mask[i + 1]) || (y + 1 < height && mask[i] !== mask[i + width]))) continue;
        const colour = (Math.floor((x + y) / (4 * thick)) & 1) === 0 ? 0xffffffff : 0xff000000;
        for (let v = y; v < Math.min(height, y + thick); v++) pixels.fill(colour, v * width + x, v * width + Math.min(width, x + thick));
      }
    }
  }

  function showCursor() {
    const cursor = $("cursor"), scale = view.clientWidth / width;
    cursor.hidden = !(brush.on && brush.at);
    if (cursor.hidden) return;
    cursor.style.left = `${brush.at[0] * scale}px`;
    cursor.style.top = `${brush.at[1] * scale}px`;
    cursor.style.width = cursor.style.height = `${Math.max(4, brush.size * scale)}px`;
  }

  /** A round line from one place to another, in the class of the brush. */
  function stroke([x0, y0], [x1, y1]) {
    const r = brush.size / 2, steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, r / 2)));
    for (let s = 0; s <= steps; s++) {
      const cx = x0 + ((x1 - x0) * s) / steps, cy = y0 + ((y1 - y0) * s) / steps;
      for (let y = Math.max(0, Math.floor(cy - r)); y <= Math.min(height - 1, cy + r); y++) {
        const half = Math.sqrt(Math.max(0, r * r - (y + 0.5 - cy) ** 2));
        const from = Math.max(0, Math.round(cx - half)), to = Math.min(width, Math.round(cx + half));
        if (from < to) masks.before.fill(brush.value, y * width + from, y * width + to);
      }
    }
    masks.after = null;
    redraw();
  }

  function place(event) {
    const box = view.getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  }

  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !masks.before) return;
    if (brush.on) {
      view.setPointerCapture(event.pointerId);
      painted("begin");
      brush.last = place(event);
      stroke(brush.last, brush.last);
    } else if (masks.after) {
      view.setPointerCapture(event.pointerId);
      slide(event);
    }
  });
  view.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), shown = masks.after && x / width > look.split ? masks.after : masks.before;
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    pointed(inside && shown && event.pointerType === "mouse" ? shown[Math.floor(y) * width + Math.floor(x)] : null);
    if (brush.on) {
      brush.at = [x, y];
      if (brush.last) stroke(brush.last, (brush.last = [x, y]));
      else redraw();
    } else if (masks.after && event.buttons === 1 && view.hasPointerCapture(event.pointerId)) slide(event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    view.addEventListener(name, () => {
      if (brush.last) painted("end");
      brush.last = null;
    });
  }
  view.addEventListener("pointerleave", () => {
    pointed(null);
    if (!brush.last) brush.at = null;
    redraw();
  });
  view.addEventListener("keydown", (event) => {
    if (!brush.on || !masks.before) return;
    brush.at ??= [width / 2, height / 2];
    const step = KEYS[event.key];
    if (step) {
      brush.at = brush.at.map((value, i) => Math.max(0, Math.min([width, height][i], value + step[i] * Math.max(1, brush.size / 3))));
      redraw();
    } else if (event.key === " ") {
      painted("begin");
      stroke(brush.at, brush.at);
      painted("end");
    } else return;
    event.preventDefault();
  });
  addEventListener("resize", () => stage.fit());

  function slide(event) {
    const split = Math.max(0, Math.min(1, place(event)[0] / width));
    $("split").value = 100 * split;
    stage.look({ split });
  }
  return stage;
}
