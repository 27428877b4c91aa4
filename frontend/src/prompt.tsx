/** The prompt, how the model reads it, what it says next, and what is to be explained. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Bars, type Bar } from "./parts/bars";
import { mark, tell } from "./parts/panel";
import { called, empty, given, models, reading } from "./question";
import { useResource } from "./resource";
import { at, type Message, state, update } from "./state";
import { flow, label, MISSING, percent, rightToLeft, visible } from "./text";

const TRY = ["The capital of France is", "When Mary and John went to the store, John gave a drink to", "The keys to the cabinet"];
const ROLES = ["system", "user", "assistant"];

export function PromptSection() {
  const s = state.value;
  const asked = JSON.stringify(s.prompt);
  const [draft, setDraft] = useState(s.prompt);
  useEffect(() => setDraft(s.prompt), [asked]);
  const chat = typeof draft !== "string";
  const can = models.value.find((one) => one.id === s.model)?.chat ?? false;
  const submit = (prompt = draft) => {
    if (empty(prompt)) return;
    const same = JSON.stringify(prompt) === asked;
    if (!same) update({ prompt, target: "", contrast: "", at: null, view: {}, result: "" });
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (!event.shiftKey && typeof draft === "string" && !draft.includes("\n")))) {
      event.preventDefault();
      submit();
    }
  };
  const change = (messages: Message[]) => setDraft(messages);
  return (
    <section class="prompt" aria-label="Prompt">
      {!chat ? (
        <textarea aria-label="Prompt" placeholder="Write a prompt" rows={1} dir="auto" spellcheck={false} value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)} onKeyDown={keys} />
      ) : (
        <ol class="chat">
          {draft.map((one, i) => (
            <li key={i}>
              <select aria-label={`Role of message ${i + 1}`} value={one.role} onChange={(event) => change(draft.map((m, j) => (i === j ? { ...m, role: event.currentTarget.value } : m)))}>
                {[...new Set([...ROLES, one.role])].map((role) => <option key={role}>{role}</option>)}
              </select>
              <textarea aria-label={`Message ${i + 1}`} rows={Math.min(8, Math.max(1, Math.ceil(one.content.length / 70)))} dir="auto" spellcheck={false} value={one.content}
                onInput={(event) => change(draft.map((m, j) => (i === j ? { ...m, content: event.currentTarget.value } : m)))} onKeyDown={keys} />
              <button type="button" aria-label={`Remove message ${i + 1}`} disabled={draft.length === 1} onClick={() => change(draft.filter((_, j) => j !== i))}>×</button>
            </li>
          ))}
        </ol>
      )}
      <div class="row">
        <button type="button" class="primary" disabled={empty(draft)} onClick={() => submit()}>Read</button>
        {chat && <button type="button" onClick={() => change([...draft, { role: draft.at(-1)?.role === "user" ? "assistant" : "user", content: "" }])}>Add a message</button>}
        {(can || chat) && (
          <label class="check">
            <input type="checkbox" checked={chat} onChange={(event) => setDraft(event.currentTarget.checked ? [{ role: "user", content: typeof draft === "string" ? draft : "" }] : (draft as Message[]).map((m) => m.content).join("\n"))} /> as a chat
          </label>
        )}
        {empty(s.prompt) && (
          <span class="try">Try
            {TRY.map((text) => <button type="button" class="quiet-button" key={text} onClick={() => submit(text)}>{text}</button>)}
          </span>
        )}
        {JSON.stringify(draft) !== asked && !empty(s.prompt) && <span class="quiet">Changed; press Read, or Ctrl and Enter.</span>}
      </div>
    </section>
  );
}

/** The tokens as the model reads them; the marked one is marked in every panel. */
function TokenStrip({ tokens }: { tokens: api.Token[] }) {
  const box = useRef<HTMLDivElement>(null);
  const position = at.value;
  const text = useMemo(() => tokens.map((token, i) => {
    const shown = flow(token.text);
    return (
      <span key={i} id={`token-${i}`} data-i={i} role="option" class={token.special ? "special" : i % 2 ? "odd" : ""} title={`token ${i}, id ${token.id}${token.role ? `, ${token.role}` : ""}`}
        aria-label={`${i}: ${visible(token.text)}`}>{token.special ? <bdi>{shown}</bdi> : shown || MISSING}</span>
    );
  }), [tokens]);
  useEffect(() => {
    const element = position === null ? null : document.getElementById(`token-${position}`);
    element?.setAttribute("aria-selected", "true");
    if (element) box.current?.setAttribute("aria-activedescendant", element.id);
    else box.current?.removeAttribute("aria-activedescendant");
    return () => element?.removeAttribute("aria-selected");
  }, [position, tokens]);
  const forward = rightToLeft(tokens.map((token) => token.text).join("").slice(0, 200)) ? -1 : 1;
  return (
    <div ref={box} class="tokens strip" dir="auto" role="listbox" tabIndex={0} aria-label={`${tokens.length} tokens. Arrow keys choose one.`}
      onClick={(event) => {
        const element = (event.target as HTMLElement).closest<HTMLElement>("[data-i]");
        if (element) mark(Number(element.dataset.i) === position ? null : Number(element.dataset.i));
      }}
      onKeyDown={(event) => {
        const step = { ArrowRight: forward, ArrowLeft: -forward, ArrowDown: 8, ArrowUp: -8 }[event.key];
        if (step !== undefined) mark(Math.max(0, Math.min(tokens.length - 1, (position ?? (step > 0 ? -1 : tokens.length)) + step)));
        else if (event.key === "Home") mark(0);
        else if (event.key === "End") mark(tokens.length - 1);
        else if (event.key === "Escape") mark(null);
        else return;
        event.preventDefault();
      }}>
      {text}
    </div>
  );
}

