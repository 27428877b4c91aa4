/** Everything that was computed: searched, reopened, annotated, removed; and files of others opened. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { stored } from "../jobs";
import { Panel, tell } from "../parts/panel";
import { methods, models, tabOf } from "../question";
import { useResource } from "../resource";
import { state, update } from "../state";
import { label, methodName } from "../text";

function when(text: string): string {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function Opened({ id }: { id: string }) {
  const { value, error } = useResource(id, () => stored(id));
  return (
    <>
      <button type="button" class="quiet-button" onClick={() => update({ result: "" })}>← All runs</button>
      {error ? <p class="refused" role="alert">{label(error, 600)}</p> : value === null ? <p class="quiet" role="status">Opening…</p> : <Panel result={value} level={2} />}
    </>
  );
}

/** Put the question of a run back on the page, where it can be changed. */
function reopen(run: api.Run): void {
  const asked = run.request as Partial<api.Question> | null;
  if (!asked) return;
  const found = methods.value.find((one) => one.name === asked.method);
  const tab = asked.method === "explain" ? "attribution" : found ? tabOf(found) : "attribution";
  const key = asked.method === "explain" ? "attribution" : tab === "attribution" ? "attribution.one" : tab === "patch" ? (asked.pair ? "patch.pair" : "patch.one") : tab;
  const text = (value: unknown) => (typeof value === "number" ? `id:${value}` : typeof value === "string" ? value : "");
  update({
    ...(asked.model ? { model: asked.model } : {}), prompt: asked.pair?.clean ?? asked.prompt ?? state.value.prompt, target: text(asked.target), contrast: text(asked.contrast),
    edits: asked.edits ?? [], tab, at: null, result: "", view: {}, asks: { [key]: { method: asked.method ?? "explain", parameters: asked.parameters ?? {} } },
    ...(typeof asked.pair?.corrupt === "string" ? { other: asked.pair.corrupt } : {}),
  });
}

