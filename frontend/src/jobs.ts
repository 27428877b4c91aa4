/** Long work: ask once, follow it, cancel it, find it again after a reload. */

import { type Signal, signal } from "@preact/signals";
import * as api from "./api";
import { decode, type Result } from "./result";

export interface Answer {
  key: string;
  state: "asking" | "queued" | "running" | "done" | "failed" | "cancelled";
  job: api.Job | null;
  result: Result | null;
  error: string;
}

const answers = new Map<string, Signal<Answer>>();
const KEPT = "pellucid.jobs";
const MOST_KEPT = 100;
const ENDED: string[] = ["done", "failed", "cancelled", "interrupted"];

function kept(): Record<string, string> {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "{}") as Record<string, string>;
  } catch {
    return {};
  }
}

function keep(key: string, id: string | null): void {
  const { [key]: _, ...rest } = kept();
  const entries = Object.entries(id === null ? rest : { ...rest, [key]: id }).slice(-MOST_KEPT);
  try {
    localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(entries)));
  } catch {
    // A browser that keeps nothing only loses the shortcut after a reload: asking again finds the stored result.
  }
}

/** The answer to a question; asks the server on the first call, and again after `forget`. */
export function answer(question: api.Question): Signal<Answer> {
  const key = JSON.stringify(question);
  const found = answers.get(key);
  if (found !== undefined) return found;
  const fresh = signal<Answer>({ key, state: "asking", job: null, result: null, error: "" });
  answers.set(key, fresh);
  void follow(fresh, question);
  return fresh;
}

/** Whether a question was asked in this window or is known to run or have run. */
export function known(question: api.Question): boolean {
  const key = JSON.stringify(question);
  return answers.has(key) || key in kept();
}

export function forget(question: api.Question): void {
  const key = JSON.stringify(question);
  answers.delete(key);
  keep(key, null);
}

export async function cancel(entry: Signal<Answer>): Promise<void> {
  const job = entry.value.job;
  if (job !== null) await api.cancelJob(job.id).catch(() => undefined);
  entry.value = { ...entry.value, state: "cancelled" };
}

async function follow(entry: Signal<Answer>, question: api.Question): Promise<void> {
  const { key } = entry.value;
  try {
    const old = kept()[key];
    let job = old === undefined ? null : await api.job(old).catch(() => null);
    if (job !== null && job.state === "done") {
      const known = job.result === null ? null : await stored(job.result).catch(() => null);
      if (known === null) job = null;
    }
    if (job === null || !["queued", "running", "done"].includes(job.state)) job = await api.ask(question);
    keep(key, job.id);
    for (;;) {
      if (entry.value.state === "cancelled") return;
      if (ENDED.includes(job.state)) break;
      entry.value = { ...entry.value, state: job.state === "queued" ? "queued" : "running", job };
      job = await nextState(job, (state) => {
        if (entry.value.state !== "cancelled") entry.value = { ...entry.value, state: state.state === "queued" ? "queued" : "running", job: state };
      });
    }
    if (job.state === "done" && job.result !== null) {
      const result = await stored(job.result);
      entry.value = { ...entry.value, state: "done", job, result };
    } else {
      keep(key, null);
      entry.value = { ...entry.value, state: job.state === "cancelled" ? "cancelled" : "failed", job, error: job.message };
    }
  } catch (error) {
    keep(key, null);
    entry.value = { ...entry.value, state: "failed", error: error instanceof Error ? error.message : String(error) };
  }
}

/** Follow the events of a job until it ends or the connection does; then ask how it stands. */
async function nextState(job: api.Job, show: (job: api.Job) => void): Promise<api.Job> {
  try {
    for await (const state of api.events(job.id)) {
      show(state);
      if (ENDED.includes(state.state)) return state;
    }
  } catch {
    // The stream broke (server restarted, laptop slept): asking again below says how the job stands.
  }
  await new Promise((wake) => setTimeout(wake, 700));
  return api.job(job.id);
}

const results = new Map<string, Promise<Result>>();

/** A stored result, fetched once. */
export function stored(id: string): Promise<Result> {
  let found = results.get(id);
  if (found === undefined) {
    found = api.result(id).then((given) => decode(given, id));
    found.catch(() => results.delete(id));
    results.set(id, found);
  }
  return found;
}
