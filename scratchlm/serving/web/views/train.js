// Train: the curves and samples of runs while they are trained, runs compared, and the report in place.
import { get } from "../api.js";
import { figure } from "../components/candidate-list.js";
import { LineChart } from "../components/line-chart.js";
import { tabBar } from "../components/tab-bar.js";
import { button, h, nothing, problem, put } from "../dom.js";
import { count, decimal, duration, listed, percent } from "../format.js";
import { hasFolder, runsTable, startRun, stopRun } from "./train-runs.js";

/** @typedef {{name: string, state: string, problem: string, made_by: string, stages: string[], step: number | null,
 *    figures: Record<string, number | null>, metrics: Record<string, string>, changed_at: number}} Run */
/** @typedef {{step: number, tokens?: number, elapsed_s?: number, train_loss?: number, val_loss?: number, val_accuracy?: number}} Row */
/** @typedef {Run & {settings: Record<string, any>, has_report: boolean, history: Record<string, Row[]>, samples: {step: number, prompt: string, text: string}[]}} FullRun */

const EVERY_MS = 3000;
const STAGES = /** @type {Record<string, string>} */ ({
  pretrain: "Pre-training",
  classify: "Classification",
  instruct: "Instructions",
  prefer: "Preferences",
});

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  /** @type {Run[]} */
  let runs = [];
  /** @type {FullRun[]} those that are looked at */
  let chosen = [];
  let names = address.text("runs").split("|").filter(Boolean);
  let stage = address.text("stage");
  let hasReport = address.text("report") === "1";
  let drawn = ""; // what is on the page, so that a poll without news changes nothing
  let timer = 0;
  let isGone = false;

  const { can_control_runs: canControl } = await get("/api/page");
  const head = h("div", { class: "row" }, h("h1", {}, "Train"));
  const table = h("div", { class: "card" });
  const detail = h("div", { class: "stack" });
  const mishap = h("div", {});
  const keep = () => address.set({ runs: names.join("|"), stage, report: hasReport });
  const choose = (/** @type {string} */ name) => {
    names = names.includes(name) ? names.filter((one) => one !== name) : [...names, name];
    keep();
    poll();
  };
  /** @type {Set<string>} runs that were asked to stop */
  const stopping = new Set();
  /** @param {() => Promise<void>} change of a run; what goes wrong is shown */
  const control = async (change) => {
    put(mishap);
    await change().catch((error) => put(mishap, problem(error)));
    drawn = "";
    poll();
  };
  const start = () =>
    control(async () => {
      const name = await startRun();
      if (name) names = [name];
      keep();
    });
  const stop = (/** @type {string} */ name) =>
    control(async () => {
      if (await stopRun(name)) stopping.add(name);
    });

  const poll = async () => {
    clearTimeout(timer);
    try {
      runs = (await get("/api/runs")).runs;
      if (!names.length && runs.length)
        names = [[...runs].sort((a, b) => rank(b) - rank(a) || b.changed_at - a.changed_at)[0].name];
      names = names.filter((name) => runs.some((run) => run.name === name));
      const shown = names.filter((name) => runs.some((run) => run.name === name && hasFolder(run)));
      chosen = await Promise.all(shown.map((name) => get(`/api/runs/${encodeURIComponent(name)}`)));
      draw();
    } catch (error) {
      put(detail, problem(error));
      drawn = "";
    }
    clearTimeout(timer); // of another poll that has ended meanwhile
    if (!isGone) timer = window.setTimeout(poll, document.hidden ? 4 * EVERY_MS : EVERY_MS);
  };

  const draw = () => {
    const now = JSON.stringify([
      runs,
      chosen.map((run) => [run.name, run.history, run.samples?.length]),
      stage,
      hasReport,
    ]);
    if (now === drawn) return;
    drawn = now;
    table.hidden = !runs.length;
    if (!runs.length)
      return put(
        detail,
        nothing(
          "No runs yet",
          "Each run and its curves appear here as soon as it starts.",
          "scratchlm run quickstart",
        ),
      );
    for (const name of stopping)
      if (!runs.some((run) => run.name === name && run.state === "running")) stopping.delete(name);
    const focused =
      table.contains(document.activeElement) && document.activeElement?.getAttribute("aria-label");
    put(table, runsTable(runs, { names, choose, canStop: canControl, stopping, stop }));
    const again = [...table.querySelectorAll("[aria-label]")].find(
      (one) => one.getAttribute("aria-label") === focused,
    );
    /** @type {HTMLElement | undefined} */ (again)?.focus();
    const stages = Object.keys(STAGES).filter((name) => chosen.some((run) => run.history?.[name]?.length));
    if (!stages.length)
      return put(
        detail,
        h("p", { class: "lead" }, names.length ? "No measurements yet." : "Choose a run."),
      );
    if (!stages.includes(stage)) stage = stages[stages.length - 1];
    const body = h("div", { class: "stack" });
    const bar =
      stages.length > 1 &&
      tabBar("Stage", Object.fromEntries(stages.map((name) => [name, STAGES[name]])), stage, (name) => {
        stage = name;
        keep();
        drawStage(body);
      });
    put(detail, bar, body);
    if (!bar) drawStage(body);
  };

  /** @param {HTMLElement} body */
  const drawStage = (body) => {
    const [run] = chosen;
    const chart = new LineChart();
    put(
      body,
      chosen.length === 1 && progress(run, stage),
      h(
        "section",
        { class: "card" },
        h("h2", {}, chosen.length > 1 ? `Loss of ${listed(chosen.map((one) => one.name))}` : "Loss"),
        chart,
      ),
      accuracy(chosen, stage),
      stage === "pretrain" && samples(chosen),
      chosen.length === 1 && report(run),
    );
    chart.show({
      label: "Loss by step",
      xName: "step",
      format: (y) => decimal(y),
      height: 300,
      series: curves(chosen, stage),
    });
  };

  /** @param {FullRun} run */
  const report = (run) => {
    const open = h(
      "details",
      {
        class: "card",
        open: hasReport,
        ontoggle: () => {
          hasReport = open.open;
          keep();
          if (hasReport && !open.querySelector("iframe")) load();
        },
      },
      h("summary", {}, "Report of this run"),
    );
    const load = () =>
      open.append(
        run.has_report
          ? h("iframe", {
              class: "report",
              src: `/api/runs/${encodeURIComponent(run.name)}/report`,
              title: `Report of ${run.name}`,
              sandbox: "allow-scripts",
            })
          : h("p", { class: "hint" }, "The report is written when the run ends."),
      );
    if (hasReport) load();
    return open;
  };

  if (canControl) head.append(button("Start a quickstart", start));
  put(place, head, h("div", { class: "stack" }, mishap, table, detail));
  await poll();
  return () => {
    isGone = true;
    clearTimeout(timer);
  };
}

