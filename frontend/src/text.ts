/** Words and numbers as every view shows them: the same rules as `pellucid/render/words.py`. */

const OBEYED =
  /[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff\ufdd0-\ufdef\ud800-\udfff]|[\u{1fffe}\u{1ffff}\u{e0000}-\u{e0fff}]/gu;
const BREAK = /\r\n|[\n\x0b\x0c\x85\u2028\u2029]/g;
const RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

export const MISSING = "▫";

function sign(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code === 9) return "⇥";
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (code === 127) return "␡";
  if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Return text in which nothing is obeyed: controls become signs, a line break ↵. */
export function visible(text: string): string {
  return text.replace(BREAK, "↵").replace(OBEYED, sign);
}

/** Return running text: a line break is a sign and a break. */
export function flow(text: string): string {
  return text.replace(BREAK, "\u0000").replace(/[^\u0000]+/g, (part) => part.replace(OBEYED, sign)).replace(/\u0000/g, "↵\n");
}

/** Return a name for a table: visible, never empty, at most `limit` characters. */
export function label(text: unknown, limit = 60): string {
  const shown = visible(String(text));
  if (shown === "") return MISSING;
  if (shown.trim() === "") return "␠".repeat(Math.min(shown.length, limit));
  const characters = [...shown];
  return characters.length <= limit ? shown : characters.slice(0, limit - 1).join("") + "…";
}

/** Return a token's name without the space that begins it, for narrow cells. */
export function word(text: string, limit = 24): string {
  return label(text.trim() === "" ? text : text.trim(), limit);
}

export function rightToLeft(text: string): boolean {
  return RTL.test(text);
}

/** `integrated_gradients` as "Integrated gradients". */
export function methodName(method: string): string {
  const text = method.replaceAll("_", " ").trim();
  return text === "" ? "Result" : text[0]!.toUpperCase() + text.slice(1);
}

export function spaced(name: string): string {
  return name.replaceAll("_", " ");
}

/** Return a function that writes numbers with equal decimals, so that `scale` shows `digits` significant ones. */
export function numberFormat(scale: number, digits = 4, signed = true): (value: number) => string {
  const large = scale !== 0 && (scale >= 1e6 || scale < 1e-4);
  const decimals = scale === 0 ? 1 : Math.max(0, digits - 1 - Math.floor(Math.log10(scale)));
  return (value) => {
    if (Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "+∞" : "−∞";
    if (value === 0) return "0";
    const text = large ? Math.abs(value).toExponential(digits - 1) : Math.abs(value).toFixed(Math.min(decimals, 8));
    const nothing = !/[1-9]/.test(text);
    return (value < 0 && !nothing ? "−" : signed && !nothing ? "+" : "") + text;
  };
}

/** Six significant digits, for the reader who wants more than a cell shows. */
export function exact(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "no value" : value > 0 ? "+∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? size.toExponential(5) : String(Number(size.toPrecision(6)));
  return (value < 0 ? "−" : "+") + text;
}

export function fourDigits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(3).replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

export function percent(share: number): string {
  if (Number.isNaN(share)) return "–";
  return share > 0 && share < 0.00005 ? "< 0.01 %" : `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;
}

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "";
  if (value < 0.0995) return `${Math.max(1, Math.round(value * 1000))} ms`;
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

/** Any value of a table, parameter or item as short visible text. */
export function plain(value: unknown): string {
  if (value === null || value === undefined || value === "") return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : fourDigits(value);
  return label(typeof value === "string" ? value : JSON.stringify(value), 400);
}
