/** Patching: a grid of what each place carries; click one and see the answer move, in either direction. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { Asking } from "../parts/ask";
import { Bars } from "../parts/bars";
import { given, methodsOf, reading } from "../question";
import { useResource } from "../resource";
import { type Edit, setView, state, update } from "../state";
import { label, percent } from "../text";

const SITES: [string, string][] = [
  ["resid_pre", "whole stream, before each layer"], ["attn.out", "what attention adds"], ["mlp.out", "what the feed-forward layer adds"],
  ["attn.z", "each attention head"],
];

/** The pair in the chosen direction: values are taken from the first and put into the second. */
function pair(): { from: typeof state.value.prompt; into: typeof state.value.prompt } {
  const { prompt, other, view } = state.value;
  return view.direction === "break" ? { from: other, into: prompt } : { from: prompt, into: other };
}

function editAt(axes: string[], place: number[], site: string, how: string): Edit {
  const at = Object.fromEntries(axes.map((axis, i) => [axis, place[i]!]));
  const where = Object.fromEntries(["position", "unit", "head", "neuron", "query"].flatMap((axis) => (axis in at ? [[axis === "unit" ? "position" : axis, at[axis]!]] : [])));
  const part = "head" in where && !site.startsWith("attn") ? "attn.z" : site;
  const edit: Edit = { site: `blocks.${at.layer ?? 0}.${part}`, how, where };
  if (how === "scale") edit.value = 2;
  return edit;
}

/** The answer before and after one place is changed. */
function Moved({ axes, place, site }: { axes: string[]; place: number[]; site: string }) {
  const s = state.value;
  const two = s.other !== "";
  const how = s.view.how ?? (two ? "patch_from" : "zero");
  const { from, into } = two ? pair() : { from: "", into: s.prompt };
  const edit = editAt(axes, place, site, how);
  if (how === "patch_from") edit.from = { prompt: from };
  const watch = [given(s.target) ?? reading.value?.predictions[0]?.id, given(s.contrast)].filter((one) => one !== undefined);
  const base = JSON.stringify([s.model, into, s.edits, watch]);
  const before = useResource(base, (stop) => api.read(s.model, into, s.edits, { watch, top: 30 }, stop));
  // What led before is asked for by name: afterwards it may be far down.
  const led = before.value?.predictions.slice(0, 4).map((one) => one.id) ?? [];
  const after = useResource(before.value === null ? null : base + JSON.stringify(edit), (stop) => api.read(s.model, into, [...s.edits, edit], { watch: [...watch, ...led], top: 30 }, stop));
  const known = new Map(before.value?.predictions.map((one) => [one.id, one.probability]));
  for (const one of before.value?.watched ?? []) known.set(one.id, one.probability);
  const shown = [...(after.value?.watched ?? []), ...(after.value?.predictions.slice(0, 6) ?? [])];
  const items = [...new Map(shown.map((one) => [one.id, one])).values()].slice(0, 9).sort((a, b) => b.probability - a.probability);
  const lead = items.find((one) => one.id === (after.value?.watched[0]?.id ?? -1)) ?? items[0];
  const where = axes.map((axis, i) => `${axis} ${place[i]}`).join(", ");
  return (
    <section class="panel moved" aria-label="The answer moves" aria-live="polite">
      <header>
        <div>
          <h3>{where}</h3>
          <p class="quiet">{how === "patch_from" ? <>value from “<bdi>{label(shorten(from), 60)}</bdi>” put into “<bdi>{label(shorten(into), 60)}</bdi>”</> : how === "zero" ? "switched off" : "doubled"}</p>
        </div>
        <div class="actions">
          <label>How <select value={how} onChange={(event) => setView("how", event.currentTarget.value)}>
            {two && <option value="patch_from">take it from the other prompt</option>}
            <option value="zero">switch it off</option>
            <option value="scale">double it</option>
          </select></label>
          <button type="button" onClick={() => update({ edits: [...s.edits, edit] })}>Keep this edit</button>
        </div>
      </header>
      {before.error || after.error ? <p class="refused" role="alert">{label(after.error || before.error, 600)}</p>
        : before.value === null || after.value === null ? <p class="quiet" role="status">Running the model…</p> : (
          <>
            {lead && <p class="sentence"><bdi>“{label(lead.text, 30)}”</bdi> goes from <b>{percent(known.get(lead.id) ?? 0)}</b> to <b>{percent(lead.probability)}</b>.</p>}
            <Bars name="Next tokens before and after" items={items} before={known} target={lead?.id} />
          </>
        )}
    </section>
  );
}

function shorten(prompt: typeof state.value.prompt): string {
  return typeof prompt === "string" ? prompt : prompt.map((one) => one.content).join(" / ");
}

