// The list of runs: which are shown, what came of them, and on the server's own machine to start and stop them.
import { post } from "../api.js";
import { confirmed } from "../components/confirm-dialog.js";
import { button, h } from "../dom.js";
import { count, decimal, percent } from "../format.js";

/** @typedef {import("./train.js").Run} Run */

const METRICS = /** @type {Record<string, string>} */ ({
  val_loss: "validation loss",
  test_accuracy: "test accuracy",
  exact_match: "exact match",
});

/** Whether a run has a folder that can be read. @param {Run} run */
export const hasFolder = (run) => !["starting", "failed"].includes(run.state);

/**
 * @param {Run[]} runs
 * @param {{names: string[], choose: (name: string) => void, canStop: boolean, stopping: Set<string>,
 *   stop: (name: string) => void}} options `names` are those that are shown
 */
export function runsTable(runs, { names, choose, canStop, stopping, stop }) {
  const headings = ["show", "run", "state", "step", "results"];
  const rows = runs.map((run) =>
    h(
      "tr",
      {},
      h(
        "td",
        {},
        hasFolder(run) &&
          h("input", {
            type: "checkbox",
            checked: names.includes(run.name),
            "aria-label": `Show ${run.name}`,
            onchange: () => choose(run.name),
          }),
      ),
      h("td", {}, h("b", {}, run.name), h("div", { class: "hint" }, run.made_by)),
      h(
        "td",
        { class: "state" },
        h("span", { class: `tag ${isLive(run) ? "live" : run.problem ? "bad" : ""}` }, run.state),
        canStop &&
          isLive(run) &&
          button(stopping.has(run.name) ? "Stopping …" : "Stop", () => stop(run.name), {
            class: "small",
            disabled: stopping.has(run.name),
            "aria-label": `Stop ${run.name}`,
          }),
      ),
      h("td", { class: "number" }, run.step === null ? "–" : count(run.step)),
      h("td", { class: "results" }, run.problem || results(run)),
    ),
  );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain runs" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          headings.map((one) => h("th", { scope: "col", class: one === "step" ? "number" : null }, one)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
}

/** @param {Run} run */
const isLive = (run) => run.state === "running" || run.state === "starting";

/** Stop a run if the reader confirms it. @param {string} name @returns {Promise<boolean>} whether it was asked to stop */
export async function stopRun(name) {
  const isWanted = await confirmed({
    title: `Stop ${name}?`,
    text: "It saves a checkpoint and ends; scratchlm run with its folder resumes it from there.",
    action: "Stop the run",
  });
  if (isWanted) await post(`/api/runs/${encodeURIComponent(name)}/stop`, {});
  return isWanted;
}

/** Start a quickstart if the reader confirms it. @returns {Promise<string | null>} its name */
export async function startRun() {
  const seed = h("input", {
    type: "number",
    min: 0,
    max: 2 ** 31 - 1,
    step: 1,
    placeholder: "the recipe's seed",
  });
  const isWanted = await confirmed({
    title: "Start a quickstart?",
    text:
      "It trains a small model from scratch on this machine, then fine-tunes it twice. It takes several minutes, uses every " +
      "processor core, and writes to a new folder. Restart scratchlm serve afterwards to use its models.",
    action: "Start training",
    fields: [h("label", { class: "field" }, "Seed", seed)],
  });
  if (!isWanted) return null;
  return (await post("/api/runs", seed.value === "" ? {} : { seed: seed.valueAsNumber })).name;
}

/** @param {Run} run */
const results = (run) =>
  Object.entries(run.figures)
    .filter(([, value]) => typeof value === "number")
    .map(
      ([stage, value]) =>
        `${METRICS[run.metrics[stage]] ?? run.metrics[stage]} ${run.metrics[stage] === "val_loss" ? decimal(value, 3) : percent(Number(value))}`,
    )
    .join(", ") || "–";
