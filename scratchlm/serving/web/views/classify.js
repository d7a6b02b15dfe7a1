// Classify: paste messages or drop a file; labels, probabilities, and the tokens that mattered.
import { isStopped, listModels, post } from "../api.js";
import { growingText } from "../components/growing-text.js";
import { chosenModel, modelFacts, modelPicker } from "../components/model-picker.js";
import { download, parse, write } from "../csv.js";
import { button, h, nothing, problem, put } from "../dom.js";
import { count, percent, plural } from "../format.js";
import { evidenceText } from "./inside-tokens.js";

/** @typedef {{text: string, label: string, probability: number, truncated: boolean, probabilities: Record<string, number>}} Result */

const MAX_TEXTS = 2000; // of one request
const MAX_SHOWN = 200; // rows of the table; the CSV file has all
const TEXT_COLUMNS = ["text", "message", "sms", "sentence", "content", "v2"];
const EXAMPLES = [
  "Congratulations, you won a holiday! Text CLAIM to 00193 now",
  "Are we still meeting at eight?",
  "FREE entry: reply YES to win a phone",
];

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  const models = (await listModels()).filter((one) => one.kind === "classification");
  if (!models.length) {
    return put(
      place,
      nothing(
        "No classifier",
        "This server has no classifier. Train one, then serve it:",
        "scratchlm run quickstart\nscratchlm serve runs/quickstart/classify",
      ),
    );
  }
  let model = chosenModel(models, address.text("model"));
  /** @type {Result[]} */
  let results = [];
  /** @type {AbortController | null} */
  let running = null;
  const out = h("div", { class: "stack", "aria-live": "polite" });
  const facts = h("p", { class: "hint" });
  const keep = () => {
    facts.textContent = `${model.classes.join(" or ")}; ${modelFacts(model)}`;
    address.set({ model: model.id, prompt: input.box.value.length < 1500 ? input.box.value : null });
  };
  const input = growingText({
    label: "Messages, one per line",
    value: address.text("prompt", EXAMPLES.join("\n")),
    rows: 4,
    oninput: () => keep(),
  });
  const go = button("Classify", () => (running ? running.abort() : input.isEmpty() || run(input.box.value.split("\n"))), {
    class: "primary",
  });

  /** @param {string[]} lines */
  const run = async (lines) => {
    const texts = lines.map((line) => line.trim()).filter(Boolean);
    if (running || !texts.length) return;
    keep();
    const controller = (running = new AbortController());
    go.textContent = "Stop";
    results = [];
    try {
      for (let first = 0; first < texts.length; first += MAX_TEXTS) {
        put(out, h("p", { class: "busy" }, `Classifying ${plural(texts.length, "message")} …`));
        results.push(
          ...(
            await post(
              "/api/classify",
              { model: model.id, texts: texts.slice(first, first + MAX_TEXTS) },
              controller.signal,
            )
          ).results,
        );
      }
      draw();
    } catch (error) {
      put(out, isStopped(error) ? h("p", { class: "busy" }, "Stopped.") : problem(error));
    }
    running = null;
    go.textContent = "Classify";
  };

  const draw = () => {
    const totals = model.classes.map(
      (name) => `${count(results.filter((one) => one.label === name).length)} ${name}`,
    );
    put(
      out,
      h(
        "div",
        { class: "row" },
        h("h2", {}, plural(results.length, "message")),
        h("span", { class: "facts-line" }, totals.join(" · ")),
        button("Save as CSV", () =>
          download(
            "labels.csv",
            write([
              ["text", "label", "probability", ...model.classes],
              ...results.map((one) => [
                one.text,
                one.label,
                one.probability,
                ...model.classes.map((name) => one.probabilities[name] ?? ""),
              ]),
            ]),
          ),
        ),
      ),
      h(
        "ul",
        { class: "items" },
        results.slice(0, MAX_SHOWN).map((one) => item(one, model)),
      ),
      results.length > MAX_SHOWN &&
        h(
          "p",
          { class: "hint" },
          `The first ${MAX_SHOWN} of ${count(results.length)} are shown; the CSV file has all of them.`,
        ),
    );
  };

  const drop = h(
    "div",
    { class: "drop stack" },
    input.field,
    h(
      "div",
      { class: "row" },
      go,
      h(
        "label",
        { class: "button" },
        "Open a file",
        h("input", {
          type: "file",
          class: "hidden",
          accept: ".txt,.csv,.tsv,text/plain,text/csv",
          onchange: (/** @type {any} */ event) => take(event.target.files[0]),
        }),
      ),
      h(
        "span",
        { class: "hint" },
        "or drop one here: .txt with one message per line, or .csv or .tsv with a text column",
      ),
    ),
  );
  const take = async (/** @type {File | undefined} */ file) => {
    if (!file) return;
    const texts = textsOf(await file.text(), file.name);
    input.box.value = texts.slice(0, 20).join("\n");
    input.grow();
    run(texts);
  };
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") take(/** @type {DragEvent} */ (event).dataTransfer?.files[0]);
    });
  }
  put(
    place,
    h("h1", {}, "Classify"),
    h(
      "div",
      { class: "stack" },
      modelPicker(models, {
        value: model.id,
        onchange: (id) => {
          model = chosenModel(models, id);
          keep();
        },
      }),
      facts,
      drop,
      out,
    ),
  );
  if (address.params.get("prompt")) run(input.box.value.split("\n"));
  else facts.textContent = `${model.classes.join(" or ")}; ${modelFacts(model)}`;
  return () => running?.abort();
}

/** @param {Result} one @param {import("../api.js").Model} model */
function item(one, model) {
  const place = h("div", {});
  const why = button(
    "Why?",
    async () => {
      put(place, h("p", { class: "busy" }, "Computing …"));
      try {
        const found = await post("/api/inspect", { model: model.id, prompt: one.text });
        const choice =
          found.choices.find((/** @type {any} */ each) => each.text === one.label) ?? found.choices[0];
        put(
          place,
          h(
            "p",
            { class: "hint" },
            `Gradient times input: green tokens raise the score of ${one.label}, orange tokens lower it.`,
          ),
          evidenceText(
            found.tokens.map((/** @type {any} */ token) => token.text),
            choice.saliency,
          ),
        );
      } catch (error) {
        put(place, problem(error));
      }
    },
    { class: "small" },
  );
  return h(
    "li",
    { class: "card" },
    h(
      "div",
      { class: "row" },
      h("b", {}, one.label),
      h(
        "div",
        { class: "share grow" },
        h("div", { class: "bar-line", vars: { "--share": one.probability } }),
        h("span", { class: "facts-line" }, percent(one.probability)),
      ),
      one.truncated && h("span", { class: "tag bad" }, "truncated to the maximum length"),
      why,
    ),
    h("p", { class: "model" }, one.text),
    place,
  );
}

/** The messages of a file. @param {string} text @param {string} name */
function textsOf(text, name) {
  if (!/\.(csv|tsv)$/i.test(name)) return text.split("\n");
  const [head, ...rows] = parse(text, /\.tsv$/i.test(name) ? "\t" : undefined);
  const column = (head ?? []).findIndex((one) => TEXT_COLUMNS.includes(one.trim().toLowerCase()));
  const longest = (/** @type {string[]} */ row) =>
    row.reduce((best, one) => (one.length > best.length ? one : best), "");
  return column >= 0 ? rows.map((row) => row[column] ?? "") : [head ?? [], ...rows].map(longest);
}
