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
    const across = between(this.width, w, cell);
    const down = between(this.height, h, cell);
    const row = new Float64Array(w); // of the grid, between the two rows around a row of pixels
    const enter = (y) => {
      const [top, bottom, share] = [down.first[y] * w, down.second[y] * w, down.share[y]];
      for (let i = 0; i < w; i++) row[i] = values[top + i] * (1 - share) + values[bottom + i] * share;
    };
    const value = (x) => {
      const share = across.share[x];
      return row[across.first[x]] * (1 - share) + row[across.second[x]] * share;
    };
    enter(clicked.y);
    const least = level * value(clicked.x);
    for (let y = 0; y < this.height; y++) {
      enter(y);
      for (let x = 0; x < this.width; x++) {
        if (value(x) >= least) this.data[y * this.width + x] = label;
      }
    }
  }
}

// For each of `length` pixels the two cells around it, and how far it is from the first's middle.
function between(length, count, cell) {
  const [first, second] = [new Int32Array(length), new Int32Array(length)];
  const share = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const place = (i + 0.5) / cell - 0.5;
    first[i] = Math.min(Math.max(Math.floor(place), 0), count - 1);
    second[i] = Math.min(first[i] + 1, count - 1);
    share[i] = Math.min(Math.max(place - first[i], 0), 1);
  }
  return { first, second, share };
}
