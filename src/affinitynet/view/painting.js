// The correction of an image: brush, eraser, flood, undo; what is neutral is not corrected.

const MEMORY = 96e6; // bytes of steps that can be taken back

export class Painting {
  constructor(width, height, neutral, data) {
    Object.assign(this, { width, height, neutral, count: 1 });
    const Kind = neutral > 255 ? Uint16Array : Uint8Array;
    this.data = data ? Kind.from(data) : new Kind(width * height).fill(neutral);
    this.before = [];
    this.after = [];
  }

  // Called once before each stroke, so that all of it is taken back together.
  begin() {
    this.before.push(this.data.slice());
    this.after = [];
    const most = Math.max(2, Math.floor(MEMORY / this.data.byteLength));
    while (this.before.length > most) this.before.shift();
  }

  undo() { return this.#go(this.before, this.after); }
  redo() { return this.#go(this.after, this.before); }

  #go(from, to) {
    if (!from.length) return false;
    to.push(this.data);
    this.data = from.pop();
    return true;
  }

  clear() {
    this.begin();
    this.data.fill(this.neutral);
  }

  get empty() { return this.data.every((label) => label === this.neutral); }

  // A line of discs from one pixel to the next.
  stroke(from, to, radius, label) {
    const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
    const stride = Math.max(1, Math.floor(radius / 3));
    for (let step = 0; step <= steps; step += stride) {
      const share = Math.min(step / steps, 1);
      this.#disc(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, label);
    }
    this.#disc(to.x, to.y, radius, label);
  }

  #disc(x, y, radius, label) {
    const reach = Math.max(radius - 0.5, 0);
    for (let row = Math.ceil(y - reach); row <= y + reach; row++) {
      if (row < 0 || row >= this.height) continue;
      const half = Math.sqrt(Math.max(reach * reach - (row - y) ** 2, 0));
      const start = Math.max(Math.ceil(x - half), 0);
      const stop = Math.min(Math.floor(x + half), this.width - 1);
      if (start <= stop) this.data.fill(label, row * this.width + start, row * this.width + stop + 1);
    }
  }

  // All pixels that the walk ties to the clicked one by at least the share `level` of what it ties
  // the clicked one to itself; values (h, w) on a grid of cells, interpolated between their middles.
  flood(clicked, values, w, h, cell, level, label) {
    const least = level * valueAt(clicked.x, clicked.y, values, w, h, cell);
    for (let y = 0; y < this.height; y++) {
      for (let x = 0; x < this.width; x++) {
        if (valueAt(x, y, values, w, h, cell) >= least) this.data[y * this.width + x] = label;
      }
    }
  }
}

function valueAt(x, y, values, w, h, cell) {
  const [top, bottom, down] = between((y + 0.5) / cell - 0.5, h);
  const [left, right, across] = between((x + 0.5) / cell - 0.5, w);
  const above = values[top * w + left] * (1 - across) + values[top * w + right] * across;
  const below = values[bottom * w + left] * (1 - across) + values[bottom * w + right] * across;
  return above * (1 - down) + below * down;
}

function between(place, count) {
  const first = Math.min(Math.max(Math.floor(place), 0), count - 1);
  const second = Math.min(first + 1, count - 1);
  return [first, second, Math.min(Math.max(place - first, 0), 1)];
}