function Chosen(p: { name: string; value: string; fallback: string; options: Bar[]; onPut: (value: string) => void }) {
  const shown = called(p.value);
  return (
    <span class="chosen">
      <input aria-label={p.name} value={shown} placeholder={p.fallback} list={`list-${p.name.replaceAll(" ", "-")}`} dir="auto" size={Math.max(8, Math.min(24, shown.length + 2 || p.fallback.length))}
        onChange={(event) => {
          const text = event.currentTarget.value;
          const known = p.options.find((one) => one.text === text);
          p.onPut(known ? `id:${known.id}` : text);
        }} />
      <datalist id={`list-${p.name.replaceAll(" ", "-")}`}>{p.options.map((one) => <option key={one.id} value={one.text} />)}</datalist>
      {p.value && <button type="button" aria-label={`Clear ${p.name}`} onClick={() => p.onPut("")}>×</button>}
    </span>
  );
}

export function ReadingSection() {
  const s = state.value;
  const key = s.model && !empty(s.prompt) ? JSON.stringify([s.model, s.prompt, s.edits, s.target, s.contrast]) : null;
  const watch = [given(s.target), given(s.contrast)].filter((one) => one !== undefined);
  const { value, error, loading, again } = useResource(key, (stop) => api.read(s.model, s.prompt, s.edits, { watch, top: 12 }, stop));
  const [many, setMany] = useState(false);
  useEffect(() => {
    reading.value = value;
  }, [value]);
  const position = at.value;
  const inner = value && position !== null && position < value.tokens.length - 1 ? position : null;
  const all = useResource(inner === null ? null : JSON.stringify([s.model, s.prompt, s.edits]), (stop) => api.read(s.model, s.prompt, s.edits, { positions: "all", top: 6 }, stop));
  if (key === null) return null;
  if (error) {
    return <section class="refused" role="alert"><p>{label(error, 1000)}</p><button type="button" onClick={again}>Try again</button></section>;
  }
  if (value === null) return <section class="reading"><p class="quiet" role="status">Reading the prompt…</p></section>;
  const here = inner === null ? null : all.value?.by_position[inner] ?? null;
  const [target, contrast] = [given(s.target), given(s.contrast)];
  const watched = value.watched;
  const put = (change: { target?: string; contrast?: string }) => update({ ...change, view: {} });
  return (
    <section class={`reading ${loading ? "stale" : ""}`} aria-label="How the model reads it">
      <div class="read">
        <h2>{value.tokens.length.toLocaleString("en")} tokens</h2>
        <TokenStrip tokens={value.tokens} />
        {value.notes.map((note) => <p class="quiet" key={note}>{label(note, 600)}</p>)}
        <p class="why">
          <span>Why</span>
          <Chosen name="what is explained" value={s.target} fallback={value.predictions[0] ? label(value.predictions[0].text, 30) : "what the model predicts"} options={value.predictions} onPut={(text) => put({ target: text })} />
          <span>rather than</span>
          <Chosen name="the alternative" value={s.contrast} fallback="anything else" options={value.predictions} onPut={(text) => put({ contrast: text })} />
          <span>?</span>
          {watched.length > 0 && <span class="quiet">{watched.map((one) => `“${label(one.text, 20)}” ${percent(one.probability)}`).join(" against ")}</span>}
        </p>
      </div>
      <div class="next">
        <h2>{here === null ? "What comes next" : <>After {position! + 1} tokens, “<bdi>{label(value.tokens[inner!]!.text, 20)}</bdi>”</>}</h2>
        <Bars name="Next tokens" items={(here ?? value.predictions).slice(0, many ? 12 : 6)} target={typeof target === "number" ? target : value.predictions[0]?.id} contrast={typeof contrast === "number" ? contrast : undefined}
          {...(here === null ? {
            onTarget: (item: Bar) => {
              put({ target: `id:${item.id}`, ...(s.contrast === `id:${item.id}` ? { contrast: "" } : {}) });
              tell(`Explaining ${label(item.text)}.`);
            },
            onContrast: (item: Bar) => put({ contrast: s.contrast === `id:${item.id}` ? "" : `id:${item.id}` }),
          } : {})} />
        {here === null && value.predictions.length > 6 && <button type="button" class="plain" aria-expanded={many} onClick={() => setMany(!many)}>{many ? "fewer" : "more"}</button>}
      </div>
    </section>
  );
}

