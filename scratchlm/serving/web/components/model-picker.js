// Choose one of the server's models.
import { listModels } from "../api.js";
import { h, nothing, put } from "../dom.js";
import { count, large } from "../format.js";

/**
 * A labelled list of models.
 * @param {import("../api.js").Model[]} models
 * @param {{label?: string, value: string, none?: string, onchange: (id: string) => void}} options `none` names the
 *   choice of no model
 */
export function modelPicker(models, { label = "Model", value, none, onchange }) {
  const list = h(
    "select",
    { onchange: () => onchange(list.value) },
    none && h("option", { value: "" }, none),
    models.map((one) => h("option", { value: one.id }, one.id)),
  );
  list.value = models.some((one) => one.id === value) || none ? value : (models[0]?.id ?? "");
  return h("label", { class: "field" }, label, list);
}

/** A model in a few words. @param {import("../api.js").Model} model */
export function modelFacts(model) {
  const bits = model.n_bits < 32 ? `, ${model.n_bits} bits` : "";
  return `${large(model.n_parameters)} parameters${bits}, context of ${count(model.context_length)} tokens`;
}

/**
 * The model that an address names, or the first that is fit.
 * @param {import("../api.js").Model[]} models
 * @param {string} id
 */
export function chosenModel(models, id) {
  return models.find((one) => one.id === id) ?? models[0];
}

/** @param {import("../api.js").Model} model */
export const isGenerator = (model) => model.kind !== "classification";

/**
 * Draw a view of the models that write text, or say that there are none.
 * @param {HTMLElement} place
 * @param {(models: import("../api.js").Model[]) => {draw: () => void, stop: () => void}} make
 */
export async function showWriters(place, make) {
  const models = (await listModels()).filter(isGenerator);
  if (!models.length) {
    put(
      place,
      nothing(
        "No language model",
        "This server has no language model; start it with one:",
        "scratchlm serve runs/quickstart",
      ),
    );
    return;
  }
  const view = make(models);
  view.draw();
  return () => view.stop();
}
