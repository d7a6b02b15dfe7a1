// Comma-separated values, read and written in the browser.

/**
 * The rows of a text; a field in quotes may hold commas, quotes and new lines.
 * @param {string} text
 * @param {string} [separator]
 */
export function parse(text, separator = text.split("\n", 1)[0].includes("\t") ? "\t" : ",") {
  /** @type {string[][]} */
  const rows = [];
  /** @type {string[]} */
  let row = [];
  let field = "";
  let isQuoted = false;
  const end = () => {
    row.push(field);
    field = "";
  };
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (isQuoted) {
      if (letter !== '"') field += letter;
      else if (text[i + 1] === '"') {
        field += '"';
        i += 1;
      } else isQuoted = false;
    } else if (letter === '"' && field === "") isQuoted = true;
    else if (letter === separator) end();
    else if (letter === "\n") {
      end();
      rows.push(row);
      row = [];
    } else if (letter !== "\r") field += letter;
  }
  if (field || row.length) {
    end();
    rows.push(row);
  }
  return rows.filter((one) => one.some((value) => value.trim()));
}

/**
 * A text of rows. A field that a spreadsheet would take for a formula begins with an apostrophe.
 * @param {(string | number)[][]} rows
 */
export function write(rows) {
  const field = (/** @type {string | number} */ value) => {
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

/**
 * Save a text as a file.
 * @param {string} name
 * @param {string} text
 */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
