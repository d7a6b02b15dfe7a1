// Judge: a run's answers beside the references, with their scores and the judge's replies; of two runs, disagreement first.
import { get } from "../api.js";
import { button, calmly, freshId, h, nothing, problem, put } from "../dom.js";
import { count, decimal, percent, plural } from "../format.js";

/** @typedef {{text: string, score: number | null, right: boolean | null, words: string, status: string}} Given */
/** @typedef {{instruction: string, input: string, reference: string, skill: string, answers: (Given | null)[]}} Item */
/** @typedef {{label: string, score_name: string, score_max: number}} Column */

const PER_PAGE = 20;
const ORDERS = {
  worst: "Lowest score first",
  spread: "Largest disagreement first",
  file: "Order of the file",
};
const FILTERS = {
  all: "All answers",
  wrong: "Not an exact match",
  right: "Exact match",
  judged: "With a judge's reply",
};

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  const runs = (await get("/api/runs")).runs.filter((/** @type {any} */ run) =>
    run.stages.some((/** @type {string} */ one) => ["instruct", "prefer"].includes(one)),
  );
  if (!runs.length) {
    return put(
      place,
      nothing(
        "No answers yet",
        "The answers of instruction-tuned runs are shown here.",
        "scratchlm run quickstart",
      ),
    );
  }
  const names = /** @type {string[]} */ (runs.map((/** @type {any} */ run) => run.name));
  let name = names.includes(address.text("run")) ? address.text("run") : names[0];
  let other = names.includes(address.text("other")) ? address.text("other") : "";
  let page = Math.max(1, address.number("page", 1));
  /** @type {Column[]} */
  let columns = [];
  /** @type {Item[]} */
  let items = [];
  /** @type {string[]} */
  let problems = [];
  const out = h("div", { class: "stack" });
  const keep = () =>
    address.set({
      run: name,
      other,
      find: find.value,
      order: order.value === "worst" ? null : order.value,
      only: only.value === "all" ? null : only.value,
      page: page > 1 ? page : null,
    });
  const again = () => {
    page = 1;
    keep();
    draw();
  };

  const find = h("input", { type: "search", value: address.text("find"), oninput: calmly(again, 120) });
  const order = select(ORDERS, address.text("order", "worst"), again);
  const only = select(FILTERS, address.text("only", "all"), again);
  const load = async () => {
    keep();
    try {
      const found = await Promise.all(
        [name, other].filter(Boolean).map((one) => get(`/api/runs/${encodeURIComponent(one)}/answers`)),
      );
      [columns, items] = joined(found);
      problems = found.flatMap((/** @type {any} */ one) => one.problems);
      draw();
    } catch (error) {
      put(out, problem(error));
    }
  };

  const draw = () => {
    const words = find.value.trim().toLowerCase();
    const kept = items.filter(
      (item) => fits(item, only.value) && (!words || JSON.stringify(item).toLowerCase().includes(words)),
    );
    if (order.value === "worst") kept.sort((a, b) => lowest(a, columns) - lowest(b, columns));
    if (order.value === "spread") kept.sort((a, b) => spread(b, columns) - spread(a, columns));
    const nPages = Math.max(1, Math.ceil(kept.length / PER_PAGE));
    page = Math.min(page, nPages);
    const turn = (/** @type {number} */ by) => {
      page += by;
      keep();
      draw();
      scrollTo({ top: 0 });
    };
    put(
      out,
      h(
        "p",
        { class: "facts-line", role: "status" },
        `${plural(kept.length, "item")} of ${count(items.length)}`,
        columns.map((column, i) => ` · ${column.label}: mean ${column.score_name} ${mean(items, i, column)}`),
      ),
      problems.map((one) => h("p", { class: "hint" }, one)),
      !items.length &&
        h(
          "p",
          { class: "lead" },
          "This run has saved no answers yet; they are saved at the end of its instruction stage.",
        ),
      h(
        "ul",
        { class: "items" },
        kept.slice((page - 1) * PER_PAGE, page * PER_PAGE).map((item) => card(item, columns)),
      ),
      nPages > 1 &&
        h(
          "div",
          { class: "row" },
          button("Previous", () => turn(-1), { disabled: page === 1 }),
          h("span", {}, `page ${page} of ${nPages}`),
          button("Next", () => turn(1), { disabled: page === nPages }),
        ),
    );
  };

  const runList = (
    /** @type {string} */ label,
    /** @type {string} */ value,
    /** @type {(name: string) => void} */ take,
    /** @type {string} */ none = "",
  ) => {
    const list = h(
      "select",
      {
        onchange: () => {
          take(list.value);
          page = 1;
          load();
        },
      },
      none && h("option", { value: "" }, none),
      names.map((one) => h("option", { value: one }, one)),
    );
    list.value = value;
    return h("label", { class: "field grow" }, label, list);
  };
  put(
    place,
    h("h1", {}, "Judge"),
    h(
      "div",
      { class: "stack" },
      h(
        "div",
        { class: "row" },
        runList("Run", name, (one) => {
          name = one;
        }),
        names.length > 1 &&
          runList(
            "Compare with",
            other,
            (one) => {
              other = one;
            },
            "no other run",
          ),
      ),
      h(
        "div",
        { class: "row" },
        h("label", { class: "field grow" }, "Find", find),
        h("label", { class: "field grow" }, "Show", only),
        h("label", { class: "field grow" }, "Order", order),
      ),
      out,
    ),
  );
  await load();
}

