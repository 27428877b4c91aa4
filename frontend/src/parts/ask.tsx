/** Choose a method, set it, ask, and see the answer: the same for every method of every tab. */

import { useEffect, useState } from "preact/hooks";
import type { Method, Question } from "../api";
import { answer, forget } from "../jobs";
import type { Result } from "../result";
import { question } from "../question";
import { type Ask, state, update } from "../state";
import { label, methodName, spaced } from "../text";
import { Form, settings } from "./form";
import { type CellHandler, Panel } from "./panel";
import { Working } from "./working";

export function families(methods: Method[]): [string, Method[]][] {
  const found = new Map<string, Method[]>();
  for (const one of methods) found.set(one.family, [...(found.get(one.family) ?? []), one]);
  return [...found];
}

export function MethodSelect(p: { methods: Method[]; value: string; label: string; onPick: (name: string) => void; none?: string }) {
  return (
    <select aria-label={p.label} value={p.value} onChange={(event) => p.onPick(event.currentTarget.value)}>
      {p.none !== undefined && <option value="">{p.none}</option>}
      {families(p.methods).map(([family, list]) => (
        <optgroup key={family} label={spaced(family)}>
          {list.map((one) => <option key={one.name} value={one.name}>{methodName(one.name)}</option>)}
        </optgroup>
      ))}
    </select>
  );
}

export interface AskingProps {
  tab: string;
  methods: Method[];
  /** Asked by itself when the tab opens. */
  initial?: Ask | undefined;
  more?: (method: Method) => Partial<Question> | null;
  onCell?: CellHandler;
  selected?: readonly number[] | null;
  after?: (result: Result) => preact.ComponentChildren;
  /** What a method needs to be told before it can be asked. */
  before?: (method: Method) => preact.ComponentChildren;
}

export function Asking(p: AskingProps) {
  const stated = state.value.asks[p.tab];
  const asked = stated ?? p.initial ?? null;
  const [draft, setDraft] = useState<Ask>(asked ?? { method: p.methods[0]?.name ?? "", parameters: {} });
  const key = JSON.stringify(asked);
  useEffect(() => {
    if (asked !== null) setDraft(asked);
  }, [key]);
  const method = p.methods.find((one) => one.name === draft.method) ?? p.methods[0];
  if (method === undefined) return null;
  const running = asked === null ? null : p.methods.find((one) => one.name === asked.method);
  const more = running ? (p.more?.(running) ?? {}) : {};
  const lacks = p.more !== undefined && p.more(method) === null;
  const ready = running && (p.more === undefined || p.more(running) !== null);
  const put = (ask: Ask) => update({ asks: { ...state.value.asks, [p.tab]: ask } });
  const pick = (name: string) => {
    const next = { method: name, parameters: {} };
    setDraft(next);
    if (p.initial !== undefined) put(next);
  };
  const changed = asked === null || JSON.stringify(draft) !== key;
  return (
    <div class="asking">
      <div class="chooser">
        <MethodSelect label="Method" methods={p.methods} value={method.name} onPick={pick} />
        {changed && <button type="button" class="primary" disabled={lacks} onClick={() => put({ ...draft, method: method.name })}>Run</button>}
        <p class="quiet">{label(method.summary, 400)}</p>
      </div>
      {p.before?.(method)}
      {settings(method).length > 0 && (
        <details class="settings">
          <summary>Settings{Object.keys(draft.parameters).length > 0 ? ` (${Object.keys(draft.parameters).length} changed)` : ""}</summary>
          <Form method={method} values={draft.parameters} onChange={(parameters) => setDraft({ method: method.name, parameters })} />
          {changed && <button type="button" class="primary" onClick={() => put({ ...draft, method: method.name })}>Run with these settings</button>}
        </details>
      )}
      {running && ready && (
        <Answered question={question(running, asked!.parameters, more)} {...(p.onCell ? { onCell: p.onCell } : {})} selected={p.selected ?? null}
          {...(p.after ? { after: p.after } : {})} />
      )}
    </div>
  );
}

/** The answer to one question, wherever it stands. */
export function Answered(p: { question: Question; heading?: string; onCell?: CellHandler; selected?: readonly number[] | null; after?: (result: Result) => preact.ComponentChildren }) {
  const [, setTries] = useState(0);
  const entry = answer(p.question);
  const again = () => {
    forget(p.question);
    setTries((n) => n + 1);
  };
  return (
    <Working entry={entry} again={again}>
      {(result) => {
        const extra = p.after?.(result) ?? null;
        return (
          <div class={extra === null ? "" : "beside"}>
            <Panel result={result} {...(p.heading ? { heading: p.heading } : {})} {...(p.onCell ? { onCell: p.onCell } : {})} selected={p.selected ?? null} />
            {extra}
          </div>
        );
      }}
    </Working>
  );
}
