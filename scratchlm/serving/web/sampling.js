// The settings of a choice among tokens: what each one does, and combinations with a name.

/** @typedef {Record<string, number | string>} Settings */
/** @typedef {{name: string, label: string, hint: string, min: number, max: number, step: number, off?: number,
 *    rare?: boolean}} Setting `off` is the value that changes nothing and is not sent */

/** @type {Setting[]} */
export const SETTINGS = [
  {
    name: "temperature",
    label: "Temperature",
    min: 0,
    max: 2,
    step: 0.05,
    hint: "0 always takes the most likely token; above 1 flattens the probabilities.",
  },
  {
    name: "top_k",
    label: "Top-k",
    min: 0,
    max: 100,
    step: 1,
    off: 0,
    hint: "Choose among the k most likely tokens; 0 is off.",
  },
  {
    name: "top_p",
    label: "Top-p",
    min: 0.01,
    max: 1,
    step: 0.01,
    off: 1,
    hint: "Choose among the fewest tokens that together have this probability; 1 is off.",
  },
  {
    name: "min_p",
    label: "Min-p",
    min: 0,
    max: 1,
    step: 0.01,
    off: 0,
    hint: "Drop tokens less likely than this share of the best one; 0 is off.",
  },
  {
    name: "max_tokens",
    label: "Length",
    min: 1,
    max: 1024,
    step: 1,
    hint: "Maximum number of new tokens; the model may stop earlier.",
  },
  {
    name: "seed",
    label: "Seed",
    min: 0,
    max: 999999,
    step: 1,
    hint: "The same seed, prompt and settings give the same text.",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    min: 0.5,
    max: 2,
    step: 0.05,
    off: 1,
    rare: true,
    hint: "Above 1, tokens that are already in the text become less likely.",
  },
  {
    name: "frequency_penalty",
    label: "Frequency penalty",
    min: -2,
    max: 2,
    step: 0.1,
    off: 0,
    rare: true,
    hint: "Subtracted from a token's score for each time it was generated.",
  },
  {
    name: "presence_penalty",
    label: "Presence penalty",
    min: -2,
    max: 2,
    step: 0.1,
    off: 0,
    rare: true,
    hint: "Subtracted once from the score of every token that was generated.",
  },
  {
    name: "no_repeat_ngram",
    label: "No repeated n-gram",
    min: 0,
    max: 10,
    step: 1,
    off: 0,
    rare: true,
    hint: "A sequence of this many tokens occurs at most once; 0 is off.",
  },
  {
    name: "typical_p",
    label: "Typical-p",
    min: 0.01,
    max: 1,
    step: 0.01,
    off: 1,
    rare: true,
    hint: "Choose among the tokens closest to the expected surprise; 1 is off.",
  },
  {
    name: "mirostat_tau",
    label: "Mirostat",
    min: 0,
    max: 10,
    step: 0.1,
    off: 0,
    rare: true,
    hint: "Keep the surprise near this many bits per token; replaces the filters above; 0 is off.",
  },
];

/** @type {Settings} */
export const STANDARD = {
  temperature: 0.8,
  top_k: 0,
  top_p: 0.95,
  min_p: 0,
  max_tokens: 120,
  seed: 1,
  stop: "",
};

/** @type {Record<string, {hint: string, values: Settings}>} */
export const PRESETS = {
  Greedy: { hint: "Always the most likely token.", values: { temperature: 0 } },
  Balanced: { hint: "Varied, without unlikely tokens.", values: { temperature: 0.8, top_p: 0.95 } },
  Adventurous: {
    hint: "A flatter distribution; min-p removes the worst.",
    values: { temperature: 1.3, min_p: 0.05 },
  },
  Unfiltered: { hint: "The model's own probabilities.", values: { temperature: 1 } },
};

/** The settings of a preset, with every filter that it does not name switched off. @param {string} name @param {Settings} now */
export function preset(name, now) {
  const off = Object.fromEntries(
    SETTINGS.filter((one) => one.off !== undefined).map((one) => [one.name, one.off ?? 0]),
  );
  return /** @type {Settings} */ ({ ...now, ...off, ...PRESETS[name].values });
}

/** The settings that an address names, over the standard ones. @param {import("./state.js").Address} address @param {Settings} [standard] */
export function settingsFrom(address, standard = STANDARD) {
  const found = { ...standard };
  for (const one of SETTINGS) {
    const value = address.number(one.name, NaN);
    if (Number.isFinite(value)) found[one.name] = Math.min(Math.max(value, one.min), one.max);
  }
  found.stop = address.text("stop", String(standard.stop ?? ""));
  return found;
}

/** The values that an address needs to name these settings. @param {Settings} settings @param {Settings} [standard] */
export function inAddress(settings, standard = STANDARD) {
  return Object.fromEntries(
    [...SETTINGS.map((one) => one.name), "stop"].map((name) => {
      const normal = standard[name] ?? SETTINGS.find((one) => one.name === name)?.off;
      return [name, settings[name] === normal ? null : settings[name]];
    }),
  );
}

/** The fields of a request. @param {Settings} settings */
export function asRequest(settings) {
  /** @type {Record<string, unknown>} */
  const body = {};
  for (const one of SETTINGS) {
    const value = settings[one.name];
    if (value !== undefined && value !== one.off) body[one.name] = value;
  }
  if (body.mirostat_tau) for (const name of ["top_k", "top_p", "min_p", "typical_p"]) delete body[name];
  if (settings.stop) body.stop = [String(settings.stop)];
  return body;
}

/** The settings that differ from a plain draw, in a few words. @param {Settings} settings */
export function inWords(settings) {
  if (settings.temperature === 0) return "most likely token";
  const named = SETTINGS.filter((one) => !["max_tokens", "seed"].includes(one.name)).filter(
    (one) => settings[one.name] !== undefined && settings[one.name] !== one.off,
  );
  return named.map((one) => `${one.label.toLowerCase()} ${settings[one.name]}`).join(", ");
}
