/** The whole state of the page, kept in the address behind `#`: back, forward and links restore it. */

import { computed, signal } from "@preact/signals";

export interface Message {
  role: string;
  content: string;
}

export interface Ask {
  method: string;
  parameters: Record<string, unknown>;
}

/** An edit of the model as the API takes it. */
export interface Edit {
  site: string;
  how: string;
  where?: Record<string, number | number[]>;
  value?: number;
  from?: { prompt: string | Message[] };
}

export interface State {
  model: string;
  prompt: string | Message[];
  target: string;
  contrast: string;
  tab: string;
  /** The token position that all panels mark. */
  at: number | null;
  /** The second prompt and model, for patching and comparing. */
  other: string;
  otherModel: string;
  edits: Edit[];
  /** What each tab was asked, by tab. */
  asks: Record<string, Ask>;
  /** A stored result that is open. */
  result: string;
  /** Selections of views: a panel, a cell, a direction. */
  view: Record<string, string>;
}

const EMPTY: State = {
  model: "", prompt: "", target: "", contrast: "", tab: "attribution", at: null, other: "", otherModel: "", edits: [], asks: {}, result: "",
  view: {},
};

function json<T>(text: string | null, fallback: T): T {
  if (text === null) return fallback;
  try {
    const value = JSON.parse(text) as T;
    return typeof value === typeof fallback && value !== null ? value : fallback;
  } catch {
    return fallback;
  }
}

export function parse(hash: string): State {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const text = (name: string, fallback = "") => given.get(name) ?? fallback;
  const at = Number.parseInt(text("at"), 10);
  return {
    model: text("model"),
    prompt: given.has("chat") ? json<Message[]>(given.get("chat"), []) : text("prompt"),
    target: text("target"),
    contrast: text("contrast"),
    tab: text("tab", EMPTY.tab),
    at: Number.isInteger(at) ? at : null,
    other: text("other"),
    otherModel: text("other_model"),
    edits: json<Edit[]>(given.get("edits"), []),
    asks: json<Record<string, Ask>>(given.get("ask"), {}),
    result: text("result"),
    view: json<Record<string, string>>(given.get("view"), {}),
  };
}

export function write(state: State): string {
  const out = new URLSearchParams();
  const put = (name: string, value: string) => value !== "" && out.set(name, value);
  put("model", state.model);
  if (typeof state.prompt === "string") put("prompt", state.prompt);
  else out.set("chat", JSON.stringify(state.prompt));
  put("target", state.target);
  put("contrast", state.contrast);
  if (state.tab !== EMPTY.tab) out.set("tab", state.tab);
  if (state.at !== null) out.set("at", String(state.at));
  put("other", state.other);
  put("other_model", state.otherModel);
  if (state.edits.length > 0) out.set("edits", JSON.stringify(state.edits));
  if (Object.keys(state.asks).length > 0) out.set("ask", JSON.stringify(state.asks));
  put("result", state.result);
  if (Object.keys(state.view).length > 0) out.set("view", JSON.stringify(state.view));
  return `#${out.toString()}`;
}

export const state = signal<State>(parse(location.hash));
addEventListener("popstate", () => {
  state.value = parse(location.hash);
});

/** Change the state: a step that "back" undoes, or (`replace`) a detail that it does not. */
export function update(change: Partial<State>, replace = false): void {
  const next = { ...state.value, ...change };
  const address = write(next);
  if (address !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", address);
  state.value = next;
}

export function setView(name: string, value: string): void {
  const view = { ...state.value.view };
  if (value === "") delete view[name];
  else view[name] = value;
  update({ view }, true);
}

/** A part of the state as a signal of its own, so that what does not show it is not drawn again. */
export const at = computed(() => state.value.at);
export const tab = computed(() => state.value.tab);
export const model = computed(() => state.value.model);

/** A link to the present view. */
export function link(): string {
  return location.href;
}
