// Numbers and tokens as people read them.

const WHOLE = new Intl.NumberFormat("en-US");

/** @param {number} n */
export const count = (n) => WHOLE.format(n);

/**
 * A large number in three digits: 1.07 million.
 * @param {number} n
 */
export function large(n) {
  for (const [size, name] of /** @type {[number, string][]} */ ([
    [1e9, "billion"],
    [1e6, "million"],
  ])) {
    if (n >= size) return `${(n / size).toPrecision(3)} ${name}`;
  }
  return count(n);
}

/**
 * A probability; one that is not quite 0 or 1 is never shown as 0 or 1.
 * @param {number} share
 */
export function percent(share) {
  if (share === 0 || share === 1) return `${100 * share}%`;
  if (share < 0.001) return "<0.1%";
  if (share > 0.999) return ">99.9%";
  return `${(100 * share).toFixed(1)}%`;
}

/**
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function decimal(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const shown = value.toFixed(digits);
  return Number(shown) === 0 ? shown.replace("-", "") : shown.replace("-", "−");
}

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * A token with its white space visible.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(/ /g, "·").replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

/**
 * A quantity and its noun: 1 token, 2 tokens.
 * @param {number} n
 * @param {string} noun
 */
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Words as a name within a sentence. @param {string[]} words */
export const listed = (words) =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