/** A run's note and tags: read, and written anew. */
function Notes({ run, onDone }: { run: api.Run; onDone: () => void }) {
  const [open, setOpen] = useState(false);
  const [note, setNote] = useState(run.note);
  const [tags, setTags] = useState(run.tags.join(", "));
  useEffect(() => {
    setNote(run.note);
    setTags(run.tags.join(", "));
  }, [run.note, run.tags.join("|")]);
  if (!open) {
    return (
      <>
        <button type="button" class="plain" aria-label={`${run.note ? label(run.note, 80) : "add a note"}, note on ${run.title}`} onClick={() => setOpen(true)}>{run.note ? label(run.note, 80) : "add a note"}</button>
        {run.tags.map((tag) => <button key={tag} type="button" class="plain" aria-label={`Runs with the tag ${tag}`} onClick={() => find("tag", tag)}>#{label(tag, 40)}</button>)}
      </>
    );
  }
  const close = (event: KeyboardEvent) => event.key === "Escape" && setOpen(false);
  return (
    <form class="row" onSubmit={(event) => {
      event.preventDefault();
      const chosen = tags.split(",").map((tag) => tag.trim()).filter((tag) => tag !== "");
      api.annotate(run.id, { note, tags: [...new Set(chosen)] }).then(() => {
        setOpen(false);
        onDone();
      }).catch((error: Error) => tell(error.message));
    }}>
      <input aria-label="Note" placeholder="note" value={note} autofocus onInput={(event) => setNote(event.currentTarget.value)} onKeyDown={close} />
      <input aria-label="Tags, separated by commas" placeholder="tags, with commas" value={tags} onInput={(event) => setTags(event.currentTarget.value)} onKeyDown={close} />
      <button type="submit">Save</button>
    </form>
  );
}

/** Look for something else, from the newest on. */
function find(name: string, value: string): void {
  const view = { ...state.value.view, [name]: value };
  delete view.before;
  if (value === "") delete view[name];
  update({ view }, true);
}

/** The moment at which a day of the reader's calendar begins, `later` days on. */
function dawn(day: string, later = 0): string {
  const [year, month, date] = day.split("-").map(Number);
  const start = new Date(year!, month! - 1, date! + later);
  return Number.isNaN(start.getTime()) ? "" : start.toISOString();
}

function Search({ draft, onDraft }: { draft: string; onDraft: (text: string) => void }) {
  const { view } = state.value;
  const pick = (name: string) => (event: { currentTarget: { value: string } }) => find(name, event.currentTarget.value);
  const named = methods.value.some((one) => one.name === view.method) || !view.method ? [] : [view.method];
  return (
    <>
      <input type="search" aria-label="Search runs" placeholder="Search titles and prompts" value={draft} onInput={(event) => onDraft(event.currentTarget.value)} />
      <select aria-label="Model" value={view.model ?? ""} onChange={pick("model")}>
        <option value="">every model</option>
        {models.value.map((one) => <option key={one.id} value={one.id}>{one.name}</option>)}
      </select>
      <select aria-label="Method" value={view.method ?? ""} onChange={pick("method")}>
        <option value="">every method</option>
        {[...named, ...methods.value.map((one) => one.name)].map((name) => <option key={name} value={name}>{methodName(name)}</option>)}
      </select>
      <label>from <input type="date" aria-label="From this day on" value={view.from ?? ""} onChange={pick("from")} /></label>
      <label>to <input type="date" aria-label="Up to this day" value={view.to ?? ""} onChange={pick("to")} /></label>
      {view.tag && <button type="button" aria-label={`Take the tag ${view.tag} off the search`} onClick={() => find("tag", "")}>#{label(view.tag, 40)} ×</button>}
    </>
  );
}

export function RunsTab() {
  const s = state.value;
  const [draft, setDraft] = useState(s.view.q ?? "");
  const query: Record<string, string> = {};
  for (const name of ["q", "model", "method", "tag", "before"]) if (s.view[name]) query[name] = s.view[name]!;
  if (s.view.from && dawn(s.view.from)) query.since = dawn(s.view.from);
  if (s.view.to && dawn(s.view.to)) query.until = dawn(s.view.to, 1);
  const { value, error, again } = useResource(s.result ? null : JSON.stringify(query), (stop) => api.runs(query, stop));
  const [removing, setRemoving] = useState("");
  useEffect(() => {
    const wait = setTimeout(() => draft !== (s.view.q ?? "") && update({ view: { ...state.value.view, q: draft, before: "" } }, true), 250);
    return () => clearTimeout(wait);
  }, [draft]);
  if (s.result) return <Opened id={s.result} />;
  const open = (file: File) => {
    api.upload(file).then((run) => update({ result: run.id })).catch((problem: Error) => tell(problem.message));
  };
  return (
    <>
      <div class="chooser">
        <Search draft={draft} onDraft={setDraft} />
        <label class="file">Open a file
          <input type="file" accept=".json,application/json" aria-label="Open a saved result" onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) open(file);
            event.currentTarget.value = "";
          }} />
        </label>
      </div>
      {error && <p class="refused" role="alert">{label(error, 600)}</p>}
      {value?.runs.length === 0 && <p class="hint">{Object.keys(query).length ? "Nothing was found." : "Nothing has been computed yet. Write a prompt above."}</p>}
      {value !== null && value.runs.length > 0 && (
        <ol class="runs">
          {value.runs.map((run) => (
            <li key={run.id}>
              <button type="button" class="open" onClick={() => update({ result: run.id })}>
                <b>{label(run.title || methodName(run.method), 120)}</b>
                {run.prompt && <span dir="auto">{label(run.prompt, 160)}</span>}
              </button>
              <p class="quiet">{[methodName(run.method), run.model, when(run.created)].filter(Boolean).join(" · ")}</p>
              <div class="row">
                {run.request && <button type="button" class="plain" onClick={() => reopen(run)}>ask again</button>}
                <Notes run={run} onDone={again} />
                {removing === run.id ? (
                  <span>Remove it for good? <button type="button" onClick={() => {
                    api.removeRun(run.id).then(again).catch((problem: Error) => tell(problem.message));
                    setRemoving("");
                  }}>Remove</button> <button type="button" onClick={() => setRemoving("")}>Keep</button></span>
                ) : <button type="button" class="plain" aria-label={`Remove ${run.title || run.method}`} onClick={() => setRemoving(run.id)}>remove</button>}
              </div>
            </li>
          ))}
        </ol>
      )}
      {value !== null && (value.next !== null || s.view.before) && (
        <nav class="row" aria-label="Pages">
          <button type="button" disabled={!s.view.before} onClick={() => history.back()}>Newer</button>
          <button type="button" disabled={value.next === null} onClick={() => update({ view: { ...s.view, before: value.next! } })}>Older</button>
        </nav>
      )}
    </>
  );
}