/** Running runs come first. @param {Run} run */
const rank = (run) => (run.state === "running" ? 1 : 0);

/** @param {FullRun} run @param {string} stage */
function progress(run, stage) {
  const rows = run.history[stage] ?? [];
  const last = rows[rows.length - 1];
  const earlier = rows[Math.max(0, rows.length - 20)];
  const spent = (last?.elapsed_s ?? 0) - (earlier?.elapsed_s ?? 0);
  const speed = ((last?.tokens ?? 0) - (earlier?.tokens ?? 0)) / spent;
  const nSteps = run.settings[stage]?.max_steps;
  const left = nSteps && last ? ((nSteps - last.step) * spent) / Math.max(last.step - earlier.step, 1) : NaN;
  const isRunning = run.state === "running";
  const best = Math.min(...rows.map((row) => row.val_loss ?? Infinity));
  return h(
    "dl",
    { class: "figures card" },
    figure("step", last ? `${count(last.step)}${nSteps ? ` of ${count(nSteps)}` : ""}` : "–"),
    figure("tokens seen", last?.tokens ? count(last.tokens) : "–"),
    figure("tokens per second", speed > 0 && Number.isFinite(speed) ? count(Math.round(speed)) : "–"),
    isRunning ? figure("time left", duration(left)) : figure("time", duration(last?.elapsed_s ?? NaN)),
    figure("best validation loss", Number.isFinite(best) ? decimal(best, 3) : "–"),
  );
}

/** @param {FullRun[]} runs @param {string} stage @returns {import("../components/line-chart.js").Series[]} */
function curves(runs, stage) {
  const line = (/** @type {FullRun} */ run, /** @type {"train_loss" | "val_loss"} */ key) =>
    /** @type {[number, number][]} */ (
      (run.history?.[stage] ?? [])
        .filter((row) => typeof row[key] === "number")
        .map((row) => [row.step, row[key]])
    );
  const several = runs.length > 1;
  return runs.flatMap((run, i) => {
    const validation = { name: several ? run.name : "validation", points: line(run, "val_loss"), colour: i };
    const training = {
      name: several ? `${run.name}, training` : "training",
      points: line(run, "train_loss"),
      colour: several ? i : 1,
      isDashed: several,
    };
    return [validation, training].filter((one) => one.points.length);
  });
}

/** @param {FullRun[]} runs @param {string} stage */
function accuracy(runs, stage) {
  const series = runs
    .map((run, colour) => ({
      name: run.name,
      colour,
      points: /** @type {[number, number][]} */ (
        (run.history?.[stage] ?? [])
          .filter((row) => typeof row.val_accuracy === "number")
          .map((row) => [row.step, row.val_accuracy])
      ),
    }))
    .filter((one) => one.points.length);
  if (!series.length) return null;
  const chart = new LineChart();
  chart.show({ label: "Validation accuracy by step", xName: "step", format: percent, series });
  return h("section", { class: "card" }, h("h2", {}, "Validation accuracy"), chart);
}

/** The last samples first. @param {FullRun[]} runs */
function samples(runs) {
  const found = runs
    .map((run) => ({ run, rows: [...(run.samples ?? [])].reverse() }))
    .filter((one) => one.rows.length);
  if (!found.length) return null;
  return h(
    "section",
    { class: "card samples" },
    h("h2", {}, "Samples"),
    h(
      "div",
      { class: "pair" },
      found.map(({ run, rows }) =>
        h(
          "div",
          {},
          runs.length > 1 && h("h3", {}, run.name),
          rows.slice(0, 4).map((row) => sample(row)),
          rows.length > 4 &&
            h(
              "details",
              {},
              h("summary", {}, "Earlier samples"),
              rows.slice(4).map((row) => sample(row)),
            ),
        ),
      ),
    ),
  );
}

/** @param {{step: number, prompt: string, text: string}} row */
function sample(row) {
  const isWhole = row.text.startsWith(row.prompt);
  return h(
    "div",
    {},
    h("h3", {}, `step ${count(row.step)}`),
    h(
      "p",
      { class: "model" },
      h("span", { class: "prompt" }, row.prompt),
      isWhole ? row.text.slice(row.prompt.length) : row.text,
    ),
  );
}
