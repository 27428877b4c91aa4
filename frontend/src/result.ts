/** Results as the views see them, decoded from the API's JSON: arrays are flat, in C order, or still on the server. */

import { values as fetchValues } from "./api";
import { label, seconds } from "./text";

export interface NumberArray {
  shape: number[];
  /** Null where the server keeps the array and hands out slices. */
  data: Float64Array | null;
  /** The largest |value|, where the server said it. */
  peak?: number;
}

export interface Tokens {
  ids: number[];
  pieces: string[];
  special: boolean[];
  text: string;
  roles: string[];
  message: number[];
}

export interface Units {
  kind: string;
  spans: [number, number][];
  labels: string[];
}

export interface Evidence {
  name: string;
  summary: string;
  values: Record<string, number>;
  curves: Record<string, number[]>;
  ok: boolean | null;
}

export interface Provenance {
  method: string;
  parameters: Record<string, unknown>;
  model: string;
  seconds: number;
  forwards: number;
  backwards: number;
  paper: string;
  [key: string]: unknown;
}

interface Base {
  title: string;
  provenance: Provenance;
  evidence: Evidence[];
  /** Where the server keeps it, and which part of an explanation it is. */
  id: string;
  part: number | null;
}

export interface Scores extends Base {
  kind: "Scores";
  axes: string[];
  values: NumberArray;
  labels: Record<string, string[]>;
  unit: string;
  sign: string;
  std_error: NumberArray | null;
  tokens: Tokens | null;
  units: Units | null;
  target: string;
  words: string[] | null;
}

export interface GraphResult extends Base {
  kind: "Graph";
  nodes: Record<string, unknown>[];
  sources: Float64Array;
  targets: Float64Array;
  weights: Float64Array;
  unit: string;
  tokens: Tokens | null;
}

export interface TableResult extends Base {
  kind: "Table";
  columns: string[];
  rows: unknown[][];
}

export interface TextResult extends Base {
  kind: "Text";
  text: string;
}

export interface ExamplesResult extends Base {
  kind: "Examples";
  items: Record<string, unknown>[];
  values: Float64Array;
  unit: string;
}

export interface LearnedResult extends Base {
  kind: "Learned" | "WeightEdit";
  arrays: Record<string, { shape: number[] }>;
  apply: string;
  site: string;
  settings: Record<string, unknown>;
}

export interface Explanation extends Base {
  kind: "Explanation";
  results: Result[];
  tokens: Tokens | null;
  target: string;
  predictions: [string, number][];
  continuation: string;
  notes: string[];
}

export type Result = Scores | GraphResult | TableResult | TextResult | ExamplesResult | LearnedResult | Explanation;

type Json = Record<string, unknown>;

function flatten(value: unknown): NumberArray {
  if (!Array.isArray(value)) {
    if (value !== null && typeof value === "object" && Array.isArray((value as Json).shape)) {
      const { shape, min, max } = value as { shape: number[]; min?: number | null; max?: number | null };
      return { shape, data: null, peak: Math.max(Math.abs(min ?? 0), Math.abs(max ?? 0)) };
    }
    return { shape: [], data: Float64Array.of(number(value)) };
  }
  const shape: number[] = [];
  for (let inner: unknown = value; Array.isArray(inner); inner = inner[0]) shape.push(inner.length);
  const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
  let at = 0;
  const walk = (part: unknown): void => {
    if (Array.isArray(part)) part.forEach(walk);
    else data[at++] = number(part);
  };
  walk(value);
  return { shape, data };
}

function number(value: unknown): number {
  return typeof value === "number" ? value : value === true ? 1 : value === false ? 0 : Number.NaN;
}

function tokens(value: unknown): Tokens | null {
  if (value === null || typeof value !== "object") return null;
  const given = value as Json;
  const pieces = (given.pieces as string[] | undefined) ?? [];
  return {
    ids: (given.ids as number[] | undefined) ?? [],
    pieces,
    special: (given.special as boolean[] | undefined) ?? pieces.map(() => false),
    text: (given.text as string | undefined) ?? "",
    roles: (given.roles as string[] | undefined) ?? [],
    message: (given.message as number[] | undefined) ?? [],
  };
}

function evidence(value: unknown): Evidence[] {
  return ((value as Json[] | undefined) ?? []).map((check) => ({
    name: String(check.name ?? ""),
    summary: String(check.summary ?? ""),
    values: Object.fromEntries(Object.entries((check.values as Json | undefined) ?? {}).map(([k, v]) => [k, number(v)])),
    curves: Object.fromEntries(
      Object.entries((check.curves as Json | undefined) ?? {}).map(([k, v]) => [k, (v as unknown[]).map(number)]),
    ),
    ok: (check.ok as boolean | null | undefined) ?? null,
  }));
}

