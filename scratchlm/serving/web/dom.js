// Build elements from plain calls. Whatever a model or a user wrote becomes a text node, never markup.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, any>} Props attributes; `onclick` and the like; `vars` for CSS custom properties */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an HTML element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * Create an SVG element.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Props} [props]
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function svg(tag, props = {}, ...children) {
  return fill(/** @type {SVGElementTagNameMap[K]} */ (document.createElementNS(SVG, tag)), props, children);
}

/**
 * Set attributes and add children.
 * @template {HTMLElement | SVGElement} E
 * @param {E} element
 * @param {Props} props
 * @param {(Child | Child[])[]} [children]
 * @returns {E}
 */
export function fill(element, props, children = []) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars")
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, String(one));
    else if (name === "value" || name === "checked") /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/**
 * Replace what an element holds.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function put(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/**
 * @param {(Child | Child[])[]} children
 * @returns {(Node | string)[]}
 */
function nodes(children) {
  return /** @type {Child[]} */ (children.flat())
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

let lastId = 0;

/** An id that no other element has, for labels. */
export function freshId() {
  lastId += 1;
  return `e${lastId}`;
}

/**
 * A button.
 * @param {string} text
 * @param {(event: MouseEvent) => void} onclick
 * @param {Props} [props]
 */
export function button(text, onclick, props = {}) {
  return h("button", { type: "button", onclick, ...props }, text);
}

/**
 * A message about something that went wrong, read out at once.
 * @param {unknown} error
 */
export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error instanceof Error ? error.message : String(error));
}

/**
 * What a view shows when it has nothing to show, and what to do about it.
 * @param {string} title
 * @param {string} text
 * @param {string} [command] for a terminal
 */
export function nothing(title, text, command) {
  return h(
    "div",
    { class: "nothing" },
    h("h2", {}, title),
    h("p", {}, text),
    command && h("pre", {}, command),
  );
}

/**
 * A table that scrolls sideways where it is wider than the page.
 * @param {HTMLElement[]} headings cells of the first row; none for a table whose rows are named
 * @param {HTMLElement[]} rows
 */
export function scrollingTable(headings, rows) {
  const head = headings.length > 0 && h("thead", {}, h("tr", {}, headings));
  return h("div", { class: "scroll" }, h("table", { class: "plain" }, head, h("tbody", {}, rows)));
}

/**
 * Run a function once things have been quiet for a moment.
 * @param {() => void} run
 * @param {number} [delayMs]
 */
export function calmly(run, delayMs = 180) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = window.setTimeout(run, delayMs);
  };
}
