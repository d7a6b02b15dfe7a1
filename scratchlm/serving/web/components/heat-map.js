// A matrix as colours, on a canvas, so that thousands of cells stay fast. Arrow keys move over the cells.
import { h, put } from "../dom.js";

/** @typedef {{rows: number, columns: number, value: (row: number, column: number) => number | null,
 *    name: (row: number, column: number) => string, label: string, rowNames?: string[], columnNames?: string[],
 *    cell?: number, isSigned?: boolean}} HeatData `value` is 0 to 1, or -1 to 1 when signed; null draws nothing */

const FONT = "11px ui-monospace, Menlo, Consolas, 'Liberation Mono', monospace";
const LONGEST = 10; // characters of a name

/** Sends `pick` with {row, column} as `detail`. */
export class HeatMap extends HTMLElement {
  /** @type {HeatData | null} */
  #data = null;
  #canvas = h("canvas", { tabindex: 0, role: "img" });
  #readout = h("output", {});
  #at = { row: 0, column: 0 };
  #left = 0;
  #top = 0;
  #cell = 16;
  #redraw = () => this.#draw();

  connectedCallback() {
    put(this, h("div", { class: "scroll" }, this.#canvas), this.#readout);
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event, false));
    this.#canvas.addEventListener("click", (event) => this.#point(event, true));
    this.#canvas.addEventListener("keydown", (event) => this.#walk(event));
    document.addEventListener("themechange", this.#redraw);
    this.#draw();
  }

  disconnectedCallback() {
    document.removeEventListener("themechange", this.#redraw);
  }

  /** @param {HeatData} data @param {{row: number, column: number}} [at] the chosen cell */
  show(data, at = this.#at) {
    this.#data = data;
    this.#at = { row: Math.min(at.row, data.rows - 1), column: Math.min(at.column, data.columns - 1) };
    this.#draw();
  }

  #draw() {
    const data = this.#data;
    const pen = this.#canvas.getContext("2d");
    if (!data || !pen || !this.isConnected) return;
    const cell = (this.#cell = data.cell ?? 16);
    const short = (/** @type {string} */ text) =>
      text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
    pen.font = FONT;
    const widest = (/** @type {string[] | undefined} */ names) =>
      Math.max(0, ...(names ?? []).map((one) => pen.measureText(short(one)).width));
    const left = (this.#left = data.rowNames ? widest(data.rowNames) + 8 : 0);
    const top = (this.#top = data.columnNames ? widest(data.columnNames) + 8 : 0);
    const width = left + data.columns * cell + 1;
    const height = top + data.rows * cell + 1;
    const ratio = devicePixelRatio || 1;
    Object.assign(this.#canvas, { width: width * ratio, height: height * ratio });
    this.#canvas.style.setProperty("width", `${width}px`);
    this.#canvas.style.setProperty("max-width", "none");
    this.#canvas.setAttribute("aria-label", `${data.label}. ${data.name(this.#at.row, this.#at.column)}`);
    const style = getComputedStyle(this);
    const colour = (/** @type {string} */ name) => inRgb(style, name);
    const [more, less, ground, ink, frame] = ["--accent", "--series2", "--sunk", "--muted", "--focus"].map(
      colour,
    );
    pen.scale(ratio, ratio);
    for (let row = 0; row < data.rows; row += 1) {
      for (let column = 0; column < data.columns; column += 1) {
        const value = data.value(row, column);
        if (value === null) continue;
        const place = /** @type {const} */ ([left + column * cell, top + row * cell, cell - 1, cell - 1]);
        pen.globalAlpha = 1;
        pen.fillStyle = ground;
        pen.fillRect(...place);
        pen.globalAlpha = Math.min(1, Math.abs(value));
        pen.fillStyle = value < 0 ? less : more;
        pen.fillRect(...place);
      }
    }
    pen.globalAlpha = 1;
    pen.fillStyle = ink;
    pen.font = FONT;
    pen.textBaseline = "middle";
    data.rowNames?.forEach((name, i) => pen.fillText(short(name), 0, top + (i + 0.5) * cell));
    data.columnNames?.forEach((name, i) => {
      pen.save();
      pen.translate(left + (i + 0.5) * cell, top - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(short(name), 0, 0);
      pen.restore();
    });
    pen.strokeStyle = frame;
    pen.lineWidth = 2;
    pen.strokeRect(left + this.#at.column * cell, top + this.#at.row * cell, cell - 1, cell - 1);
    this.#readout.textContent = data.name(this.#at.row, this.#at.column);
  }

  /** @param {PointerEvent | MouseEvent} event @param {boolean} isPick */
  #point(event, isPick) {
    const data = this.#data;
    if (!data) return;
    const box = this.#canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.#left) / this.#cell);
    const row = Math.floor((event.clientY - box.top - this.#top) / this.#cell);
    if (
      row < 0 ||
      column < 0 ||
      row >= data.rows ||
      column >= data.columns ||
      data.value(row, column) === null
    )
      return;
    if (isPick) this.#choose(row, column);
    else this.#readout.textContent = data.name(row, column);
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const moves = /** @type {Record<string, [number, number]>} */ ({
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    });
    const move = moves[event.key];
    if (!move || !this.#data) return;
    event.preventDefault();
    const row = Math.min(Math.max(this.#at.row + move[0], 0), this.#data.rows - 1);
    const column = Math.min(Math.max(this.#at.column + move[1], 0), this.#data.columns - 1);
    if (this.#data.value(row, column) !== null) this.#choose(row, column);
  }

  /** @param {number} row @param {number} column */
  #choose(row, column) {
    this.#at = { row, column };
    this.#draw();
    this.dispatchEvent(new CustomEvent("pick", { detail: this.#at }));
  }
}

/** A colour of the style sheet as a canvas understands it. @param {CSSStyleDeclaration} style @param {string} name */
function inRgb(style, name) {
  const probe = h("i", { vars: { color: `var(${name})` } });
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color || style.color;
}

customElements.define("heat-map", HeatMap);
