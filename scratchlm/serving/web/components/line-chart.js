// Curves with a readout at the pointer; the arrow keys move it too.
import { h, put, svg } from "../dom.js";
import { count } from "../format.js";

/** @typedef {{name: string, points: [number, number][], colour?: number, isDashed?: boolean}} Series points by rising x */
/** @typedef {{series: Series[], label: string, xName: string, xText?: (x: number) => string, format?: (y: number) => string, height?: number}} ChartData */

const LEFT = 46;
const BOTTOM = 22;

export class LineChart extends HTMLElement {
  /** @type {ChartData | null} */
  #data = null;
  /** @type {number | null} */
  #at = null; // the x of the readout
  #plot = h("div", {});
  #keys = h("div", { class: "keys" });
  #readout = h("output", {});
  #observer = new ResizeObserver(() => this.#draw());
  #width = 0;

  connectedCallback() {
    put(this, this.#keys, this.#plot, this.#readout);
    this.#observer.observe(this);
    this.#draw();
  }

  disconnectedCallback() {
    this.#observer.disconnect();
  }

  /** @param {ChartData} data */
  show(data) {
    this.#data = data;
    this.#width = 0;
    this.#draw();
  }

  #draw() {
    const data = this.#data;
    if (!data || !this.isConnected) return;
    const width = Math.max(this.clientWidth, 200);
    if (width === this.#width) return;
    this.#width = width;
    const format = data.format ?? ((y) => String(y));
    const xText = data.xText ?? count;
    const height = data.height ?? 220;
    const all = data.series.flatMap((one) => one.points);
    put(
      this.#keys,
      data.series.map((one, i) =>
        h(
          "span",
          { class: `key ${one.isDashed ? "dashed" : ""}`, vars: { "--colour": colourOf(one, i) } },
          one.name,
        ),
      ),
    );
    if (!all.length) return put(this.#plot, h("p", { class: "hint" }, "No measurements yet."));
    const xs = all.map(([x]) => x);
    const ys = all.map(([, y]) => y);
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    const marks = ticks(Math.min(...ys), Math.max(...ys));
    const [y0, y1] = [marks[0], marks[marks.length - 1]];
    const across = (/** @type {number} */ x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (width - LEFT - 8);
    const up = (/** @type {number} */ y) => 8 + (1 - (y - y0) / (y1 - y0 || 1)) * (height - BOTTOM - 12);
    const cursor = svg("line", { class: "cursor", y1: 8, y2: height - BOTTOM, visibility: "hidden" });
    const dots = data.series.map((one, i) =>
      svg("circle", { r: 3.5, visibility: "hidden", vars: { fill: colourOf(one, i) } }),
    );
    const drawing = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": data.label },
      marks
        .map((y) => [
          svg("line", { class: "grid", x1: LEFT, x2: width - 8, y1: up(y), y2: up(y) }),
          svg("text", { x: LEFT - 6, y: up(y) + 4, "text-anchor": "end" }, format(y)),
        ])
        .flat(),
      svg("text", { x: LEFT, y: height - 4 }, xText(x0)),
      svg("text", { x: (LEFT + width) / 2, y: height - 4, "text-anchor": "middle" }, data.xName),
      svg("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, xText(x1)),
      data.series.map((one, i) =>
        svg("polyline", {
          class: "line",
          points: one.points.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" "),
          "stroke-dasharray": one.isDashed ? "5 4" : null,
          vars: { stroke: colourOf(one, i) },
        }),
      ).reverse(), // the first lies on top
      cursor,
      dots,
    );
    const read = (/** @type {number} */ x) => {
      this.#at = x;
      const found = data.series.map((one) => nearest(one.points, x));
      cursor.setAttribute("visibility", "visible");
      for (const name of ["x1", "x2"]) cursor.setAttribute(name, String(across(x)));
      found.forEach((point, i) => {
        dots[i].setAttribute("visibility", point ? "visible" : "hidden");
        if (point) {
          dots[i].setAttribute("cx", String(across(point[0])));
          dots[i].setAttribute("cy", String(up(point[1])));
        }
      });
      const values = found
        .map((point, i) => point && `${data.series[i].name} ${format(point[1])}`)
        .filter(Boolean);
      const place = data.xText ? data.xText(x) : `${data.xName} ${count(x)}`;
      this.#readout.textContent = `${place}: ${values.join(" · ")}`;
    };
    const places = [...new Set(xs)].sort((a, b) => a - b);
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect();
      const x =
        x0 + ((((event.clientX - box.left) / box.width) * width - LEFT) / (width - LEFT - 8)) * (x1 - x0);
      read(places.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best)));
    });
    drawing.addEventListener("keydown", (event) => {
      const move = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (!move) return;
      event.preventDefault();
      const at = places.indexOf(this.#at ?? x1);
      read(places[Math.min(Math.max((at < 0 ? places.length - 1 : at) + move, 0), places.length - 1)]);
    });
    put(this.#plot, drawing);
    read(
      this.#at !== null && places.includes(this.#at) && this.#at !== places[places.length - 2]
        ? this.#at
        : x1,
    );
  }
}

/** @param {Series} one @param {number} i */
const colourOf = (one, i) => `var(--series${((one.colour ?? i) % 6) + 1})`;

/** Round numbers that enclose a range. @param {number} low @param {number} high */
function ticks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? rough;
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step);
  return Array.from({ length: Math.max(last - first, 1) + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** The point of a series nearest to x, if it begins before x. @param {[number, number][]} points @param {number} x */
function nearest(points, x) {
  return points.length && x >= points[0][0]
    ? points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best))
    : null;
}

customElements.define("line-chart", LineChart);
