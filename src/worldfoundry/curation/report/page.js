"use strict";
// The page's controls: thresholds over stored scores, and shots that say what they are. The rules are those of select.py and dedup.py.

const BINS = 40, STEPS = 200;
const FAILED = 2, NEW = 0; // states of a clip, as in thresholds.py

// --- small things ----------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const space = ["svg", "rect", "pattern", "path", "defs"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function clock(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60), rest = Math.round(seconds) % 60;
  const two = (n) => String(n).padStart(2, "0");
  return minutes < 60 ? `${minutes} min ${two(rest)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

function counted(number, unit) { return `${number} ${unit}${number === 1 ? "" : "s"}`; }

function quoted(text) { return `'${text.replaceAll("'", "'\\''")}'`; }

// --- one score: a histogram between two thresholds -------------------------------------------------------------------

// What a slider spans: the data, without far outliers (they count in the outermost bar), and the run's own thresholds.
function domain(column, numbers) {
  const sorted = Float64Array.from(numbers.filter((v) => v !== null && Number.isFinite(v))).sort();
  if (!sorted.length) return { lo: 0, hi: 1, step: 0.005, decimals: 3 };
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  let lo = sorted[0], hi = sorted[sorted.length - 1];
  const q02 = at(0.02), q98 = at(0.98), spread = q98 - q02;
  if (spread > 0 && hi - q98 > 2 * spread) hi = q98 + spread / 2;
  if (spread > 0 && q02 - lo > 2 * spread) lo = q02 - spread / 2;
  if (column.flag) lo = 0; // these thresholds always have a value
  for (const threshold of [column.low, column.high]) {
    if (threshold === null) continue;
    lo = Math.min(lo, threshold);
    hi = Math.max(hi, threshold);
  }
  if (hi === lo) { const pad = Math.abs(lo) / 10 || 1; lo -= column.flag ? 0 : pad; hi += pad; }
  const raw = (hi - lo) / STEPS, ten = 10 ** Math.floor(Math.log10(raw));
  const step = ten * [1, 2, 5, 10].find((factor) => factor * ten >= raw * 0.999);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { lo: Math.floor(lo / step) * step, hi: Math.ceil(hi / step) * step, step, decimals };
}

class Score {
  constructor(column, data, changed) {
    this.column = column;
    this.data = data;
    this.changed = changed;
    this.numbers = column.values.map((v) => (v === null ? null : Number(v)));
    Object.assign(this, domain(column, this.numbers));
    this.failed = new Uint8Array(data.clips);
    this.bin = this.numbers.map((v) => (v === null || Number.isNaN(v) ? -1 : this.place(v)));
    this.counts = new Array(BINS).fill(0);
    for (const bin of this.bin) if (bin >= 0) this.counts[bin] += 1;
    this.build();
    this.reset();
  }

  place(value) { return Math.max(0, Math.min(BINS - 1, Math.floor((BINS * (value - this.lo)) / (this.hi - this.lo)))); }

  round(value) { return Number((Math.round(value / this.step) * this.step).toFixed(this.decimals)); }

  build() {
    const name = this.column.name, top = Math.max(...this.counts, 1), known = this.counts.reduce((a, b) => a + b, 0);
    this.height = (count) => (count ? Math.max(3, (100 * count) / top) : 0);
    const svg = make("svg", { role: "img", "aria-label": `${name} of ${counted(known, "clip")}, from ${this.show(this.lo)} to ${this.show(this.hi)}` });
    const bar = (kind, i) => make("rect", { class: kind, x: `${(100 * i) / BINS + 0.2}%`, width: `${100 / BINS - 0.4}%` });
    this.bars = this.counts.map((count, i) => {
      svg.append(this.raise(bar("all", i), count));
      return svg.appendChild(bar("stay", i));
    });
    this.tally = make("span");
    this.handles = { low: this.handle("low", "at least"), high: this.handle("high", "at most") };
    this.plot = make("div", { class: "plot" }, svg, this.handles.low, this.handles.high);
    this.inputs = { low: this.input("low"), high: this.input("high") };
    this.element = make(
      "div", { class: "score", role: "group", "aria-label": name, "data-name": name },
      make("h3", {}, make("code", {}, name), this.tally), this.plot,
      make("div", { class: "scale", "aria-hidden": "true" }, make("span", {}, this.show(this.lo)), make("span", {}, this.show(this.hi))),
      make("div", { class: "typed" }, make("label", {}, "at least", this.inputs.low), make("label", {}, "at most", this.inputs.high)),
    );
  }

  show(value) { return String(Number(value.toFixed(this.decimals))); }

  raise(rect, count) {
    const height = this.height(count);
    rect.setAttribute("y", `${100 - height}%`);
    rect.setAttribute("height", `${height}%`);
    return rect;
  }

  handle(side, words) {
    const handle = make("div", {
      class: `handle ${side}`, role: "slider", tabindex: "0", "aria-label": `${this.column.name}, ${words}`,
      "aria-orientation": "horizontal", "aria-valuemin": this.show(this.lo), "aria-valuemax": this.show(this.hi),
    });
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      handle.focus();
      event.preventDefault();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = this.plot.getBoundingClientRect();
      this.move(side, this.lo + ((event.clientX - box.left) / box.width) * (this.hi - this.lo));
    });
    handle.addEventListener("keydown", (event) => {
      const now = this[side] ?? (side === "low" ? this.lo : this.hi);
      const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      const value = event.key === "Home" ? this.lo : event.key === "End" ? this.hi : steps ? now + steps * this.step : null;
      if (value === null) return;
      event.preventDefault();
      this.move(side, value);
    });
    return handle;
  }

  input(side) {
    const input = make("input", { type: "number", step: "any", placeholder: "any" });
    input.addEventListener("change", () => this.set(side, input.value === "" ? null : Number(input.value)));
    return input;
  }

  // By hand: in steps, within the scale, not past the other threshold; an end of the scale asks for nothing.
  move(side, value) {
    const low = side === "low" ? this.lo : (this.low ?? this.lo), high = side === "high" ? this.hi : (this.high ?? this.hi);
    const rounded = this.round(Math.max(low, Math.min(high, value)));
    const off = side === "low" ? rounded <= this.lo : rounded >= this.hi;
    this.set(side, off ? null : rounded);
  }

  set(side, value) {
    if (side === "low" && this.column.flag) value = Math.max(value ?? 0, 0);
    if (side === "low" && this.column.most_low) value = Math.min(Math.max(value, this.step), this.column.most_low);
    this[side] = value;
    this.judge();
    this.changed();
  }

  reset() {
    this.low = this.column.low;
    this.high = this.column.high;
    this.judge();
  }

  judge() {
    const { low, high, numbers, failed } = this;
    for (let i = 0; i < numbers.length; i++) {
      const v = numbers[i];
      failed[i] = v !== null && ((low !== null && !this.reaches(i, v)) || (high !== null && !(v <= high))) ? 1 : 0;
    }
  }

  // The least length allows half a frame, and is not asked of images.
  reaches(i, value) {
    if (!this.column.most_low) return value >= this.low;
    const length = this.data.length_s[i], fps = this.data.fps[i];
    return length === null || !(length < this.low - (fps ? 0.5 / fps : 0));
  }

  draw(stays, scale) {
    const left = new Array(BINS).fill(0);
    for (let i = 0; i < this.bin.length; i++) if (stays[i] && this.bin[i] >= 0) left[this.bin[i]] += 1;
    left.forEach((count, i) => this.raise(this.bars[i], count));
    const out = this.failed.reduce((a, b) => a + b, 0);
    this.tally.textContent = out ? `${scale(out)} out` : "";
    for (const side of ["low", "high"]) {
      const value = this[side], handle = this.handles[side], end = side === "low" ? this.lo : this.hi;
      const at = Math.max(this.lo, Math.min(this.hi, value ?? end));
      handle.style.left = `${(100 * (at - this.lo)) / (this.hi - this.lo)}%`;
      handle.classList.toggle("off", value === null || (this.column.flag && side === "low" && value === 0));
      handle.setAttribute("aria-valuenow", String(at));
      handle.setAttribute("aria-valuetext", value === null ? "no threshold" : String(value));
      this.inputs[side].value = value === null ? "" : String(value);
    }
  }

  flags() { return this.column.flag && this.low !== null ? [`${this.column.flag} ${this.low}`] : []; }

  conditions() {
    const name = this.column.name;
    return [
      ...(this.low !== null && !this.column.flag ? [`${name}>=${this.low}`] : []),
      ...(this.high !== null ? [`${name}<=${this.high}`] : []),
    ];
  }
}

// --- one tag: a box per word -----------------------------------------------------------------------------------------

class Tag {
  constructor(tag, data, changed) {
    this.tag = tag;
    this.failed = new Uint8Array(data.clips);
    this.counts = tag.words.map((_, i) => tag.values.filter((v) => v === i).length);
    const top = Math.max(...this.counts, 1);
    this.bars = tag.words.map(() => make("i"));
    this.boxes = tag.words.map((word, i) => {
      const box = make("input", { type: "checkbox", value: word });
      box.addEventListener("change", () => { this.judge(); changed(); });
      return box;
    });
    this.width = (count) => `${(100 * count) / top}%`;
    this.element = make(
      "fieldset", { class: "score", "aria-label": tag.name, "data-name": tag.name }, make("h3", {}, make("code", {}, tag.name)),
      ...tag.words.map((word, i) => make(
        "label", { class: "word" }, this.boxes[i], make("span", {}, word), make("div", { class: "bar" }, this.bars[i]),
        make("span", { class: "num" }, String(this.counts[i])),
      )),
    );
    this.reset();
  }

  reset() {
    this.boxes.forEach((box, i) => { box.checked = !this.tag.out[i]; });
    this.judge();
  }

  judge() {
    this.tag.values.forEach((v, i) => { this.failed[i] = v !== null && !this.boxes[v].checked ? 1 : 0; });
  }

  draw(stays) {
    const left = this.counts.map(() => 0);
    this.tag.values.forEach((v, i) => { if (v !== null && stays[i]) left[v] += 1; });
    left.forEach((count, i) => { this.bars[i].style.width = this.width(count); });
  }

  flags() { return []; }

  conditions() { return this.boxes.filter((box) => !box.checked).map((box) => `${this.tag.name}!=${box.value}`); }
}

// --- all of them -----------------------------------------------------------------------------------------------------

// Of near-duplicates the best goes first; a clip goes if one that stays has what it shows.
function withoutDuplicates(data, passes) {
  const stays = Uint8Array.from(passes), partners = new Map(data.rank.map((i) => [i, []]));
  for (const [a, b, inB, inA] of data.pairs) {
    if (inB) partners.get(a).push(b);
    if (inA) partners.get(b).push(a);
  }
  const settled = new Set();
  for (const i of data.rank) {
    if (!stays[i]) continue;
    if (partners.get(i).some((other) => settled.has(other))) stays[i] = 0;
    else settled.add(i);
  }
  return stays;
}

function thresholds(data) {
  const find = (id) => document.getElementById(id);
  const factor = data.total / data.clips, about = factor > 1 ? "about " : "";
  const scale = (count) => Math.round(factor * count);
  const controls = [];
  let waiting = 0;
  const changed = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; show(); }); };
  for (const column of data.columns) controls.push(new Score(column, data, changed));
  for (const tag of data.tags) controls.push(new Tag(tag, data, changed));

  function show() {
    const passes = Uint8Array.from(data.fixed_out, (out, i) => (out || controls.some((control) => control.failed[i]) ? 0 : 1));
    const stays = withoutDuplicates(data, passes);
    let count = 0, seconds = 0, fresh = 0, failed = 0, back = 0, leave = 0;
    stays.forEach((stay, i) => {
      if (stay && data.state[i] === FAILED) { failed += 1; stays[i] = 0; }
      if (stays[i]) { count += 1; seconds += data.duration_s[i]; fresh += data.state[i] === NEW; back += !data.kept[i]; }
      else leave += data.kept[i];
    });
    for (const control of controls) control.draw(stays, scale);
    find("stay-clips").textContent = `${about}${scale(count)} of ${counted(data.total, "clip")}`;
    find("stay-time").textContent = `would stay, ${about}${clock(factor * seconds)} of video`;
    const changes = [leave && `${scale(leave)} would leave`, back && `${scale(back)} would come back`].filter(Boolean);
    find("stay-change").textContent = changes.length ? `(${changes.join(", ")})` : "(as in this run)";
    find("stay-notes").textContent = notes(fresh, failed, passes);
    find("command").textContent = command();
  }

  function notes(fresh, failed, passes) {
    const unseen = data.uncompared.filter((i) => passes[i]).length;
    return [
      fresh && `${scale(fresh)} of them not encoded yet: select counts them as NOT_ENCODED and prints the command that encodes them.`,
      failed && `${counted(scale(failed), "clip")} failed after selection and would again.`,
      unseen && `${scale(unseen)} never compared with the others: select may find near-duplicates among them.`,
    ].filter(Boolean).join(" ");
  }

  function command() {
    const flags = controls.flatMap((control) => control.flags());
    const conditions = [...controls.flatMap((control) => control.conditions()), ...data.fixed_conditions];
    const where = conditions.length || data.had_conditions ? ["--where", ...conditions.map(quoted)] : [];
    return [data.command, ...flags, ...where].join(" ");
  }

  find("reset").addEventListener("click", () => { controls.forEach((control) => control.reset()); show(); });
  find("copy").addEventListener("click", (event) => copy(find("command"), event.currentTarget));
  const hatch = make("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    make("path", { d: "M0 0V5", stroke: "var(--gone)", "stroke-width": 2 }));
  find("scores").append(make("svg", { width: 0, height: 0, style: "position:absolute", "aria-hidden": "true" }, make("defs", {}, hatch)));
  find("scores").append(...controls.map((control) => control.element));
  show();
}

function copy(source, button) {
  const told = (text) => { button.textContent = text; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
  const byHand = () => { // where a page from a file may not write to the clipboard by itself
    getSelection().selectAllChildren(source);
    told(document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
  };
  if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(() => told("Copied"), byHand);
  else byHand();
}

// --- shots -----------------------------------------------------------------------------------------------------------

function walk(track) {
  const told = track.parentElement.querySelector(".told"), all = told.textContent;
  const spans = [...track.children].sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
  let at = -1;
  const point = (span) => {
    for (const other of spans) other.classList.toggle("here", other === span);
    told.textContent = span ? span.title : all;
  };
  track.addEventListener("pointerover", (event) => { if (event.target !== track) point(event.target); });
  track.addEventListener("pointerleave", () => point(null));
  track.addEventListener("blur", () => point(null));
  track.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !spans.length) return;
    event.preventDefault();
    at = Math.max(0, Math.min(spans.length - 1, at + step));
    point(spans[at]);
  });
}

const held = document.getElementById("threshold-data");
if (held) thresholds(JSON.parse(held.textContent));
document.querySelectorAll(".track").forEach(walk);
