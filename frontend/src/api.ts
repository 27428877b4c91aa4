/** What the page asks of the server. Addresses are relative: a proxy may put the page under any path. */

import type { components } from "./api.d";
import type { Ask, Edit, Message } from "./state";

const ROOT = "api/v1";
const TOKEN = "pellucid.token";

type Schemas = components["schemas"];
export type Model = Schemas["Model"];
export type Parameter = Schemas["Parameter"];
export type Method = Schemas["Method"];
export type Prediction = Schemas["Candidate"];
export type Token = Schemas["Token"];
export type Read = Schemas["TokensAnswer"];
export type Job = Schemas["Job"];
export type Run = Schemas["Run"];
export type Runs = Schemas["Runs"];

/** A question to a model: what a job is made of. */
export interface Question extends Ask {
  model: string;
  prompt?: string | Message[];
  pair?: { clean: string | Message[]; corrupt: string | Message[] };
  target?: string | number;
  contrast?: string | number;
  edits?: Edit[];
}

/** A sentence of the server, or of the page where the server did not answer. */
export class ApiError extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

/** An access token comes once by `?token=` and is kept for this window only. */
export function takeToken(): void {
  const query = new URLSearchParams(location.search);
  const token = query.get("token");
  if (token === null) return;
  sessionStorage.setItem(TOKEN, token);
  query.delete("token");
  const rest = query.toString();
  history.replaceState(null, "", location.pathname + (rest && `?${rest}`) + location.hash);
}

export function keepToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

function headers(): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN);
  return { "X-Pellucid": "1", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

function sentence(body: unknown, status: number): string {
  if (body !== null && typeof body === "object") {
    const { error, detail, message } = body as { error?: unknown; detail?: unknown; message?: unknown };
    for (const found of [error, detail, message]) {
      if (typeof found === "string") return found;
      if (Array.isArray(found)) return found.map((one: { msg?: string; loc?: unknown[] }) => `${one.loc?.at(-1) ?? ""}: ${one.msg ?? ""}`).join("; ");
      if (found !== null && typeof found === "object" && "message" in found) return String(found.message);
    }
  }
  return `The server answered ${status} without saying why; look at its terminal.`;
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  let reply: Response;
  try {
    reply = await fetch(`${ROOT}${path}`, { ...init, headers: { ...headers(), ...(init.headers as Record<string, string> | undefined) } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer; see whether `pellucid serve` still runs, then try again.", 0);
  }
  if (!reply.ok) throw new ApiError(sentence(await reply.json().catch(() => null), reply.status), reply.status);
  return reply;
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await call(path, signal ? { signal } : {})).json() as Promise<T>;
}

async function send<T>(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const reply = await call(path, {
    method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...(signal ? { signal } : {}),
  });
  return (reply.status === 204 ? null : await reply.json()) as T;
}

export const models = (): Promise<Model[]> => get("/models");

export const methods = (model: string): Promise<Method[]> => get(`/methods?model=${encodeURIComponent(model)}`);

/** Read a prompt: its tokens, and what the model says next; `watch` are texts or ids whose probability is told, too. */
export function read(
  model: string, prompt: string | Message[], edits: Edit[], more: { watch?: (string | number)[]; positions?: "all"; top?: number } = {}, signal?: AbortSignal,
): Promise<Read> {
  return send("POST", `/models/${encodeURIComponent(model)}/tokens`, { prompt, edits, ...more }, signal);
}

export const ask = (question: Question): Promise<Job> => send("POST", "/jobs", question);
export const job = (id: string): Promise<Job> => get(`/jobs/${encodeURIComponent(id)}`);
export const cancelJob = (id: string): Promise<unknown> => call(`/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });

/** The states of a job as the server sends them; read by hand because EventSource cannot carry an access token. */
export async function* events(id: string): AsyncGenerator<Job> {
  const reply = await call(`/jobs/${encodeURIComponent(id)}/events`, { headers: { Accept: "text/event-stream" } });
  const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop()!;
      for (const block of blocks) {
        const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (data !== "") yield JSON.parse(data) as Job;
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

export const result = (id: string): Promise<Record<string, unknown>> => get(`/results/${encodeURIComponent(id)}`);
export const code = async (id: string): Promise<string> => (await get<{ code: string }>(`/results/${encodeURIComponent(id)}/code`)).code;
export const file = async (id: string, kind: string): Promise<Blob> => (await call(`/results/${encodeURIComponent(id)}/file.${kind}`)).blob();

export const runs = (query: Record<string, string>, signal?: AbortSignal): Promise<Runs> => get(`/runs?${new URLSearchParams(query).toString()}`, signal);
export const annotate = (id: string, written: { note: string; tags: string[] }): Promise<Run> => send("PATCH", `/runs/${encodeURIComponent(id)}`, written);
export const removeRun = (id: string): Promise<unknown> => call(`/runs/${encodeURIComponent(id)}`, { method: "DELETE" });

export const upload = async (file: File): Promise<Run> => send("POST", "/upload", JSON.parse(await file.text()) as unknown);

/** One slice of a large array: the axes in `at` are fixed. Pictures take bytes, numbers to read take floats. */
export async function values(id: string, part: number | null, at: string, dtype: "uint8" | "float32", signal?: AbortSignal): Promise<Float32Array> {
  const query = new URLSearchParams({ field: "values", dtype, ...(at ? { at } : {}), ...(part === null ? {} : { part: String(part) }) });
  const reply = await call(`/results/${encodeURIComponent(id)}/values?${query.toString()}`, signal ? { signal } : {});
  const content = await reply.arrayBuffer();
  if (dtype === "float32") return new Float32Array(content);
  const [scale, offset] = [Number(reply.headers.get("X-Scale")), Number(reply.headers.get("X-Offset"))];
  return Float32Array.from(new Uint8Array(content), (code) => (code === 255 ? Number.NaN : offset + scale * code));
}