/**
 * @param {Record<string, string>} options
 * @param {string} value
 * @param {() => void} onchange
 */
function select(options, value, onchange) {
  const list = h(
    "select",
    { id: freshId(), onchange },
    Object.entries(options).map(([name, words]) => h("option", { value: name }, words)),
  );
  list.value = value in options ? value : Object.keys(options)[0];
  return list;
}

/**
 * The answers of several runs side by side, paired by question.
 * @param {{columns: Column[], items: Item[]}[]} found
 * @returns {[Column[], Item[]]}
 */
function joined(found) {
  const columns = found.flatMap((one) => one.columns);
  /** @type {Map<string, Item>} */
  const items = new Map();
  let first = 0;
  for (const one of found) {
    const seen = /** @type {Record<string, number>} */ ({});
    for (const item of one.items) {
      const question = JSON.stringify([item.instruction, item.input, item.reference]);
      seen[question] = (seen[question] ?? 0) + 1;
      const key = `${question}${seen[question]}`;
      const known = items.get(key) ?? { ...item, answers: columns.map(() => null) };
      item.answers.forEach((answer, i) => {
        known.answers[first + i] = answer;
      });
      items.set(key, known);
    }
    first += one.columns.length;
  }
  return [columns, [...items.values()]];
}

/** @param {Item} item @param {string} only */
function fits(item, only) {
  const given = /** @type {Given[]} */ (item.answers.filter(Boolean));
  if (only === "wrong") return given.some((one) => one.right === false);
  if (only === "right") return given.some((one) => one.right);
  return only !== "judged" || given.some((one) => one.words);
}

/** The scores of an item as shares of their scales. @param {Item} item @param {Column[]} columns */
const shares = (item, columns) =>
  item.answers
    .map((one, i) => ((one?.score ?? null) === null ? null : Number(one?.score) / columns[i].score_max))
    .filter((one) => one !== null);
/** @param {Item} item @param {Column[]} columns */
const lowest = (item, columns) => Math.min(...shares(item, columns), 2);
/** @param {Item} item @param {Column[]} columns */
const spread = (item, columns) => {
  const all = shares(item, columns);
  return all.length > 1 ? Math.max(...all) - Math.min(...all) : -1;
};

/** @param {Item[]} items @param {number} i @param {Column} column */
function mean(items, i, column) {
  const scores = items.map((item) => item.answers[i]?.score).filter((one) => typeof one === "number");
  const value = scores.reduce((sum, one) => sum + Number(one), 0) / scores.length;
  return column.score_max === 1 ? percent(value || 0) : decimal(value, 1);
}

/** @param {Item} item @param {Column[]} columns */
function card(item, columns) {
  return h(
    "li",
    { class: "card" },
    h(
      "div",
      { class: "row" },
      h("h2", { class: "grow" }, item.instruction),
      item.skill && h("span", { class: "tag" }, item.skill),
    ),
    item.input && h("p", { class: "model prompt" }, item.input),
    h(
      "div",
      { class: "pair" },
      h("div", {}, h("h3", {}, "reference"), h("p", { class: "model" }, item.reference)),
      item.answers.map((given, i) => given && answer(given, columns[i])),
    ),
  );
}

/** @param {Given} given @param {Column} column */
function answer(given, column) {
  const score =
    given.score === null
      ? given.status
      : `${column.score_name} ${column.score_max === 1 ? decimal(given.score) : `${decimal(given.score, 0)} of ${column.score_max}`}`;
  return h(
    "div",
    {},
    h(
      "h3",
      {},
      `${column.label} · ${score}`,
      given.right === null
        ? null
        : h("span", { class: given.right ? "right" : "wrong" }, given.right ? " ✓ exact" : " ✗"),
    ),
    h("p", { class: "model" }, given.text || h("i", {}, "no answer")),
    given.words &&
      h("details", {}, h("summary", {}, "Judge's reply"), h("p", { class: "model" }, given.words)),
  );
}
