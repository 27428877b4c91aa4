/** The page: model, prompt, what comes next, and the tabs. */

import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { told } from "./parts/panel";
import { PromptSection, ReadingSection } from "./prompt";
import { empty, methods, methodsOf, models } from "./question";
import { useResource } from "./resource";
import { type Edit, state, tab as present, update } from "./state";
import { AskingTab } from "./tabs/asking_tab";
import { AttributionTab } from "./tabs/attribution";
import { CompareTab } from "./tabs/compare";
import { PatchTab } from "./tabs/patch";
import { RunsTab } from "./tabs/runs";
import { label } from "./text";

const TABS: [string, string][] = [
  ["attribution", "Attribution"], ["lens", "Lens"], ["attention", "Attention"], ["patch", "Patch"], ["graph", "Graph"], ["compare", "Compare"], ["more", "More"],
  ["runs", "Runs"],
];

function there(tab: string): boolean {
  return tab === "runs" || (tab === "compare" ? methodsOf("attribution").length > 0 : methodsOf(tab).length > 0);
}

function Tabs() {
  const s = state.value;
  const shown = TABS.filter(([name]) => there(name));
  const active = shown.some(([name]) => name === s.tab) ? s.tab : (shown[0]?.[0] ?? "runs");
  const go = (name: string) => update({ tab: name, result: "" });
  const key = (event: KeyboardEvent) => {
    const at = shown.findIndex(([name]) => name === active);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const name = shown[(to + shown.length) % shown.length]![0];
    go(name);
    document.getElementById(`tab-${name}`)?.focus();
  };
  useEffect(() => {
    const [list, one] = [document.querySelector(".tabs"), document.getElementById(`tab-${active}`)];
    if (list && one) list.scrollLeft = one.offsetLeft - list.clientWidth / 2 + one.clientWidth / 2;
  }, [active]);
  const waiting = empty(s.prompt) && active !== "runs";
  const body = waiting ? <p class="hint">Write a prompt above, and the model's answer is taken apart here.</p>
    : active === "attribution" ? <AttributionTab /> : active === "patch" ? <PatchTab /> : active === "compare" ? <CompareTab /> : active === "runs" ? <RunsTab />
    : <AskingTab tab={active} />;
  return (
    <>
      <div class="tabs" role="tablist" aria-label="Views" onKeyDown={key}>
        {shown.map(([name, text]) => (
          <button type="button" key={name} id={`tab-${name}`} role="tab" aria-selected={name === active} aria-controls="view" tabIndex={name === active ? 0 : -1} onClick={() => go(name)}>{text}</button>
        ))}
      </div>
      <div id="view" role="tabpanel" aria-labelledby={`tab-${active}`} class={`tab-${active}`}>{body}</div>
    </>
  );
}

function describe(edit: Edit): string {
  const where = Object.entries(edit.where ?? {}).map(([axis, index]) => `${axis} ${String(index)}`).join(", ");
  const how = edit.how === "patch_from" ? "takes its value from another prompt" : edit.how === "zero" ? "switched off" : edit.how === "scale" ? `times ${edit.value}` : edit.how;
  return `${edit.site}${where ? `, ${where}` : ""}: ${how}`;
}

function Edits() {
  const { edits } = state.value;
  if (edits.length === 0) return null;
  return (
    <aside class="edits" aria-label="Edits of the model">
      <b>Edited model</b>
      {edits.map((edit, i) => (
        <span class="chip" key={i}>{label(describe(edit), 120)}
          <button type="button" aria-label={`Undo edit: ${describe(edit)}`} onClick={() => update({ edits: edits.filter((_, j) => j !== i) })}>×</button>
        </span>
      ))}
    </aside>
  );
}

function Locked({ again, message }: { again: () => void; message: string }) {
  const [token, setToken] = useState("");
  return (
    <form class="locked" onSubmit={(event) => {
      event.preventDefault();
      api.keepToken(token);
      again();
    }}>
      <p>{label(message, 400)}</p>
      <label>Access token <input type="password" autocomplete="off" value={token} onInput={(event) => setToken(event.currentTarget.value)} /></label>
      <button type="submit" class="primary">Open</button>
    </form>
  );
}

export function App() {
  const known = useResource("models", api.models);
  useEffect(() => {
    if (known.value === null) return;
    models.value = known.value;
    if (!known.value.some((one) => one.id === state.value.model) && known.value[0]) update({ model: known.value[0].id }, true);
    if (known.value.some((one) => one.state === "loading")) setTimeout(known.again, 1000);
  }, [known.value]);
  const id = state.value.model;
  const current = models.value.find((one) => one.id === id);
  const ready = current?.state === "ready";
  const catalogue = useResource(ready ? id : null, () => api.methods(id));
  useEffect(() => {
    if (catalogue.value) methods.value = catalogue.value;
  }, [catalogue.value]);
  const problem = known.error || catalogue.error || (current?.state === "failed" ? current.error : "");
  void present.value;
  return (
    <>
      <a class="skip" href="#view" onClick={(event) => {
        event.preventDefault();
        document.getElementById("view")?.focus();
      }}>To the views</a>
      <header class="top">
        <h1><a href="./" onClick={(event) => {
          event.preventDefault();
          update({ prompt: "", target: "", contrast: "", at: null, asks: {}, view: {}, other: "", edits: [], result: "", tab: "attribution" });
        }}>pellucid</a></h1>
        <label class="model">
          <span class="unseen">Model</span>
          <select value={id} onChange={(event) => update({ model: event.currentTarget.value, edits: [], view: {} })}>
            {models.value.map((one) => <option key={one.id} value={one.id}>{one.name}</option>)}
          </select>
          {current?.layers && <small>{[`${current.layers} layers`, current.heads ? `${current.heads} heads` : "", current.dtype, current.device].filter(Boolean).join(" · ")}</small>}
        </label>
      </header>
      <main>
        <PromptSection />
        <Edits />
        {problem && (problem.toLowerCase().includes("token") && models.value.length === 0
          ? <Locked again={known.again} message={problem} />
          : <div class="refused" role="alert"><p>{label(problem, 600)}</p><button type="button" onClick={known.error ? known.again : catalogue.again}>Try again</button></div>)}
        {!problem && !ready && <p class="quiet" role="status">{current ? `Loading ${current.name}…` : "Starting…"}</p>}
        {ready && <ReadingSection />}
        {ready && methods.value.length > 0 && <Tabs />}
      </main>
      <p class="told" role="status" aria-live="polite">{told.value}</p>
    </>
  );
}
