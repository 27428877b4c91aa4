/** A result with everything one can do with it: copy as Python, link, files, evidence, how it was computed. */

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import * as api from "../api";
import { costLine, type Result } from "../result";
import { link, update } from "../state";
import { label, methodName } from "../text";
import { View } from "../views";
import { Computed, EvidenceList } from "./evidence";

/** One short sentence on what just happened, read out to screen readers. */
export const told = signal("");

let fading = 0;
export function tell(text: string): void {
  told.value = text;
  clearTimeout(fading);
  fading = window.setTimeout(() => {
    told.value = "";
  }, 4000);
}

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function save(blob: Blob, name: string): void {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
}

const FILES = ["json", "csv", "svg", "png", "html"] as const;

export function Actions(p: { result: Result }) {
  const [busy, setBusy] = useState("");
  const act = (name: string, work: () => Promise<string>) => async () => {
    setBusy(name);
    try {
      tell(await work());
    } catch (error) {
      tell(error instanceof Error ? error.message : String(error));
    }
    setBusy("");
  };
  const { id, provenance } = p.result;
  const stem = provenance.method || p.result.kind.toLowerCase();
  return (
    <div class="actions" role="group" aria-label={`${methodName(stem)}: copy and download`}>
      <button type="button" onClick={act("code", async () => {
        await copy(await api.code(id));
        return "Copied as Python.";
      })}>Copy as Python</button>
      <button type="button" onClick={act("link", async () => {
        await copy(link());
        return "Copied a link to this view.";
      })}>Link</button>
      <span class="files">
        {FILES.map((kind) => (
          <button type="button" key={kind} aria-label={`Download ${kind.toUpperCase()}`} disabled={busy === kind} onClick={act(kind, async () => {
            save(await api.file(id, kind), `${stem}.${kind}`);
            return `Downloaded ${stem}.${kind}.`;
          })}>{kind.toUpperCase()}</button>
        ))}
      </span>
    </div>
  );
}

export function Panel(p: { result: Result; heading?: string; actions?: boolean; level?: 2 | 3; onCell?: CellHandler; selected?: readonly number[] | null }) {
  const { result } = p;
  // An explanation by one method is that method's result, with the notes on how it was chosen.
  const alone = result.kind === "Explanation" && result.results.length === 1 ? result.results[0]! : null;
  const shown = alone ?? result;
  const Heading = p.level === 2 ? "h2" : "h3";
  const title = p.heading ?? (result.title || methodName(result.provenance.method || result.kind));
  return (
    <section class="panel" aria-label={title}>
      <header>
        <div>
          <Heading>{title}</Heading>
          {costLine(result.provenance) && <p class="quiet">{costLine(result.provenance)}</p>}
        </div>
        {p.actions !== false && <Actions result={result} />}
      </header>
      <View result={shown} onCell={p.onCell} selected={p.selected} />
      {shown.kind !== "Explanation" && <EvidenceList checks={shown.evidence} />}
      {alone && result.kind === "Explanation" && result.notes.length > 0 && <ul class="notes">{result.notes.map((note) => <li key={note}>{label(note, 1000)}</li>)}</ul>}
      <Computed result={result} />
    </section>
  );
}

/** A cell was picked: the axes of the result and the place on them. */
export type CellHandler = (axes: string[], place: number[]) => void;

export function mark(position: number | null): void {
  update({ at: position }, true);
}
