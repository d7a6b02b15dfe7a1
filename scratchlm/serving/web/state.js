// The state of a view is its address, so that a link shows the same thing: #/microscope?prompt=Once&seed=1
// What follows # stays in the browser: prompts in links reach no log.

import { calmly } from "./dom.js";

/** @typedef {Record<string, string | number | boolean | null | undefined>} Values */

export class Address {
  #shown = location.hash; // what the address bar holds while this view is open

  /**
   * @param {string} view
   * @param {URLSearchParams} params
   */
  constructor(view, params) {
    this.view = view;
    this.params = params;
  }

  /** Browsers refuse many changes in a row, as a slider makes them. */
  #write = calmly(() => {
    if (location.hash !== this.#shown) return; // the reader is on the way to another address
    history.replaceState(null, "", link(this.view, Object.fromEntries(this.params)));
    this.#shown = location.hash;
  }, 100);

  /** The address in the address bar. @param {string} standard the view without an address */
  static read(standard) {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
    return new Address(path || standard, new URLSearchParams(query));
  }

  /**
   * @param {string} name
   * @param {string} [standard]
   */
  text(name, standard = "") {
    return this.params.get(name) ?? standard;
  }

  /**
   * @param {string} name
   * @param {number} standard
   */
  number(name, standard) {
    const value = Number(this.params.get(name) ?? NaN);
    return Number.isFinite(value) ? value : standard;
  }

  /** Change values in the address bar; null, false and "" leave the address. @param {Values} values */
  set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "" || value === false) this.params.delete(name);
      else this.params.set(name, value === true ? "1" : String(value));
    }
    this.#write();
  }
}

/**
 * The address of a view.
 * @param {string} view
 * @param {Values} [values]
 */
export function link(view, values = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") params.set(name, String(value));
  }
  const query = params.toString();
  return `#/${view}${query && "?"}${query}`;
}
