// Show thousands of test items, ten at a time; only these ten are in the page.
"use strict";
(() => {
  const { find, make, drawn } = shared;
  const { columns, items, perPage } = JSON.parse(find("page-data").textContent).items;
  const list = find("item-list");
  const state = { words: "", which: "all", skill: "", order: "file", page: 1 };
  let chosen = items.map((item, i) => i);

  const fold = (text) => text.toLowerCase();
  const share = (item, i) => (item.a[i] && item.a[i].p !== null ? item.a[i].p / columns[i].max : null);
  const mean = (item) => {
    const known = columns.map((_, i) => share(item, i)).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const isAlone = (item, i) => { // is this column's score above every other's?
    const own = share(item, i);
    return own !== null && columns.every((_, j) => j === i || (share(item, j) !== null && share(item, j) < own));
  };
  const answers = (item) => item.a.filter((answer) => answer !== null);

  const filters = { all: ["All items", () => true] };
  if (columns.length > 1) {
    filters.differ = ["Scores differ", (item) => item.d !== null && item.d > 0];
    columns.forEach((column, i) => { filters[`best-${i}`] = [`${column.label} scores best`, (item) => isAlone(item, i)]; });
    filters.shared = ["Answered by all models", (item) => answers(item).length === columns.length];
  }
  if (items.some((item) => answers(item).some((answer) => answer.ok !== undefined))) {
    filters.right = ["All answers correct", (item) => answers(item).every((answer) => answer.ok === true)];
    filters.wrong = ["No answer correct", (item) => answers(item).every((answer) => answer.ok === false)];
  }
  filters.unscored = ["Not scored for every model", (item) => answers(item).some((answer) => answer.p === null)];
  filters.empty = ["With an empty answer", (item) => answers(item).some((answer) => !answer.t.trim())];

  const unknownLast = (value, isDown) => (value === null ? -Infinity : isDown ? value : -value);
  const orders = { file: ["Order of the file", null] };
  if (columns.length > 1) orders.spread = ["Largest score difference", (item) => unknownLast(item.d, true)];
  orders.low = ["Lowest score", (item) => unknownLast(mean(item), false)];
  orders.high = ["Highest score", (item) => unknownLast(mean(item), true)];
  if (columns.length > 1) {
    columns.forEach((column, i) => {
      orders[`low-${i}`] = [`Lowest score of ${column.label}`, (item) => unknownLast(share(item, i), false)];
    });
  }

  // The texts of each item, joined and folded at the first search.
  const haystacks = [];
  const haystack = (i) => {
    if (haystacks[i] === undefined) {
      const item = items[i];
      const texts = answers(item).flatMap((answer) => [answer.t, answer.w || ""]);
      haystacks[i] = fold([item.q, item.i, item.r, item.s, ...texts].join("\n"));
    }
    return haystacks[i];
  };

  const marked = (element, text) => { // highlight the search words
    const wanted = fold(state.words.trim());
    const folded = fold(text);
    if (!wanted || folded.length !== text.length) { element.append(text); return element; }
    let from = 0;
    for (let at = folded.indexOf(wanted), n = 0; at >= 0 && n < 50; at = folded.indexOf(wanted, from), n += 1) {
      element.append(text.slice(from, at), make("mark", text.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
    element.append(text.slice(from));
    return element;
  };
  const paragraph = (text, cssClass) => (text ? marked(make("p", undefined, cssClass), text) : make("p", "(nothing)", "nothing"));

  const verdict = (answer, column) => {
    const line = make("p", undefined, "verdict");
    if (answer.ok !== undefined) line.append(make("span", answer.ok ? "✓ exact" : "✗ not exact", answer.ok ? "right" : "wrong"), " ");
    const scored = answer.p === null ? "no score" : column.max === 1 ? `${column.score} ${answer.p.toFixed(2)}` : `${Number(answer.p.toFixed(2))} of ${column.max}`;
    line.append(make("b", scored));
    if (answer.st) line.append(" ", make("span", answer.st, "wrong"));
    return line;
  };
  const meter = (value, role) => {
    const bar = drawn("svg", { class: "bar", "aria-hidden": "true" });
    for (const [width, cssClass] of [["100%", "track"], [`${100 * value}%`, `f-${role}`]]) {
      bar.append(drawn("rect", { width, height: 6, y: 5, rx: 2, class: cssClass }));
    }
    return bar;
  };
  const box = (item, answer, i) => {
    const element = make("div");
    const whose = make("p", undefined, "whose");
    const swatch = document.querySelectorAll(".runs .swatch")[columns[i].run];
    if (swatch) whose.append(swatch.cloneNode(true), " ");
    whose.append(columns[i].label);
    element.append(whose);
    if (answer === null) { element.append(make("p", "not asked", "nothing")); return element; }
    element.append(paragraph(answer.t, "model"), verdict(answer, columns[i]));
    if (answer.p !== null) element.append(meter(Math.min(1, Math.max(0, share(item, i))), columns.length > 1 ? `run${(columns[i].run % 6) + 1}` : "val"));
    if (answer.w) {
      const details = make("details");
      details.append(make("summary", "Reply of the judge"), paragraph(answer.w, "words"));
      details.open = Boolean(state.words.trim()) && fold(answer.w).includes(fold(state.words.trim()));
      element.append(details);
    }
    return element;
  };
  const card = (i) => {
    const item = items[i];
    const element = make("li", undefined, "item");
    element.append(make("p", `Item ${(i + 1).toLocaleString("en")}${item.s ? ` · ${item.s}` : ""}`, "number"), paragraph(item.q, "task"));
    if (item.i) element.append(paragraph(item.i, "task-input"));
    const boxes = make("div", undefined, "columns");
    const reference = make("div", undefined, "reference");
    reference.append(make("p", "Reference", "whose"), paragraph(item.r, "model"));
    if (columns.length > 1) element.append(reference); // above; a single answer is next to it
    else boxes.append(reference);
    boxes.append(...item.a.map((answer, k) => box(item, answer, k)));
    element.append(boxes);
    return element;
  };

  const choose = () => {
    const wanted = fold(state.words.trim());
    const [, keeps] = filters[state.which];
    chosen = items.map((_, i) => i).filter((i) =>
      keeps(items[i]) && (!state.skill || items[i].s === state.skill) && (!wanted || haystack(i).includes(wanted)));
    const [, value] = orders[state.order];
    if (value) {
      const values = new Map(chosen.map((i) => [i, value(items[i])]));
      chosen.sort((a, b) => (values.get(a) === values.get(b) ? a - b : values.get(b) - values.get(a)));
    }
  };
  const number = (n) => n.toLocaleString("en");
  const show = () => {
    const n_pages = Math.max(1, Math.ceil(chosen.length / perPage));
    state.page = Math.min(n_pages, Math.max(1, state.page));
    const start = (state.page - 1) * perPage;
    const seen = chosen.slice(start, start + perPage);
    list.replaceChildren(...seen.map(card));
    find("found").textContent = chosen.length === 0 ? "No item matches."
      : `Items ${number(start + 1)} to ${number(start + seen.length)} of ${number(chosen.length)}${chosen.length < items.length ? `, out of ${number(items.length)}` : ""}`;
    find("pages").textContent = number(n_pages);
    find("page").max = n_pages;
    find("page").value = state.page;
    find("earlier").disabled = state.page === 1;
    find("later").disabled = state.page === n_pages;
  };
  const changed = () => { state.page = 1; choose(); show(); };
  const turn = (by) => {
    state.page += by;
    show();
    find("items-title").scrollIntoView({ block: "nearest" });
    find("finder").scrollIntoView({ block: "start" });
  };

  const fill = (select, options) => select.append(...options.map(([value, words]) => {
    const option = make("option", words);
    option.value = value;
    return option;
  }));
  fill(find("which"), Object.entries(filters).map(([value, [words]]) => [value, words]));
  fill(find("order"), Object.entries(orders).map(([value, [words]]) => [value, words]));
  const skills = [...new Set(items.map((item) => item.s).filter(Boolean))].sort();
  fill(find("skill"), [["", "All skills"], ...skills.map((skill) => [skill, skill])]);
  find("skill").parentElement.hidden = skills.length < 2;

  for (const [id, key] of [["find", "words"], ["which", "which"], ["skill", "skill"], ["order", "order"]]) {
    find(id).addEventListener(id === "find" ? "input" : "change", (event) => { state[key] = event.target.value; changed(); });
  }
  find("finder").addEventListener("submit", (event) => event.preventDefault());
  find("earlier").addEventListener("click", () => turn(-1));
  find("later").addEventListener("click", () => turn(1));
  find("page").addEventListener("change", (event) => { state.page = Math.round(Number(event.target.value)) || 1; show(); });
  find("finder").hidden = false;
  find("pager").hidden = false;
  choose();
  show();
})();