function lengths(a: api.Read | null, b: api.Read | null): string {
  if (a === null || b === null || a.tokens.length === b.tokens.length) return "";
  return `The prompts have ${a.tokens.length} and ${b.tokens.length} tokens; patching lines them up token by token, so rephrase one until both have equally many.`;
}

export function PatchTab() {
  const s = state.value;
  const methods = methodsOf("patch");
  const pairs = methods.filter((one) => one.takes === "pair");
  const singles = methods.filter((one) => one.takes !== "pair");
  const [draft, setDraft] = useState(s.other);
  useEffect(() => setDraft(s.other), [s.other]);
  const other = useResource(s.other ? JSON.stringify([s.model, s.other]) : null, (stop) => api.read(s.model, s.other, s.edits, { top: 5 }, stop));
  const two = s.other !== "" && pairs.length > 0;
  const asks = s.asks["patch.pair"]?.parameters.site ?? "resid_pre";
  const site = two ? String(asks) : "resid_pre";
  const axes = (s.view.axes ?? "").split(",").filter(Boolean);
  const place = (s.view.cell ?? "").split(",").filter(Boolean).map(Number);
  const pick = (names: string[], at: number[]) => update({ view: { ...s.view, axes: names.join(), cell: at.join() } }, true);
  const own = reading.value?.predictions[0];
  const its = other.value?.predictions[0];
  const target = given(s.target) ?? own?.id;
  const contrast = given(s.contrast) ?? (its && its.id !== target ? its.id : undefined);
  const trouble = lengths(reading.value, other.value);
  const direction = s.view.direction === "break" ? "break" : "restore";
  const submit = () => update({ other: draft, view: {} });
  return (
    <>
      <form class="other" onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}>
        <label for="other-prompt">The other prompt, as long as the first but with another answer</label>
        <div class="row">
          <input id="other-prompt" type="text" dir="auto" spellcheck={false} value={draft} onInput={(event) => setDraft(event.currentTarget.value)} placeholder={typeof s.prompt === "string" ? s.prompt : ""} />
          <button type="submit" class={draft !== s.other ? "primary" : ""} disabled={draft === s.other}>Use it</button>
        </div>
        {its && own && <p class="quiet">First: “{label(own.text, 20)}” {percent(own.probability)}. Other: “{label(its.text, 20)}” {percent(its.probability)}.</p>}
        {other.error && <p class="refused" role="alert">{other.error}</p>}
      </form>
      {two && trouble && <p class="refused" role="alert">{trouble}</p>}
      {two && !trouble && reading.value && other.value && (
        <>
          <div class="chooser">
            <fieldset class="segmented">
              <legend class="unseen">Direction</legend>
              {(["restore", "break"] as const).map((one) => (
                <label key={one} class={one === direction ? "on" : ""}>
                  <input type="radio" name="direction" checked={one === direction} onChange={() => update({ view: { ...s.view, direction: one === "break" ? one : "", cell: "" } }, true)} />
                  {one === "restore" ? "Restore: first into other" : "Break: other into first"}
                </label>
              ))}
            </fieldset>
            <label class="unit">at
              <select value={site} onChange={(event) => update({ asks: { ...s.asks, "patch.pair": { method: s.asks["patch.pair"]?.method ?? "activation_patching", parameters: { site: event.currentTarget.value } } }, view: { ...s.view, cell: "", axes: "" } })}>
                {SITES.map(([name, words]) => <option key={name} value={name}>{words}</option>)}
              </select>
            </label>
          </div>
          <Asking tab="patch.pair" methods={pairs} initial={{ method: pairs.some((one) => one.name === "activation_patching") ? "activation_patching" : pairs[0]!.name, parameters: {} }} onCell={pick} selected={place}
            more={(method) => ({
              pair: direction === "break" ? { clean: s.other, corrupt: s.prompt } : { clean: s.prompt, corrupt: s.other },
              ...(target !== undefined && method.parameters.some((one) => one.name === "target") ? { target } : {}),
              ...(contrast !== undefined && method.parameters.some((one) => one.name === "contrast") ? { contrast } : {}),
            })}
            after={() => (place.length > 0 ? <Moved axes={axes} place={place} site={site} /> : <p class="hint">Click a cell, or move with the arrow keys and press Enter, to see the answer move.</p>)} />
        </>
      )}
      {singles.length > 0 && (
        <details class="more" open={!two || "patch.one" in s.asks}>
          <summary>With this prompt alone: switch parts off</summary>
          <Asking tab="patch.one" methods={singles} {...(two ? {} : { initial: { method: singles.some((one) => one.name === "ablation") ? "ablation" : singles[0]!.name, parameters: {} } })}
            onCell={pick} selected={two ? null : place} after={() => (!two && place.length > 0 ? <Moved axes={axes} place={place} site="resid_pre" /> : null)} />
        </details>
      )}
    </>
  );
}

