// Beam search on the prompt: its results, and the tree of what it tried.
import { isStopped, post } from "../api.js";
import { BeamTree } from "../components/beam-tree.js";
import { h, problem, put, scrollingTable } from "../dom.js";
import { decimal } from "../format.js";

/** @typedef {{text: string, ids: number[], score: number, log_prob: number, finished_by: string}} Beam */

const MAX_TOKENS = 24; // a longer tree cannot be read

/** @param {import("./microscope.js").Microscope} view @param {boolean} isNew */
export async function showBeams(view, isNew) {
  const nBeams = Math.min(Math.max(view.address.number("beams", 4), 2), 8);
  const many = h("input", {
    type: "number",
    min: 2,
    max: 8,
    value: nBeams,
    "aria-label": "Number of beams",
    onchange: () => view.address.set({ beams: many.value }),
  });
  const out = h("div", { class: "stack" });
  put(
    view.result,
    h(
      "p",
      { class: "lead" },
      "Beam search extends the most likely beginnings in parallel. The best text does not always begin with the most likely token.",
    ),
    h("div", { class: "row" }, h("label", { class: "field" }, "Beams", many)),
    out,
  );
  if (!isNew) return;
  const controller = new AbortController();
  view.running = controller;
  view.go.textContent = "Stop";
  put(out, h("p", { class: "busy" }, "Searching …"));
  try {
    const request = view.request({
      temperature: 0,
      max_tokens: Math.min(Number(view.settings.max_tokens), MAX_TOKENS),
    });
    const { model, prompt, messages, max_tokens } = /** @type {any} */ (request);
    const found = await post(
      "/api/beams",
      { model, prompt, messages, max_tokens, n_beams: nBeams },
      controller.signal,
    );
    draw(out, found.beams, found.nodes);
  } catch (error) {
    put(out, isStopped(error) ? h("p", { class: "busy" }, "Stopped.") : problem(error));
  } finally {
    view.running = null;
    view.go.textContent = "Generate";
  }
}

/**
 * @param {HTMLElement} out
 * @param {Beam[]} beams
 * @param {import("../components/beam-tree.js").TreeNode[]} nodes
 */
function draw(out, beams, nodes) {
  const tree = new BeamTree();
  const box = h("input", { type: "checkbox", onchange: () => tree.show(nodes, beams[0].ids, box.checked) });
  tree.show(nodes, beams[0].ids, false);
  put(
    out,
    h(
      "div",
      { class: "card" },
      scrollingTable(
        [
          h("th", { scope: "col" }, "text"),
          h("th", { scope: "col", class: "number" }, "score"),
          h("th", { scope: "col", class: "number" }, "log-probability"),
        ],
        beams.map((beam) =>
          h(
            "tr",
            {},
            h("td", { class: "model" }, beam.text.replace(/\n/g, "⏎")),
            h("td", { class: "number" }, decimal(beam.score, 3)),
            h("td", { class: "number" }, decimal(beam.log_prob)),
          ),
        ),
      ),
    ),
    h(
      "div",
      { class: "card" },
      h(
        "div",
        { class: "row" },
        h("h2", {}, "Search tree"),
        h("label", { class: "check" }, box, "Show dropped candidates"),
      ),
      tree,
    ),
  );
}
