/** Everything that was computed: searched, reopened, annotated, removed; and files of others opened. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { stored } from "../jobs";
import { Panel, tell } from "../parts/panel";
import { methods, models, tabOf } from "../question";
import { useResource } from "../resource";
import { setView, state, update } from "../state";
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

function Note({ run, onDone }: { run: api.Run; onDone: () => void }) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState(run.note);
  useEffect(() => setText(run.note), [run.note]);
  if (!open) return <button type="button" class="plain" aria-label={`${run.note ? label(run.note, 80) : "add a note"}, note on ${run.title}`} onClick={() => setOpen(true)}>{run.note ? label(run.note, 80) : "add a note"}</button>;
  return (
    <form onSubmit={(event) => {
      event.preventDefault();
      api.annotate(run.id, text).then(() => {
        setOpen(false);
        onDone();
      }).catch((error: Error) => tell(error.message));
    }}>
      <input aria-label="Note" value={text} autofocus onInput={(event) => setText(event.currentTarget.value)} onKeyDown={(event) => event.key === "Escape" && setOpen(false)} />
      <button type="submit">Save</button>
    </form>
  );
}

export function RunsTab() {
  const s = state.value;
  const [draft, setDraft] = useState(s.view.q ?? "");
  const query: Record<string, string> = {};
  for (const name of ["q", "model", "before"]) if (s.view[name]) query[name] = s.view[name]!;
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
        <input type="search" aria-label="Search runs" placeholder="Search prompts, methods, notes" value={draft} onInput={(event) => setDraft(event.currentTarget.value)} />
        <select aria-label="Model" value={s.view.model ?? ""} onChange={(event) => setView("model", event.currentTarget.value)}>
          <option value="">every model</option>
          {models.value.map((one) => <option key={one.id} value={one.id}>{one.name}</option>)}
        </select>
        <label class="file">Open a file
          <input type="file" accept=".json,application/json" aria-label="Open a saved result" onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) open(file);
            event.currentTarget.value = "";
          }} />
        </label>
      </div>
      {error && <p class="refused" role="alert">{label(error, 600)}</p>}
      {value?.runs.length === 0 && <p class="hint">{draft ? "Nothing was found." : "Nothing has been computed yet. Write a prompt above."}</p>}
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
                <Note run={run} onDone={again} />
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
