// The model itself: its settings, the shapes of its tensors, its parts, and their weights as histograms.
import { listModels, post } from "../api.js";
import { figure } from "../components/candidate-list.js";
import { chosenModel, modelPicker } from "../components/model-picker.js";
import { button, h, nothing, problem, put, scrollingTable, svg } from "../dom.js";
import { count, large, percent } from "../format.js";

/** @typedef {{name: string, shape: number[], n_parameters: number, mean?: number, std?: number, low?: number, high?: number, counts?: number[]}} Tensor */
/** @typedef {{name: string, n_parameters: number, tensors: Tensor[]}} Part */

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  const models = await listModels();
  if (!models.length)
    return put(
      place,
      nothing("No model", "This server has no model; start it with one:", "scratchlm serve runs/quickstart"),
    );
  let model = chosenModel(models, address.text("model"));
  const body = h("div", { class: "stack" });
  const load = async () => {
    address.set({ model: model.id });
    put(body, h("p", { class: "busy" }, "Loading the model …"));
    try {
      draw(await post("/api/parts", { model: model.id }));
    } catch (error) {
      put(body, problem(error));
    }
  };
  /** @param {{config: Record<string, any>, n_parameters: number, parts: Part[]}} found */
  const draw = ({ config, n_parameters, parts }) => {
    const most = Math.max(...parts.map((part) => part.n_parameters));
    const weights = h("section", { class: "card", "aria-live": "polite", hidden: true });
    const open = async (/** @type {string} */ name) => {
      address.set({ part: name });
      weights.hidden = false;
      put(weights, h("p", { class: "busy" }, "Counting weights …"));
      try {
        const [part] = (await post("/api/parts", { model: model.id, part: name })).parts;
        put(
          weights,
          h("h2", {}, titleOf(name)),
          h(
            "p",
            { class: "hint" },
            "Distribution of the weights within four standard deviations of their mean.",
          ),
          h("div", { class: "columns" }, part.tensors.map(histogram)),
        );
        weights.scrollIntoView({ block: "nearest" });
      } catch (error) {
        put(weights, problem(error));
      }
    };
    put(
      body,
      h(
        "dl",
        { class: "figures card" },
        figure("parameters", large(n_parameters)),
        figure("layers", String(config.n_layers)),
        figure("heads", String(config.n_heads)),
        figure("width", count(config.emb_dim)),
        figure("vocabulary", count(config.vocab_size)),
        figure("context", count(config.context_length)),
        model.n_bits < 32 && figure("bits per weight", String(model.n_bits)),
      ),
      h(
        "div",
        { class: "columns" },
        h(
          "section",
          { class: "card" },
          h("h2", {}, "Parts"),
          h("p", { class: "hint" }, "In the order of the computation; choose one to see its weights."),
          h(
            "div",
            { class: "parts" },
            parts.map((part) =>
              h(
                "div",
                { class: "part" },
                button(titleOf(part.name), () => open(part.name), { class: "small" }),
                h("div", { class: "bar-line", vars: { "--share": part.n_parameters / most } }),
                h(
                  "span",
                  { class: "number", title: percent(part.n_parameters / n_parameters) },
                  large(part.n_parameters),
                ),
              ),
            ),
          ),
        ),
        h(
          "div",
          { class: "stack" },
          h(
            "section",
            { class: "card" },
            h("h2", {}, "Shapes"),
            h("p", { class: "hint" }, "The tensors of B texts of T tokens, from input to output."),
            flow(config, model),
          ),
          h(
            "details",
            { class: "card" },
            h("summary", {}, "All settings"),
            scrollingTable(
              [],
              Object.entries(config).map(([name, value]) =>
                h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, String(value))),
              ),
            ),
          ),
        ),
      ),
      weights,
    );
    const part = address.text("part");
    if (parts.some((one) => one.name === part)) open(part);
  };
  put(
    place,
    h("h1", {}, "Model"),
    h(
      "div",
      { class: "stack" },
      modelPicker(models, {
        value: model.id,
        onchange: (id) => {
          model = chosenModel(models, id);
          load();
        },
      }),
      body,
    ),
  );
  await load();
}

/** @param {string} name */
function titleOf(name) {
  const block = /^trf_blocks\.(\d+)$/.exec(name);
  const titles = /** @type {Record<string, string>} */ ({
    tok_emb: "Embedding",
    pos_emb: "Positions",
    final_norm: "Final norm",
    out_head: "Output head",
  });
  return block ? `Block ${block[1]}` : (titles[name] ?? name);
}

/** @param {Record<string, any>} config @param {import("../api.js").Model} model */
function flow(config, model) {
  const { emb_dim: width, n_heads: heads } = config;
  const each = width / heads;
  const inner = config.ff_dim ?? 4 * width;
  const out = model.classes.length || config.vocab_size;
  const rows = [
    ["token ids", "B, T"],
    ["token embeddings", `B, T, ${count(width)}`],
    ["queries of a block", `B, ${heads}, T, ${each}`],
    ["keys and values", `B, ${config.n_kv_heads ?? heads}, T, ${each}`],
    ["attention weights", `B, ${heads}, T, T`],
    ["feed-forward network", `B, T, ${count(inner)}`],
    [`after ${config.n_layers} blocks and the final norm`, `B, T, ${count(width)}`],
    [
      model.classes.length ? "scores of the classes" : "scores of the next token",
      model.classes.length ? `B, ${out}` : `B, T, ${count(out)}`,
    ],
  ];
  return scrollingTable(
    [],
    rows.map(([name, shape]) =>
      h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, h("code", {}, `(${shape})`))),
    ),
  );
}

/** @param {Tensor} tensor */
function histogram(tensor) {
  const counts = tensor.counts ?? [];
  const most = Math.max(...counts, 1);
  const wide = 300 / counts.length;
  const facts = `(${tensor.shape.join(", ")}) · ${large(tensor.n_parameters)} · mean ${Number(tensor.mean).toPrecision(2)} · std ${Number(tensor.std).toPrecision(2)}`;
  return h(
    "figure",
    { class: "histogram" },
    h("figcaption", {}, h("code", {}, tensor.name), h("div", { class: "hint" }, facts)),
    svg(
      "svg",
      { viewBox: "0 0 300 84", role: "img", "aria-label": `${tensor.name}: ${facts}` },
      counts.map((n, i) =>
        svg("rect", { x: i * wide, y: 68 - (66 * n) / most, width: wide - 0.8, height: (66 * n) / most }),
      ),
      svg("text", { x: 0, y: 81 }, Number(tensor.low).toPrecision(2)),
      svg("text", { x: 300, y: 81, "text-anchor": "end" }, Number(tensor.high).toPrecision(2)),
    ),
  );
}