/** Decode one result of the API; `id` and `part` say where its arrays can be asked for. */
export function decode(given: Json, id: string, part: number | null = null): Result {
  const provenance = { method: "", parameters: {}, model: "", seconds: 0, forwards: 0, backwards: 0, paper: "", ...(given.provenance as Json) };
  const base: Base = { title: String(given.title ?? ""), provenance, evidence: evidence(given.evidence), id, part };
  const list = (name: string) => flatten(given[name] ?? []).data ?? new Float64Array(0);
  switch (given.kind) {
    case "Scores":
      return {
        ...base,
        kind: "Scores",
        axes: given.axes as string[],
        values: flatten(given.values),
        labels: (given.labels as Record<string, string[]> | undefined) ?? {},
        unit: String(given.unit ?? ""),
        sign: String(given.sign ?? ""),
        std_error: given.std_error === null || given.std_error === undefined ? null : flatten(given.std_error),
        tokens: tokens(given.tokens),
        units: (given.units as Units | null | undefined) ?? null,
        target: String(given.target ?? ""),
        words: Array.isArray(given.words) ? (given.words as string[]) : null,
      };
    case "Graph":
      return {
        ...base, kind: "Graph", nodes: given.nodes as Json[], sources: list("sources"), targets: list("targets"), weights: list("weights"),
        unit: String(given.unit ?? ""), tokens: tokens(given.tokens),
      };
    case "Table":
      return { ...base, kind: "Table", columns: given.columns as string[], rows: given.rows as unknown[][] };
    case "Text":
      return { ...base, kind: "Text", text: String(given.text) };
    case "Examples":
      return { ...base, kind: "Examples", items: given.items as Json[], values: list("values"), unit: String(given.unit ?? "") };
    case "Explanation":
      return {
        ...base,
        kind: "Explanation",
        results: (given.results as Json[]).map((inner, at) => decode(inner, id, at)),
        tokens: tokens(given.tokens),
        target: String(given.target ?? ""),
        predictions: (given.predictions as [string, number][] | undefined) ?? [],
        continuation: String(given.continuation ?? ""),
        notes: (given.notes as string[] | undefined) ?? [],
      };
    default: {
      const arrays = ((given.tensors ?? given.deltas) as Json | undefined) ?? {};
      return {
        ...base,
        kind: given.kind === "WeightEdit" ? "WeightEdit" : "Learned",
        arrays: Object.fromEntries(Object.entries(arrays).map(([name, value]) => [name, { shape: flatten(value).shape }])),
        apply: String(given.apply ?? ""),
        site: String(given.site ?? ""),
        settings: (given.settings as Record<string, unknown> | undefined) ?? {},
      };
    }
  }
}

/** The entries of an axis by name: what the result says, else the prompt's pieces, else numbers. */
export function names(result: Scores, axis: string, which = result.axes.indexOf(axis)): string[] {
  const size = result.values.shape[which] ?? 0;
  const given = result.labels[axis];
  if (given?.length === size) return given.map((text) => label(text));
  if ((axis === "unit" || axis === "other_unit") && result.units?.labels.length === size) {
    return result.units.labels.map((text) => label(text));
  }
  if (["unit", "other_unit", "position", "query", "key"].includes(axis) && result.tokens?.pieces.length === size) {
    return result.tokens.pieces.map((text) => label(text));
  }
  return Array.from({ length: size }, (_, i) => String(i));
}

export interface Segment {
  text: string;
  /** The entry that scores it, or null. */
  index: number | null;
  special: boolean;
}

/** The prompt in reading order, each piece with the entry that scores it. */
export function segments(result: Scores): Segment[] {
  const axis = result.axes[0]!;
  const size = result.values.shape[0]!;
  const { tokens, units } = result;
  if (tokens !== null && axis.endsWith("unit") && units?.spans.length === size) {
    const found: Segment[] = [];
    let position = 0;
    const loose = (end: number) => {
      for (; position < end; position++) found.push({ text: tokens.pieces[position]!, index: null, special: tokens.special[position]! });
    };
    units.spans.forEach(([start, end], index) => {
      loose(start);
      const special = tokens.special.slice(start, end).every(Boolean);
      found.push({ text: tokens.pieces.slice(start, end).join(""), index, special });
      position = end;
    });
    loose(tokens.pieces.length);
    return found;
  }
  const whole = tokens?.pieces.length === size ? tokens : null;
  const texts = whole?.pieces ?? result.labels[axis] ?? names(result, axis);
  const joined = texts.some((text) => /^\s|\s$/.test(text));
  return texts.flatMap((text, index) => [
    ...(index > 0 && !joined ? [{ text: " ", index: null, special: false }] : []),
    { text, index, special: whole?.special[index] ?? false },
  ]);
}

/** The token positions of an entry of a text axis. */
export function spanOf(result: Scores, index: number): [number, number] {
  return result.axes[0]?.endsWith("unit") && result.units?.spans[index] ? result.units.spans[index] : [index, index + 1];
}

/** The values with the leading indices fixed; asks the server where it keeps them, coarse for a small picture. */
export async function slice(result: Scores, leading: number[], coarse = false, signal?: AbortSignal): Promise<Float64Array | Float32Array> {
  const { shape, data } = result.values;
  if (data === null) {
    const at = leading.map((index, i) => `${result.axes[i]}:${index}`).join();
    return fetchValues(result.id, result.part, at, coarse ? "uint8" : "float32", signal);
  }
  const rest = shape.slice(leading.length).reduce((a, b) => a * b, 1);
  const first = leading.reduce((at, index, axis) => at * shape[axis]! + index, 0) * rest;
  return data.subarray(first, first + rest);
}

/** One line on cost: seconds and passes. */
export function costLine(p: Provenance): string {
  const passes = (n: number, name: string) => `${n.toLocaleString("en")} ${name}${n === 1 ? "" : "s"}`;
  return [
    seconds(p.seconds || null),
    p.forwards || p.backwards ? `${passes(p.forwards, "forward")}, ${passes(p.backwards, "backward")}` : "",
  ].filter(Boolean).join(" · ");
}
