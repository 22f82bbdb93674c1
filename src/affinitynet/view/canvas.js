// Draws the image, one layer over it and the correction; and the marks of cursor and brush.

const HATCH = 6; // pixels of a stripe of neutral areas

export class Picture {
  constructor(canvas, marks, paper) {
    Object.assign(this, { canvas, marks, paper, zoom: 1, opacity: 0.6 });
    this.over = document.createElement("canvas");
    this.small = document.createElement("canvas");
    this.drawn = document.createElement("canvas");
    this.image = this.layer = this.correction = this.spread = null;
  }

  // colors: of the labels from 1 on; neutral: the label of what is undecided.
  setColors(colors, neutral) {
    this.neutral = neutral;
    this.table = new Uint32Array(neutral + 1);
    colors.forEach(([r, g, b], place) => {
      this.table[place + 1] = (255 << 24) | (b << 16) | (g << 8) | r;
    });
  }

  setImage(image) {
    this.image?.close();
    this.image = image;
    this.layer = this.correction = this.spread = null;
    const { width, height } = image;
    for (const one of [this.canvas, this.marks, this.over, this.drawn]) {
      one.width = width;
      one.height = height;
    }
    this.pixels = this.over.getContext("2d").createImageData(width, height);
    this.strokes = this.drawn.getContext("2d").createImageData(width, height);
    this.fit();
  }

  get width() { return this.canvas.width; }
  get height() { return this.canvas.height; }

  // The whole image in the stage at zoom 1; small images grow to four times their size at most.
  fit() {
    if (!this.image) return;
    const stage = this.paper.parentElement;
    const room = Math.max(window.innerHeight - 170, 240);
    const scale = Math.min((stage.clientWidth - 2) / this.width, room / this.height, 4);
    this.paper.style.width = `${Math.floor(this.width * scale * this.zoom)}px`;
    this.paper.style.height = `${Math.floor(this.height * scale * this.zoom)}px`;
    this.paper.classList.toggle("close", scale * this.zoom > 2);
  }

  // planes: labels, or labels and strengths as of CAMs; null for none.
  setLayer(planes) {
    this.layer = planes;
    this.spread = null;
    if (planes) this.#paint(this.over, this.pixels, planes, 0);
    this.draw();
  }

  // A map of the grid in 0..255, its cells `cell` pixels wide: what the walk ties to a pixel.
  setSpread(values, width, height, cell) {
    this.spread = values;
    this.cell = cell;
    if (values) {
      this.small.width = width;
      this.small.height = height;
      const context = this.small.getContext("2d");
      const data = context.createImageData(width, height);
      for (let i = 0; i < values.length; i++) {
        data.data.set([255, 214, 64, values[i]], 4 * i);
      }
      context.putImageData(data, 0, 0);
    }
    this.draw();
  }

  setCorrection(planes) {
    this.correction = planes;
    if (planes) this.#paint(this.drawn, this.strokes, planes, 90);
    this.draw();
  }

  // Of labels, 0 is clear in a layer; in a correction it is what someone drew: background.
  #paint(target, pixels, { data, width, count }, background) {
    const out = new Uint32Array(pixels.data.buffer);
    const area = out.length;
    const strength = count > 1;
    const clear = background ? ((background << 24) | 0xffffff) : 0;
    for (let i = 0; i < area; i++) {
      const label = data[i];
      if (label === this.neutral) {
        const striped = ((i % width) + ((i / width) | 0)) % HATCH < HATCH / 2;
        out[i] = background ? 0 : striped ? 0xc8b4b4b4 : 0xa0707070;
      } else if (label === 0) {
        out[i] = clear;
      } else {
        const color = this.table[label];
        out[i] = strength ? (color & 0xffffff) | (data[area + i] << 24) : color;
      }
    }
    target.getContext("2d").putImageData(pixels, 0, 0);
  }

  draw() {
    if (!this.image) return;
    const context = this.canvas.getContext("2d");
    context.globalAlpha = 1;
    context.drawImage(this.image, 0, 0);
    context.globalAlpha = this.opacity;
    if (this.layer) context.drawImage(this.over, 0, 0);
    if (this.correction) {
      context.globalAlpha = Math.max(this.opacity, 0.35);
      context.drawImage(this.drawn, 0, 0);
    }
    if (this.spread) {
      // Cells of the grid, whose last column and row reach over the image's border.
      context.globalAlpha = 0.85;
      const { width, height } = this.small;
      context.drawImage(this.small, 0, 0, width * this.cell, height * this.cell);
    }
    context.globalAlpha = 1;
  }

  // cursor: {x, y} or null; radius: of the brush, 0 for none.
  mark(cursor, radius) {
    const context = this.marks.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    this.marks.hidden = !cursor; // what isn't there takes no part in a frame
    if (!cursor) return;
    const { x, y } = { x: cursor.x + 0.5, y: cursor.y + 0.5 };
    const thin = Math.max(this.width / this.marks.clientWidth, 0.25);
    for (const [color, line] of [["#000000b0", 3], ["#ffffff", 1.3]]) {
      context.strokeStyle = color;
      context.lineWidth = line * thin;
      context.beginPath();
      if (radius) context.arc(x, y, radius, 0, 7);
      const arm = 6 * thin;
      context.moveTo(x - arm, y);
      context.lineTo(x + arm, y);
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
      context.stroke();
    }
  }

  // The pixel under a pointer.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    return { x: clamp(x, 0, this.width - 1), y: clamp(y, 0, this.height - 1) };
  }
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
