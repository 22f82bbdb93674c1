// All images as cards, sorted and filtered.

const PAGE = 120; // cards that are added at once

export class Grid {
  // open(index): called for the card that is chosen.
  constructor(run, open) {
    Object.assign(this, { run, open, order: [], shown: 0, versions: new Map() });
    this.cards = document.getElementById("cards");
    this.sort = document.getElementById("sort");
    this.byClass = document.getElementById("class-filter");
    this.show = document.getElementById("show");
    run.classes.forEach(({ name }, index) => this.byClass.add(new Option(name, index)));
    if (!run.trust) {
      this.sort.querySelector("[value=trust]").remove();
      this.sort.value = "name";
      document.getElementById("no-trust").hidden = false;
    }
    for (const one of [this.sort, this.byClass, this.show]) {
      one.addEventListener("change", () => this.render());
    }
    this.cards.addEventListener("keydown", (event) => this.#keys(event));
    const seen = new IntersectionObserver((entries) => entries[0].isIntersecting && this.#add());
    seen.observe(document.getElementById("more"));
  }

  render() {
    const wanted = this.byClass.value === "" ? null : Number(this.byClass.value);
    const kept = this.run.images
      .map((image, index) => ({ ...image, index }))
      .filter((image) => wanted === null || image.tags.includes(wanted))
      .filter((image) => this.#passes(image));
    this.order = kept.sort(this.#compare()).map((image) => image.index);
    this.shown = 0;
    this.cards.replaceChildren();
    document.getElementById("count").textContent = `${kept.length} of ${this.run.images.length}`;
    this.#add();
  }

  #passes(image) {
    if (this.show.value === "empty") return image.empty === true;
    if (this.show.value === "corrected") return image.corrected;
    return this.show.value === "open" ? !image.corrected : true;
  }

  #compare() {
    const by = this.sort.value;
    // What is not known comes last; the server's order, by name, breaks ties.
    const last = (value) => (value ?? null) === null ? Infinity : value;
    const keys = {
      name: () => 0,
      trust: (image) => last(image.trust),
      area: (image) => last(image.area),
      disagreement: (image) => ((image.disagreement ?? null) === null ? 1 : -image.disagreement),
      class: (image) => last(image.tags[0]),
    };
    return (a, b) => {
      const [one, other] = [keys[by](a), keys[by](b)];
      return one === other ? a.index - b.index : one < other ? -1 : 1;
    };
  }

  #add() {
    const next = this.order.slice(this.shown, this.shown + PAGE);
    this.shown += next.length;
    this.cards.append(...next.map((index) => this.#card(index)));
  }

  #card(index) {
    const image = this.run.images[index];
    const item = document.createElement("li");
    const card = document.createElement("button");
    Object.assign(card, { type: "button", className: "card" });
    card.dataset.index = index;
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.alt = "";
    picture.src = `thumbnails/${index}?${this.versions.get(index) ?? 0}`;
    const name = document.createElement("b");
    name.textContent = image.id;
    card.append(picture, name, ...this.#lines(image));
    card.addEventListener("click", () => this.open(index));
    item.append(card);
    return item;
  }

  #lines(image) {
    const names = image.tags.map((tag) => this.run.classes[tag].name).join(", ");
    const lines = [[names || "background only", ""]];
    const parts = [];
    if ((image.trust ?? null) !== null) parts.push(`trust ${image.trust.toFixed(2)}`);
    if ((image.disagreement ?? null) !== null) {
      parts.push(`disagreement ${Math.round(100 * image.disagreement)} %`);
    }
    lines.push([parts.join(" · "), ""]);
    if (image.empty) lines.push(["empty mask", "flag"]);
    if (image.corrected) lines.push(["corrected", "flag"]);
    return lines.filter(([text]) => text).map(([text, kind]) => {
      const line = document.createElement("span");
      line.textContent = text;
      if (kind) line.className = kind;
      return line;
    });
  }

  // A mask was changed: its picture is made again.
  renew(index) {
    this.versions.set(index, (this.versions.get(index) ?? 0) + 1);
  }

  focus(index) {
    const place = this.order.indexOf(index);
    while (place >= this.shown && this.shown < this.order.length) this.#add();
    const card = this.cards.querySelector(`[data-index="${index}"]`) ?? this.cards.querySelector("button");
    card?.focus();
  }

  // The image before or after one, in the order that is shown.
  neighbor(index, step) {
    const place = this.order.indexOf(index);
    return this.order[place < 0 ? 0 : place + step];
  }

  #keys(event) {
    const cards = [...this.cards.querySelectorAll("button")];
    const place = cards.indexOf(document.activeElement);
    const columns = getComputedStyle(this.cards).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (place < 0 || !step) return;
    event.preventDefault();
    cards[place + step]?.focus();
  }
}
