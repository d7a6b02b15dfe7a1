// Tokens: how the same text is split into words, this model's tokens and GPT-2's, while it is typed.
import { get, isStopped, listModels, post } from "../api.js";
import { growingText } from "../components/growing-text.js";
import { chosenModel, modelPicker } from "../components/model-picker.js";
import { calmly, h, problem, put } from "../dom.js";
import { count, decimal, plural, visible } from "../format.js";

/** @typedef {{id: number | null, text: string, bytes: number[]}} Token */
/** @typedef {{vocab_size: number | null, n_tokens: number, tokens: Token[], merges?: string[][][]}} Tokenized */

const MAX_MERGE_CHARACTERS = 200;
const EXAMPLE = "The unbelievable café costs 1,234 € today.";

/** @param {HTMLElement} place @param {import("../state.js").Address} address */
export async function show(place, address) {
  const [models, facts] = await Promise.all([listModels(), get("/api/page")]);
  let model = chosenModel(models, address.text("model"));
  /** @type {AbortController | null} */
  let running = null;
  const text = growingText({
    label: "Text",
    value: address.text("prompt", EXAMPLE),
    rows: 3,
    oninput: () => later(),
  });
  const kinds = /** @type {const} */ (["word", "model", "gpt2"]);
  const titles = { word: "Words", model: "This model", gpt2: "GPT-2" };
  const hints = {
    word: "Split at spaces and punctuation; ids depend on the training text, so none are shown.",
    model: "Choose a token to see its bytes and how they were merged.",
    gpt2: "Byte pairs learned by OpenAI from 40 GB of web pages.",
  };
  const cards = Object.fromEntries(
    kinds.map((kind) => [kind, h("section", { class: "card", "aria-label": titles[kind] })]),
  );
  const detail = h("section", {
    class: "card",
    "aria-label": "The chosen token",
    "aria-live": "polite",
    hidden: true,
  });
  let chosen = address.number("token", -1);

  const update = async () => {
    running?.abort();
    const controller = (running = new AbortController());
    const value = text.box.value;
    address.set({
      model: model?.id,
      prompt: value === EXAMPLE ? null : value,
      token: chosen >= 0 ? chosen : null,
    });
    await Promise.all(
      kinds.map(async (kind) => {
        if (kind === "gpt2" && !facts.has_gpt2)
          return put(
            cards.gpt2,
            h("h2", {}, titles.gpt2),
            h("p", { class: "hint" }, "Its files are not on this machine. Fetch them, then reload:"),
            h("pre", {}, "scratchlm data fetch gpt2_bpe"),
          );
        if (kind === "model" && !model)
          return put(
            cards.model,
            h("h2", {}, titles.model),
            h("p", { class: "hint" }, "This server has no model."),
          );
        try {
          const merges = kind === "model" && value.length <= MAX_MERGE_CHARACTERS;
          const body = { kind, text: value, ...(kind === "model" && { model: model.id }) };
          const found = await withMerges(body, merges, controller.signal);
          drawCard(kind, found, value);
        } catch (error) {
          if (!isStopped(error)) put(cards[kind], h("h2", {}, titles[kind]), problem(error));
        }
      }),
    );
  };
  const later = calmly(update, 120);

  /** @param {"word" | "model" | "gpt2"} kind @param {Tokenized} found @param {string} value */
  const drawCard = (kind, found, value) => {
    const nBytes = new TextEncoder().encode(value).length;
    const words = [
      plural(found.n_tokens, "token"),
      found.n_tokens ? `${decimal(nBytes / found.n_tokens, 1)} bytes each` : "",
      found.vocab_size ? `vocabulary of ${count(found.vocab_size)}` : "",
    ]
      .filter(Boolean)
      .join(" · ");
    const isWalkable = kind === "model";
    const chips = found.tokens.map((token, i) =>
      h(
        isWalkable ? "button" : "li",
        {
          class: `chip ${isWalkable && i === chosen ? "chosen" : ""}`,
          type: isWalkable ? "button" : null,
          title: bytesOf(token),
          onclick: isWalkable
            ? () => {
                chosen = i;
                drawCard(kind, found, value);
                address.set({ token: i });
              }
            : null,
        },
        h("span", { class: "piece" }, visible(token.text)),
        token.id !== null && h("span", { class: "id" }, token.id),
      ),
    );
    put(
      cards[kind],
      h(
        "div",
        { class: "row" },
        h("h2", {}, kind === "model" ? model.id : titles[kind]),
        h("span", { class: "facts-line" }, words),
      ),
      h("p", { class: "hint" }, hints[kind]),
      h(isWalkable ? "div" : "ul", { class: "chips" }, chips),
    );
    if (isWalkable) drawDetail(found);
  };

  /** @param {Tokenized} found */
  const drawDetail = (found) => {
    const token = found.tokens[chosen];
    detail.hidden = !token;
    if (!token) return;
    const states = found.merges?.[chosen] ?? [];
    put(
      detail,
      h("h2", {}, visible(token.text)),
      h("p", {}, `id ${token.id}, ${plural(token.bytes.length, "byte")}: ${bytesOf(token)}`),
      states.length > 1 && h("h3", {}, "Its merges, in order"),
      states.length > 1 &&
        h(
          "ol",
          { class: "merges" },
          states.map((parts, step) =>
            h(
              "li",
              {},
              h("span", { class: "n" }, step === 0 ? "bytes" : `merge ${step}`),
              parts.map((part, at) =>
                h(
                  "span",
                  { class: `piece ${isNew(states[step - 1], parts, at) ? "new" : ""}` },
                  visible(part),
                ),
              ),
            ),
          ),
        ),
      states.length === 1 &&
        h(
          "p",
          { class: "hint" },
          token.bytes.length > 1
            ? "A special token; it was not merged."
            : "A single byte; nothing was merged.",
        ),
      !found.merges &&
        h("p", { class: "hint" }, `Merges are shown for texts of up to ${MAX_MERGE_CHARACTERS} characters.`),
    );
  };

  put(
    place,
    h("h1", {}, "Tokens"),
    h(
      "div",
      { class: "stack" },
      h(
        "p",
        { class: "lead" },
        "A model reads numbers, not letters. The same text becomes different numbers in different tokenizers; · is a space, ⏎ a new line.",
      ),
      model &&
        modelPicker(models, {
          value: model.id,
          onchange: (id) => {
            model = chosenModel(models, id);
            update();
          },
        }),
      text.field,
      h(
        "div",
        { class: "columns" },
        kinds.map((kind) => cards[kind]),
      ),
      detail,
    ),
  );
  await update();
  return () => running?.abort();
}

/**
 * Tokens with their merges, or without where the tokenizer has none.
 * @param {object} body
 * @param {boolean} merges
 * @param {AbortSignal} signal
 * @returns {Promise<Tokenized>}
 */
async function withMerges(body, merges, signal) {
  if (!merges) return post("/api/tokenize", body, signal);
  try {
    return await post("/api/tokenize", { ...body, merges }, signal);
  } catch (error) {
    if (isStopped(error)) throw error;
    return post("/api/tokenize", body, signal); // a word tokenizer
  }
}

/** @param {Token} token */
const bytesOf = (token) => token.bytes.map((one) => one.toString(16).padStart(2, "0")).join(" ");

/**
 * Whether the part at this place was made by the last merge.
 * @param {string[] | undefined} before
 * @param {string[]} parts
 * @param {number} at
 */
function isNew(before, parts, at) {
  if (!before) return false;
  const first = parts.findIndex((part, i) => part !== before[i]);
  return at === (first < 0 ? parts.length - 1 : first);
}
