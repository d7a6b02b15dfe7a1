// The frame of the page: which view the address names, and the links between views.
import { listModels } from "./api.js";
import { h, problem, put } from "./dom.js";
import { Address } from "./state.js";

/** @typedef {(place: HTMLElement, address: Address) => Promise<void | (() => void)>} Show shows a view; returns what ends it */

/** @type {Record<string, {title: string, load: () => Promise<{show: Show}>}>} */
const VIEWS = {
  write: { title: "Write", load: () => import("./views/write.js") },
  microscope: { title: "Microscope", load: () => import("./views/microscope.js") },
  inside: { title: "Inside", load: () => import("./views/inside.js") },
  tokens: { title: "Tokens", load: () => import("./views/tokens.js") },
  classify: { title: "Classify", load: () => import("./views/classify.js") },
  train: { title: "Train", load: () => import("./views/train.js") },
  judge: { title: "Judge", load: () => import("./views/judge.js") },
  model: { title: "Model", load: () => import("./views/model.js") },
};
const FIRST = "write";

const main = /** @type {HTMLElement} */ (document.getElementById("view"));
let visit = 0; // of the view that is being opened; a later one wins
/** @type {() => void} */
let leave = () => {};

async function open() {
  const address = Address.read(FIRST);
  const view = VIEWS[address.view] ?? VIEWS[FIRST];
  const own = (visit += 1);
  const names = address.view === "judge" ? ["model"] : ["model", "other"]; // there, the other is a run
  const named = names.map((name) => address.text(name)).filter(Boolean); // before the view replaces them
  leave();
  leave = () => {};
  document.title = `${view.title} · scratchlm`;
  for (const one of document.querySelectorAll("nav a")) {
    const isHere = one.getAttribute("href") === `#/${address.view}`;
    if (isHere) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
    if (isHere) show(one);
  }
  const place = document.createElement("div");
  place.className = `view-${address.view}`;
  put(main, place); // views measure themselves, so they are built where they are seen
  try {
    const end = await (await view.load()).show(place, address);
    if (own === visit) leave = end ?? leave;
    else end?.();
    const missing = await missingModels(named);
    if (own === visit && missing.length) {
      const text = `The link names ${missing.join(" and ")}, which this server does not have.`;
      main.prepend(h("p", { class: "problem", role: "alert" }, text));
    }
  } catch (error) {
    put(place, problem(error));
  }
}

/** The models of a link that the server does not offer. @param {string[]} named */
async function missingModels(named) {
  if (!named.length) return [];
  const models = await listModels();
  return named.filter((id) => !models.some((one) => one.id === id));
}

/** Scroll the links so that one is in their middle; scrollIntoView would make Tab begin there. @param {Element} link */
function show(link) {
  const nav = /** @type {Element} */ (link.parentElement);
  const [around, own] = [nav.getBoundingClientRect(), link.getBoundingClientRect()];
  nav.scrollLeft += own.left - around.left - (around.width - own.width) / 2;
}

document.querySelector("[data-skip]")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address names a view, not an element
  main.focus();
});
window.addEventListener("hashchange", open);
listModels().catch(() => {}); // asked for while the view's scripts load; the view reports a failure
open();
