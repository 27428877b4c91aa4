/** The question as it stands on the page: model, prompt, what is explained, edits; and the tabs it can be asked on. */

import { signal } from "@preact/signals";
import type { Method, Model, Question, Read } from "./api";
import { state } from "./state";
import { label } from "./text";

export const models = signal<Model[]>([]);
export const methods = signal<Method[]>([]);
export const reading = signal<Read | null>(null);

export function empty(prompt: typeof state.value.prompt): boolean {
  return typeof prompt === "string" ? prompt === "" : prompt.every((one) => one.content.trim() === "");
}

/** A chosen token travels as `id:123`, typed text as itself. */
export function given(text: string): string | number | undefined {
  if (text === "") return undefined;
  const id = /^id:(\d+)$/.exec(text);
  return id ? Number(id[1]) : text;
}

/** The name of what is explained: the text of a token, or what was typed. */
export function called(text: string): string {
  const id = given(text);
  if (typeof id !== "number") return text;
  const known = [...(reading.value?.watched ?? []), ...(reading.value?.predictions ?? [])].find((one) => one.id === id);
  return known?.text ?? text;
}

export function quoted(text: string): string {
  return `“${label(called(text), 40)}”`;
}

export function question(method: Method | "explain", parameters: Record<string, unknown>, more: Partial<Question> = {}): Question {
  const s = state.value;
  const takes = (name: string) => method === "explain" || method.parameters.some((one) => one.name === name);
  const target = given(s.target);
  const contrast = given(s.contrast);
  return {
    model: s.model,
    method: method === "explain" ? "explain" : method.name,
    parameters,
    ...(more.pair || (method !== "explain" && method.takes !== "prompt") ? {} : { prompt: s.prompt }),
    ...(target !== undefined && takes("target") ? { target } : {}),
    ...(contrast !== undefined && takes("contrast") ? { contrast } : {}),
    ...(s.edits.length > 0 ? { edits: s.edits } : {}),
    ...more,
  };
}

const PROMPT = (m: Method) => m.available && m.takes === "prompt";
const has = (m: Method, ...axes: string[]) => axes.some((axis) => m.axes.includes(axis));
const patches = (m: Method) => m.takes === "pair" || m.family.startsWith("patching");

/** Which tab a method belongs to: by what it takes and produces, so that a new one finds its place by itself. */
export function tabOf(m: Method): string {
  if (m.produces === "graph") return "graph";
  if (m.produces === "scores" && patches(m) && (m.takes === "pair" || m.takes === "prompt")) return "patch";
  if (!PROMPT(m) || m.produces !== "scores") return "more";
  if (["unit", "group"].includes(m.axes[0] ?? "")) return "attribution";
  if (has(m, "head", "query", "key", "other_head")) return "attention";
  if (has(m, "layer")) return "lens";
  return "more";
}

export function methodsOf(tab: string): Method[] {
  return methods.value.filter((m) => m.available && m.kind === "method" && tabOf(m) === tab);
}
